"""Foreign processes as tests see them: whether they live."""

from __future__ import annotations

from pathlib import Path


def running(pid: int) -> bool:
    """Tell whether *pid* lives; a zombie that nobody has reaped yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
