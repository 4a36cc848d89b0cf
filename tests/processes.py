"""Processes as tests see them: whether they live, what this one has open, one that stays."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: PTRACE_SEIZE of ptrace(2), and then never to wait for the tracee.
_SEIZE: Final = """\
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
print(libc.ptrace(0x4206, int(sys.argv[1]), None, None), flush=True)
time.sleep(600)
"""


def running(pid: int) -> bool:
    """Tell whether *pid* lives; a zombie that nobody has reaped yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def descriptors() -> int:
    """Return how many file descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir())) - 1  # one of them reads this very folder


@contextmanager
def unreapable(pid: int) -> Iterator[None]:
    """Let nobody reap *pid*, though it be killed, for the block: it has a tracer that sleeps.

    So it is with one in state D, whom SIGKILL reaches only when the kernel is through with him.
    """
    tracer = subprocess.Popen(
        (sys.executable, "-c", _SEIZE, str(pid)), stdout=subprocess.PIPE, text=True
    )
    with tracer:
        try:
            assert tracer.stdout is not None
            assert tracer.stdout.readline() == "0\n"
            yield
        finally:
            tracer.kill()
