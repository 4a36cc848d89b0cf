"""Programs that may begin no thread, as a service at its TasksMax= may not."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from haproxies import DEADLINE_S

#: The limit counts an ordinary user's processes, and holds for everybody but root (setrlimit(2)).
_PRELUDE: Final = """
import asyncio, os, resource

def begin_no_thread():
    os.setgid(54321)
    os.setuid(54321)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
"""


def run_threadless(program: str, *words: str) -> str:
    """Run *program*, which may call ``begin_no_thread()``; return what it complains of."""
    argv = [sys.executable, "-W", "error", "-c", _PRELUDE + program, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return done.stderr or f"exit code {done.returncode}" * bool(done.returncode)
