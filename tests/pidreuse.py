"""Make the kernel give a dead process's pid to a new one (needs root)."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LAST_PID: Final = Path("/proc/sys/kernel/ns_last_pid")
_ATTEMPTS: Final = 1000


@contextmanager
def running_as(
    pid: int, argv: Sequence[str], executable: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *argv* under the free pid *pid*; others fork meanwhile, so it may take some attempts."""
    for _ in range(_ATTEMPTS):
        _LAST_PID.write_text(str(pid - 1))
        process = subprocess.Popen(
            argv,
            executable=executable,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if process.pid == pid:
                yield process
                return
        finally:
            process.kill()
            process.wait()
    raise AssertionError(f"pid {pid} could not be had")
