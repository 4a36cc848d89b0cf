"""Run one foreign program under a deadline of our own; nothing we start can hold us up.

The program leads its own process group, so that at the deadline everything it started is killed
with it. A program that cannot be reaped (state D) is left to the kernel: the caller gets its
answer all the same.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

OUTPUT_MAX_BYTES: Final = 64 * 1024
_REAP_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a program ended; *returncode* is None when it was killed at its deadline."""

    returncode: int | None
    output: str

    @property
    def timed_out(self) -> bool:
        """The deadline came first."""
        return self.returncode is None


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Completed:
    """Run *argv* without a shell; stdout and stderr come back together, bounded.

    Raises OSError when the program cannot be started at all (missing, not executable).
    """
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=env, cwd=cwd, start_new_session=True
    )
    output = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            await _drain(process, output)
            returncode = await process.wait()
    except TimeoutError:
        await _kill_group(process)
        return Completed(returncode=None, output=_text(output))
    except BaseException:
        await _kill_group(process)
        raise
    return Completed(returncode=returncode, output=_text(output))


async def _drain(process: asyncio.subprocess.Process, output: bytearray) -> None:
    """Read until end of file, keeping the first OUTPUT_MAX_BYTES, so that a full pipe blocks no one."""
    assert process.stdout is not None  # noqa: S101  (asked for with PIPE above)
    while chunk := await process.stdout.read(8192):
        output += chunk[: max(0, OUTPUT_MAX_BYTES - len(output))]


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    """SIGKILL the whole group and wait shortly for the leader to be reaped."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_REAP_S):
            await process.wait()


def _text(output: bytearray) -> str:
    return output.decode("utf-8", "replace").strip()
