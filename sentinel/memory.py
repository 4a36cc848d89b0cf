"""What outlives a restart of sentinel: one small JSON file, written by rename before an action.

It lives beside the lease on a tmpfs, because all its times are CLOCK_BOOTTIME and a reboot ends
what they speak of: keepalived and HAProxy are then started by the service manager as configured.
The boot id in the file guards that. A file that cannot be read or written is never fatal: sentinel
goes on with what it holds in mind and says so in status.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Final

from sentinel.core import Memory

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class MemoryFile:
    """The one place where a Memory is stored; *error* is the last failure, empty when well."""

    def __init__(self, path: Path, boot_id: str | None = None) -> None:
        self.path = path
        self.error = ""
        self._boot_id = boot_id or _BOOT_ID.read_text().strip()
        self._saved: Memory | None = None

    def load(self) -> Memory:
        """Return what was stored during this boot; a fresh Memory when there is nothing usable."""
        try:
            raw = json.loads(self.path.read_text())
            if raw.pop("boot_id") != self._boot_id:
                return Memory()
            self._saved = _from_json(raw)
        except FileNotFoundError:
            return Memory()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.error = f"{self.path}: {error}: starting with an empty memory"
            return Memory()
        return self._saved

    def save(self, memory: Memory) -> None:
        """Store *memory* if it has changed; a failure is kept in *error* and tried again."""
        if memory == self._saved:
            return
        temporary = self.path.with_name(f".{self.path.name}.new")
        try:
            temporary.write_text(json.dumps({"boot_id": self._boot_id, **asdict(memory)}))
            temporary.replace(self.path)
        except OSError as error:
            self.error = f"{self.path}: {error.strerror}"
        else:
            self._saved = memory
            self.error = ""


def _from_json(raw: dict[str, object]) -> Memory:
    """Read back what ``save`` wrote; anything else is refused with TypeError or ValueError."""
    lists = {key: tuple(value) for key, value in raw.items() if isinstance(value, list)}
    memory = Memory(**{**raw, **lists})  # type: ignore[arg-type]  # every type is checked below
    numbers = (*memory.restarts, memory.attempt, memory.next_attempt_s, memory.failed_since_s or 0)
    if not all(isinstance(number, int | float) for number in numbers):
        raise TypeError("a time in it is not a number")
    if not all(isinstance(name, str) for name in memory.proven):
        raise TypeError("a check's name in it is not text")
    return memory
