"""SIGKILL exactly the processes that were seen, and never another that got their pid.

The pidfd is opened first and the process identified afterwards: from then on the signal can reach
only that one (pidfd_open(2)). Start times count clock ticks, so two processes that got one pid
within 10 ms look alike; nothing shorter than that is left open.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from sentinel.actions import Outcome
from sentinel.processes import procfs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentinel.model import Proc


def kill(procs: Iterable[Proc]) -> Outcome:
    """SIGKILL *procs*; one that is gone already is as good as killed.

    Not ok when one of them could not be killed; *detail* then says which, and why.
    """
    refusals = []
    for proc in procs:
        try:
            _kill_one(proc)
        except ProcessLookupError:
            continue
        except OSError as error:
            refusals.append(f"{proc.pid}: {error.strerror}")
    return Outcome(ok=not refusals, detail=", ".join(refusals))


def _kill_one(proc: Proc) -> None:
    """Kill one process; raises ProcessLookupError when it is gone, OSError when not allowed."""
    pidfd = os.pidfd_open(proc.pid)
    try:
        stat = procfs.read_stat(proc.pid)
        if stat is not None and stat.proc == proc:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
