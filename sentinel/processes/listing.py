"""Which processes there are: the one door to psutil, which short commands do not wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from sentinel.processes.procfs import NAME_CHARS_MAX, read_stat

if TYPE_CHECKING:
    from collections.abc import Iterator


def pids() -> list[int]:
    """Return the pids of all processes, ascending."""
    return psutil.pids()


def pids_named(names: frozenset[str]) -> Iterator[int]:
    """Yield the pids of the processes of these names, of NAME_CHARS_MAX characters at the most."""
    for process in psutil.process_iter(["name"]):
        if (process.info["name"] or "")[:NAME_CHARS_MAX] in names:
            yield process.pid


def children(pid: int) -> tuple[int, ...]:
    """Return the children of *pid*, oldest first, by reading every process: some milliseconds."""
    stats = map(read_stat, pids())
    found = [stat.proc for stat in stats if stat is not None and stat.parent == pid]
    return tuple(proc.pid for proc in sorted(found, key=lambda proc: proc.start_ticks))
