"""A watched process: its state, its death, and nothing after that."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from haproxies import DEADLINE_S, wait_until
from processes import descriptors

from sentinel.processes.watch import Watch, adopt, living

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that does nothing for a minute."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and reap it."""
    process.kill()
    process.wait(DEADLINE_S)


def leave_zombie(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and wait for its end without reaping it."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


async def test_states_are_seen(sleeper: subprocess.Popen[bytes]) -> None:
    """Sleeping, stopped, a zombie, gone."""
    watch = Watch(sleeper.pid, lambda: None)
    wait_until(lambda: watch.state() == "S", "it sleeps")
    sleeper.send_signal(signal.SIGSTOP)
    wait_until(lambda: watch.state() == "T", "it is stopped")
    assert living([watch]) == [(watch, "T")]
    sleeper.kill()
    wait_until(lambda: watch.state() == "Z", "it is a zombie")
    assert living([watch]) == []
    end(sleeper)
    assert watch.state() == "X"
    watch.close()


async def test_a_death_calls_once(sleeper: subprocess.Popen[bytes]) -> None:
    """A pidfd stays readable for ever; the caller hears of it once."""
    deaths = asyncio.Queue[None]()
    watch = Watch(sleeper.pid, lambda: deaths.put_nowait(None))
    sleeper.kill()
    async with asyncio.timeout(DEADLINE_S):
        await deaths.get()
    for _ in range(100):
        await asyncio.sleep(0)
    assert deaths.empty()
    watch.close()


async def test_a_closed_watch_is_silent(sleeper: subprocess.Popen[bytes]) -> None:
    """After close nobody is called, and everything is given back."""
    before = descriptors()
    watch = Watch(sleeper.pid, lambda: pytest.fail("called after close"))
    watch.close()
    watch.close()
    end(sleeper)
    for _ in range(100):
        await asyncio.sleep(0)
    assert descriptors() == before


@pytest.fixture
def changeling() -> Iterator[subprocess.Popen[bytes]]:
    """Run a shell that becomes another program once it is told to."""
    argv = ["sh", "-c", "read line; exec sleep 60"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_another_program_is_not_the_same(changeling: subprocess.Popen[bytes]) -> None:
    """A forked child that executes something else is no worker any more."""
    watch = Watch(changeling.pid, lambda: None)
    assert living([watch])
    assert changeling.stdin is not None
    changeling.stdin.write(b"\n")
    changeling.stdin.flush()
    wait_until(lambda: watch.state() == "X", "it has become another program")
    watch.close()


async def test_the_dead_cannot_be_watched(sleeper: subprocess.Popen[bytes]) -> None:
    """Neither a zombie nor a pid of nobody, and no descriptor is lost in trying."""
    before = descriptors()
    leave_zombie(sleeper)
    with pytest.raises(ProcessLookupError):
        Watch(sleeper.pid, lambda: None)
    end(sleeper)
    assert adopt(sleeper.pid, lambda: None, lambda _: True) is None
    assert descriptors() == before


async def test_the_refused_are_not_watched(sleeper: subprocess.Popen[bytes]) -> None:
    """Who is not wanted, or cannot be judged, leaves no descriptor behind."""
    before = descriptors()
    assert adopt(sleeper.pid, lambda: None, lambda stat: stat.name == "haproxy") is None

    def unreadable(_: object) -> bool:
        raise PermissionError

    with pytest.raises(PermissionError):
        adopt(sleeper.pid, lambda: None, unreadable)
    assert descriptors() == before
