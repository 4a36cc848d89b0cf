"""Exactly the process that was seen is killed, and no heir of its pid."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from haproxies import wait_until
from pidreuse import running_as
from privileges import IS_ROOT, NOBODY, as_nobody

from sentinel.actions import Outcome
from sentinel.drivers import signals
from sentinel.model import Proc
from sentinel.processes import procfs

if TYPE_CHECKING:
    from collections.abc import Iterator

SLEEP = ("sleep", "60")


def uptime_ticks() -> float:
    """Return the time since boot in the unit of start times."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) * procfs.TICKS_PER_S


def seen(pid: int) -> Proc:
    """Return the identity of a living process."""
    stat = procfs.read_stat(pid)
    assert stat is not None
    return stat.proc


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that does nothing for a minute."""
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def test_the_seen_process_is_killed(sleeper: subprocess.Popen[bytes]) -> None:
    """A living process dies by SIGKILL."""
    assert signals.kill([seen(sleeper.pid)]) == Outcome(ok=True)
    assert sleeper.wait(10) == -signal.SIGKILL


def test_a_stopped_process_is_killed(sleeper: subprocess.Popen[bytes]) -> None:
    """SIGSTOP does not protect from SIGKILL: that is how a hung HAProxy ends."""
    os.kill(sleeper.pid, signal.SIGSTOP)
    assert signals.kill([seen(sleeper.pid)]) == Outcome(ok=True)
    assert sleeper.wait(10) == -signal.SIGKILL


def test_a_dead_process_is_as_good_as_killed(sleeper: subprocess.Popen[bytes]) -> None:
    """A zombie and a reaped process are both gone."""
    proc = seen(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert signals.kill([proc]) == Outcome(ok=True)
    sleeper.wait(10)
    assert signals.kill([proc]) == Outcome(ok=True)


def test_another_start_time_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    """The same pid with another start time is left alone."""
    proc = seen(sleeper.pid)
    assert signals.kill([Proc(pid=proc.pid, start_ticks=proc.start_ticks - 1)]).ok
    assert sleeper.poll() is None


@pytest.mark.skipif(not IS_ROOT, reason="choosing a pid needs root")
def test_the_heir_of_a_pid_is_left_alone() -> None:
    """A process that got the pid of a dead one, really, is not killed."""
    with subprocess.Popen(SLEEP) as first:
        proc = seen(first.pid)
        first.kill()
    # Start times count in ticks: within one the two would look alike.
    wait_until(lambda: uptime_ticks() > proc.start_ticks + 1, "the next tick")
    with running_as(proc.pid, SLEEP) as heir:
        assert signals.kill([proc]).ok
        assert heir.poll() is None


@pytest.mark.skipif(not IS_ROOT, reason="giving up rights needs root")
def test_a_refusal_is_told_and_stops_nothing(sleeper: subprocess.Popen[bytes]) -> None:
    """What may not be killed is named; the others are killed all the same."""
    with subprocess.Popen(SLEEP, user=NOBODY) as mine:
        with as_nobody():
            outcome = signals.kill([seen(sleeper.pid), seen(mine.pid)])
        assert mine.wait(10) == -signal.SIGKILL
    assert outcome == Outcome(ok=False, detail=f"{sleeper.pid}: Operation not permitted")
    assert sleeper.poll() is None
