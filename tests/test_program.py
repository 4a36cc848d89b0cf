"""run() against real programs that misbehave in every way we have to survive."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from processes import descriptors, running, unreapable

from sentinel.program import OUTPUT_MAX_BYTES, run

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Far more than any of these programs needs; only a program that is waited for wrongly reaches it.
PLENTY_S: Final = 60.0
#: How long a program that never ends may run.
SHORT_S: Final = 0.3
#: The same where the program has to get something done first, be the machine ever so busy.
ENOUGH_S: Final = 1.5


def shell(script: str) -> tuple[str, ...]:
    """Return the command line of a small shell program."""
    return ("/bin/sh", "-c", script)


async def wait_dead(pid: int) -> None:
    """Wait until *pid* has died."""
    await asyncio.to_thread(wait_until, lambda: not running(pid), f"{pid} is dead")


async def wait_line(path: Path) -> str:
    """Wait until a program has written a line into *path* and return it."""

    def written() -> bool:
        return path.exists() and path.read_text().endswith("\n")

    await asyncio.to_thread(wait_until, written, f"{path} is written")
    return read(path)


def read(path: Path) -> str:
    """Return what a program has written."""
    return path.read_text().strip()


@pytest.fixture
def left_behind(tmp_path: Path) -> Iterator[Path]:
    """Give a file for the pid of a process that outlives its starter, and end that process."""
    path = tmp_path / "pid"
    yield path
    if path.exists():
        with suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)


async def test_output_and_exit_code() -> None:
    """Both stdout and stderr come back together, in order, with the exit code."""
    done = await run(shell("echo one; echo two >&2; exit 3"), timeout_s=PLENTY_S)
    assert (done.returncode, done.output, done.timed_out) == (3, "one\ntwo", False)


async def test_death_by_signal_is_a_negative_code() -> None:
    """A program that dies by a signal is told from one that was killed at its deadline."""
    done = await run(shell("kill -KILL $$"), timeout_s=PLENTY_S)
    assert (done.returncode, done.timed_out) == (-signal.SIGKILL, False)


async def test_first_line_skips_blank_lines() -> None:
    """The first line is the first that says something."""
    done = await run(shell("echo; echo ' why '; echo more"), timeout_s=PLENTY_S)
    assert done.first_line == "why"


async def test_first_line_of_silence() -> None:
    """A silent program has an empty first line."""
    assert (await run(("/bin/true",), timeout_s=PLENTY_S)).first_line == ""


async def test_hang_ends_at_the_deadline() -> None:
    """A program that never ends is killed, and what it said until then is kept."""
    done = await run(shell("echo begun; exec sleep 600"), timeout_s=ENOUGH_S)
    assert done.timed_out
    assert done.output == "begun"


async def test_hang_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """A program that ignores every polite signal is dead after its deadline all the same."""
    pid = tmp_path / "pid"
    script = f"trap '' TERM HUP INT QUIT; echo $$ > {pid}; while :; do sleep 0.01; done"
    done = await run(shell(script), timeout_s=ENOUGH_S)
    assert done.timed_out
    await wait_dead(int(read(pid)))


async def test_the_whole_group_dies_at_the_deadline(tmp_path: Path) -> None:
    """What the program started dies with it."""
    pid = tmp_path / "pid"
    done = await run(shell(f"sleep 600 & echo $! > {pid}; wait"), timeout_s=ENOUGH_S)
    assert done.timed_out
    await wait_dead(int(read(pid)))


async def test_a_stopped_program_is_killed() -> None:
    """SIGKILL reaches a program that is stopped."""
    assert (await run(shell("kill -STOP $$"), timeout_s=SHORT_S)).timed_out


async def test_a_daemon_holding_the_pipe_is_not_waited_for(left_behind: Path) -> None:
    """A daemon in a session of its own that keeps stdout open, as an init script leaves it."""
    script = f"setsid sh -c 'echo $$ > {left_behind}; exec sleep 600' & echo started"
    done = await run(shell(script), timeout_s=PLENTY_S)
    assert (done.returncode, done.output) == (0, "started")
    assert running(int(await wait_line(left_behind)))


async def test_a_background_child_of_the_group_survives_success(left_behind: Path) -> None:
    """A program that ends in time leaves what it started alone, be it in its own group."""
    done = await run(shell(f"sleep 600 & echo $! > {left_behind}"), timeout_s=PLENTY_S)
    assert done.returncode == 0
    assert running(int(read(left_behind)))


async def test_a_daemon_survives_writing_to_the_closed_pipe(
    left_behind: Path, tmp_path: Path
) -> None:
    """A badly detached daemon gets EPIPE, not its death, when it writes after we have left."""
    code = (
        "import os, sys, time\n"
        f"open({str(left_behind)!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.005)\n"
        "try:\n    os.write(1, b'late')\n    said = 'written'\n"
        "except BrokenPipeError:\n    said = 'EPIPE'\n"
        f"open({str(tmp_path / 'said')!r}, 'w').write(said + '\\n')\n"
    )
    (tmp_path / "daemon.py").write_text(code)
    await run(shell(f"{sys.executable} {tmp_path / 'daemon.py'} &"), timeout_s=PLENTY_S)
    await wait_line(left_behind)
    (tmp_path / "go").touch()
    assert await wait_line(tmp_path / "said") == "EPIPE"


async def test_output_of_a_flood_is_bounded() -> None:
    """A program that floods us ends at its deadline, and only the beginning is kept."""
    done = await run(("yes", "flood"), timeout_s=ENOUGH_S)
    assert done.timed_out
    assert len(done.output) <= OUTPUT_MAX_BYTES
    assert done.output.startswith("flood\nflood")


async def test_huge_output_neither_blocks_nor_is_kept() -> None:
    """More than a pipe holds is read on, so that the program can end."""
    done = await run(shell("head -c 5000000 /dev/zero | tr '\\0' x"), timeout_s=PLENTY_S)
    assert (done.returncode, done.output) == (0, "x" * OUTPUT_MAX_BYTES)


async def test_the_loop_runs_on_during_a_flood() -> None:
    """Other tasks get their turns while a program floods us."""
    turns = 0
    flood = asyncio.ensure_future(run(("yes",), timeout_s=SHORT_S))
    while not flood.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert (await flood).timed_out
    assert turns > 3


async def test_output_that_is_not_text() -> None:
    """Bytes that are no UTF-8 are replaced, not raised."""
    done = await run(shell("printf 'a\\377b'"), timeout_s=PLENTY_S)
    assert done.output == "a\N{REPLACEMENT CHARACTER}b"


async def test_stdin_is_empty() -> None:
    """A program that asks for input gets an end of file at once."""
    done = await run(("cat",), timeout_s=PLENTY_S)
    assert (done.returncode, done.output) == (0, "")


async def test_missing_program() -> None:
    """A program that does not exist raises FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        await run(("/nonexistent/program",), timeout_s=PLENTY_S)


