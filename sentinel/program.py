"""Run one foreign program under a deadline of our own; nothing we start can hold us up.

The program leads its own session and process group, so that at the deadline everything it started
is killed with it. Its *end* is its own exit, not the end of its output: a daemon that an init
script leaves behind may hold the pipe for years. A program that cannot be reaped (state D) is left
to the kernel: the caller gets its answer all the same, and whoever wants to run it again is refused
until it is gone, so that no more of them gather than there are commands.

A child's end is seen by its pidfd, and never waited for by waitpid(2), which may block even then
(ptrace(2): a tracer's wait comes first). asyncio of Python 3.11 has a thread wait for each child.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from subprocess import DEVNULL, STDOUT, Popen
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OUTPUT_MAX_BYTES: Final = 64 * 1024
_PIPE_BYTES: Final = 64 * 1024  # what a pipe holds by default: pipe(7)
_REAP_S: Final = 0.5
_POLL_S: Final = 0.01
#: What systemd says to sentinel alone (sd_notify(3)); a child must not speak in its name.
_OURS: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"})
#: Those whom SIGKILL has not ended in time, and their command lines.
_unreaped: Final[dict[Popen[bytes], tuple[str, ...]]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a program ended; *returncode* is None when it was killed at its deadline.

    As in ``subprocess``, a negative *returncode* is the signal that ended it.
    """

    returncode: int | None
    output: str

    @property
    def timed_out(self) -> bool:
        """The deadline came first."""
        return self.returncode is None

    @property
    def first_line(self) -> str:
        """The first line of the output that says something, or empty."""
        return next((line.strip() for line in self.output.splitlines() if line.strip()), "")


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Completed:
    """Run *argv* without a shell; stdout and stderr come back together, bounded.

    SIGPIPE stays ignored in the program, as in a systemd service (IgnoreSIGPIPE= in
    systemd.exec(5)): a daemon it leaves behind must not die of writing to a pipe we have closed.

    Raises OSError when the program cannot be started at all (missing, not executable, or killed at
    its last run's deadline and not gone since).
    """
    command = tuple(argv)
    _refuse_beside_unreaped(command)
    with _Output() as output:
        process = Popen(  # noqa: ASYNC220  (blocks until it is executed, as asyncio's own does)
            command,
            stdin=DEVNULL,
            stdout=output.write_fd,
            stderr=STDOUT,
            env=_theirs(os.environ if env is None else env),
            cwd=cwd,
            start_new_session=True,
            restore_signals=False,
        )
        try:
            async with asyncio.timeout(timeout_s):
                returncode = await _end(process)
        except TimeoutError:
            await _kill_group(process, command)
            return Completed(returncode=None, output=output.text())
        except (OSError, asyncio.CancelledError):  # OSError: no descriptor is left to wait with
            await _kill_group(process, command)
            raise
        return Completed(returncode=returncode, output=output.text())


class _Output:
    """A pipe of our own: asyncio's would make ``wait`` last until its other end is closed.

    It is read as it fills, so that a full pipe blocks no one; the first OUTPUT_MAX_BYTES are kept.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read_fd, self._read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._read_fd)
        os.close(self._read_fd)
        os.close(self.write_fd)

    def _read(self) -> None:
        """Take what is there, at most one pipe full: whoever still writes cannot hold us."""
        with suppress(BlockingIOError):
            chunk = os.read(self._read_fd, _PIPE_BYTES)
            self._kept += chunk[: OUTPUT_MAX_BYTES - len(self._kept)]

    def text(self) -> str:
        """Return what was said until now."""
        self._read()
        return self._kept.decode("utf-8", "replace").strip()


def _theirs(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in _OURS}


async def _end(process: Popen[bytes]) -> int:
    """Return the exit code as soon as there is one; raises OSError without a free descriptor."""
    loop, dead = asyncio.get_running_loop(), asyncio.Event()
    pidfd = os.pidfd_open(process.pid)
    loop.add_reader(pidfd, dead.set)
    try:
        await dead.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return await _reaped(process)


async def _reaped(process: Popen[bytes]) -> int:
    """Return the exit code of who is dead, or about to die."""
    while (returncode := process.poll()) is None:  # noqa: ASYNC110  (nobody tells of it)
        await asyncio.sleep(_POLL_S)
    return returncode


async def _kill_group(process: Popen[bytes], argv: tuple[str, ...]) -> None:
    """SIGKILL the whole group and wait shortly for the leader to be reaped."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_REAP_S):
                await _reaped(process)
    finally:
        if process.returncode is None:
            _unreaped[process] = argv


def _refuse_beside_unreaped(argv: tuple[str, ...]) -> None:
    """Reap who is gone by now; raise OSError where a run of *argv* is not."""
    for process in tuple(_unreaped):
        if process.poll() is not None:
            del _unreaped[process]
    if argv in _unreaped.values():
        raise OSError(errno.EBUSY, "was killed before and is still not gone", argv[0])
