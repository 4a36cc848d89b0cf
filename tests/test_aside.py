"""What may hang is done aside: under a deadline, once at a time, and in nobody's way."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hanging import hanging
from haproxies import DEADLINE_S
from namespaces import needs_root
from threadless import run_threadless

from sentinel.aside import Aside

if TYPE_CHECKING:
    from pathlib import Path


def threads(name: str) -> list[threading.Thread]:
    """Return the threads of that name."""
    return [thread for thread in threading.enumerate() if thread.name == name]


async def test_what_comes_of_it_is_handed_on(tmp_path: Path) -> None:
    """Its result, and what the world refuses; done in another thread."""
    aside = Aside("reading it")
    assert await aside.run(threading.get_ident, DEADLINE_S) != threading.get_ident()
    with pytest.raises(FileNotFoundError):
        await aside.run((tmp_path / "missing").read_text, DEADLINE_S)
    assert await aside.run(lambda: 1, DEADLINE_S) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_bug_is_raised() -> None:
    """Where it is waited for."""
    with pytest.raises(ZeroDivisionError):
        await Aside("dividing").run(lambda: 1 // 0, DEADLINE_S)
    for thread in threads("dividing"):
        thread.join()  # it tells of it as well, and not in another test


async def test_what_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """Nor begun again before it has come back; then it is as if nothing had been."""
    aside = Aside("reading it once")
    async with hanging(aside, tmp_path / "pipe"):
        for _ in range(3):
            with pytest.raises(TimeoutError, match="reading it once hangs"):
                await aside.run(pytest.fail, DEADLINE_S)
        assert len(threads("reading it once")) == 1
    assert await aside.run(lambda: 1, DEADLINE_S) == 1


async def test_what_came_back_in_time_counts(tmp_path: Path) -> None:
    """Though this process was held up, and so the deadline is noticed before the answer."""
    aside, over = Aside("reading it"), threading.Event()

    def read() -> str:
        over.wait()
        return (tmp_path / "it").read_text()

    for result in (FileNotFoundError, "read"):
        over.clear()
        waiting = asyncio.ensure_future(aside.run(read, 0.05))
        await asyncio.sleep(0)
        time.sleep(0.06)  # noqa: ASYNC251  (the loop stands still until the deadline has passed)
        over.set()
        for thread in threads("reading it"):
            thread.join()
        (ended,) = await asyncio.gather(waiting, return_exceptions=True)
        assert ended == result or type(ended) is result
        (tmp_path / "it").write_text("read")


#: What asks for threads where there are none.
ASKS = """
import errno
from sentinel.aside import Aside
from sentinel.exchange.lookup import look_up
from sentinel.neighbours.adverts import Adverts
from sentinel.neighbours.probe import probe_all
from sentinel.vrrp import Vip

async def refused(doing):
    try:
        await doing
    except OSError as error:
        return error.errno == errno.EAGAIN and error.strerror.startswith("no thread for")

async def main():
    adverts = Adverts(print)
    assert adverts.follow({("lo", 4): frozenset({51})}) == ""
    begin_no_thread()
    vip = Vip(address="127.0.0.2", prefix=32, interface="lo")
    aside = Aside("reading it")
    assert await refused(aside.run(print, 1)), "the first time"
    assert await refused(aside.run(print, 1)), "as if nothing had been"
    assert await refused(look_up("a name", print))
    [answer] = (await probe_all((vip,), aside)).values()
    assert isinstance(answer, OSError), answer
    adverts.close()

asyncio.run(main())
"""


@needs_root
def test_where_no_thread_can_be_had_the_world_is_to_blame() -> None:
    """The service may begin no more (TasksMax=): an OSError as any other, and no bug."""
    assert run_threadless(ASKS) == ""


async def test_one_that_hangs_is_in_nobodys_way(tmp_path: Path) -> None:
    """Each place has a thread of its own."""
    async with hanging(Aside("reading it"), tmp_path / "pipe"):
        assert await Aside("another").run(lambda: 1, DEADLINE_S) == 1


async def test_who_waits_can_be_cancelled(tmp_path: Path) -> None:
    """As the supervisor's tasks are, at a reload."""
    aside = Aside("reading it")
    os.mkfifo(tmp_path / "pipe")
    waiting = asyncio.create_task(aside.run((tmp_path / "pipe").read_text, DEADLINE_S))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(TimeoutError, match="reading it hangs"):
        await aside.run(pytest.fail, DEADLINE_S)
    (tmp_path / "pipe").write_text("")


def test_what_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """A file system that hangs must not turn a stop of sentinel into a kill."""
    os.mkfifo(tmp_path / "pipe")
    program = """
import asyncio, contextlib, pathlib, sys
from sentinel.aside import Aside
async def main():
    with contextlib.suppress(TimeoutError):
        await Aside("reading it").run(pathlib.Path(sys.argv[1]).read_text, 0.01)
asyncio.run(main())
"""
    argv = [sys.executable, "-c", program, str(tmp_path / "pipe")]
    assert subprocess.run(argv, timeout=DEADLINE_S, check=False).returncode == 0