async def test_program_that_is_not_executable(tmp_path: Path) -> None:
    """A file without the right to execute raises PermissionError."""
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    with pytest.raises(PermissionError):
        await run((str(plain),), timeout_s=PLENTY_S)


async def test_program_that_no_kernel_can_run(tmp_path: Path) -> None:
    """A file that is no program raises OSError."""
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\0\1\2")
    garbage.chmod(0o755)
    with pytest.raises(OSError, match="Exec format error"):
        await run((str(garbage),), timeout_s=PLENTY_S)


async def test_missing_working_directory(tmp_path: Path) -> None:
    """A working directory that is gone raises FileNotFoundError naming it."""
    with pytest.raises(FileNotFoundError, match="gone"):
        await run(("/bin/true",), timeout_s=PLENTY_S, cwd=str(tmp_path / "gone"))


async def test_a_failed_start_leaks_no_descriptor() -> None:
    """A start that fails a hundred times leaves no descriptor open."""
    before = descriptors()
    for _ in range(100):
        with pytest.raises(FileNotFoundError):
            await run(("/nonexistent/program",), timeout_s=PLENTY_S)
    assert descriptors() == before


async def test_cancellation_kills_the_group(tmp_path: Path) -> None:
    """A cancelled run leaves nothing of the program behind and is itself cancelled."""
    pid = tmp_path / "pid"
    task = asyncio.ensure_future(
        run(shell(f"sleep 600 & echo $! > {pid}; wait"), timeout_s=PLENTY_S)
    )
    child = int(await wait_line(pid))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_dead(child)


async def test_one_that_cannot_be_reaped_is_not_run_again(tmp_path: Path) -> None:
    """However often it is wanted: neither processes nor threads gather, and the loop goes on."""
    pid, other = tmp_path / "pid", ("/bin/sleep", "600")
    argv = shell(f"echo $$ > {pid}; exec sleep 600")
    first = asyncio.ensure_future(run(argv, timeout_s=ENOUGH_S))
    with unreapable(int(await wait_line(pid))):
        assert (await first).timed_out
        before = descriptors(), threading.active_count()
        for _ in range(3):
            with pytest.raises(OSError, match="was killed before and is still not gone"):
                await run(argv, timeout_s=PLENTY_S)
        assert (await run(other, timeout_s=SHORT_S)).timed_out
        assert (descriptors(), threading.active_count()) == before
    await wait_dead(int(read(pid)))
    assert (await run(argv, timeout_s=SHORT_S)).timed_out


async def test_one_whose_end_is_seen_before_it_can_be_reaped(tmp_path: Path) -> None:
    """Its tracer, be it stopped, is waited for no longer than until the deadline."""
    pid = tmp_path / "pid"
    argv = shell(f"echo $$ > {pid}; exec sleep 600")
    ending = asyncio.ensure_future(run(argv, timeout_s=ENOUGH_S))
    with unreapable(int(await wait_line(pid))):
        os.kill(int(read(pid)), signal.SIGTERM)
        assert (await ending).timed_out
    assert (await run(argv, timeout_s=SHORT_S)).timed_out


async def test_children_cannot_speak_to_systemd_as_us() -> None:
    """What systemd gave to us alone is not handed on, whoever names the environment."""
    ours = {"NOTIFY_SOCKET": "/x", "WATCHDOG_PID": "1", "WATCHDOG_USEC": "1"}
    done = await run(("/usr/bin/env",), timeout_s=PLENTY_S, env=ours | {"KEPT": "yes"})
    assert done.output == "KEPT=yes"


async def test_working_directory_and_environment(tmp_path: Path) -> None:
    """The program runs where and with what it is told to."""
    tmp = str(tmp_path)
    done = await run(shell("pwd -P; echo $A"), timeout_s=PLENTY_S, env={"A": "1"}, cwd=tmp)
    assert done.output == f"{tmp_path}\n1"


async def test_many_at_once() -> None:
    """Runs do not mix their outputs up."""
    done = await asyncio.gather(
        *(run(shell(f"echo {number}"), timeout_s=PLENTY_S) for number in range(20))
    )
    assert [one.output for one in done] == [str(number) for number in range(20)]
