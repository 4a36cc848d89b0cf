"""What outlives a restart of sentinel: small JSON files, written by rename before an action.

They lie beside the lease on a tmpfs, because all their times are CLOCK_BOOTTIME and a reboot ends
what they speak of: keepalived and HAProxy are then started by the service manager as configured.
The boot id in the file guards that. What it says is acted on with root's rights, so it is read only
if nobody else may have written it. A file that cannot be read or written is never fatal: sentinel
goes on with what it holds in mind and says so in status.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from sentinel.core import Intent, Memory
from sentinel.events import Verb
from sentinel.processes import trust
from sentinel.processes.invocation import Invocation

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
#: Root's alone: an environment may hold passwords.
_MODE: Final = 0o600

Kept = TypeVar("Kept", bound=Memory | Invocation)


class BootFile(Generic[Kept]):
    """One value kept for the length of a boot; *error* is the last failure, empty when well."""

    def __init__(
        self,
        path: Path,
        *,
        read: Callable[[Mapping[str, Any]], Kept],
        boot_id: str | None = None,
    ) -> None:
        """Keep a value at *path*; *read* refuses with TypeError or ValueError what is damaged."""
        self.path = path
        self.error = ""
        self._read = read
        self._boot_id = boot_id or _BOOT_ID.read_text().strip()
        self._saved: Kept | None = None

    def load(self) -> Kept | None:
        """Return what was stored during this boot; None when nothing usable was."""
        try:
            raw = json.loads(self._content())
            if raw.pop("boot_id") == self._boot_id:
                self._saved = self._read(raw)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.error = f"{self.path}: {error}: starting without it"
        return self._saved

    def save(self, value: Kept) -> None:
        """Store *value* if it has changed; a failure is kept in *error* and tried again."""
        if value == self._saved:
            return
        try:
            self._write(json.dumps({"boot_id": self._boot_id, **asdict(value)}))
        except OSError as error:
            self.error = f"{self.path}: {error.strerror}"
        else:
            self._saved = value
            self.error = ""

    def _content(self) -> bytes:
        """Return what the file holds; raises ValueError if others may have written it."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not trust.is_ours_alone(os.fstat(descriptor)):
                raise ValueError("others than root may write it")
            return file.read()

    def _write(self, text: str) -> None:
        temporary = self.path.with_name(f".{self.path.name}.new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        temporary.replace(self.path)


def memory_file(path: Path, boot_id: str | None = None) -> BootFile[Memory]:
    """Keep what the core must remember."""
    return BootFile(path, read=_memory, boot_id=boot_id)


def invocation_file(path: Path, boot_id: str | None = None) -> BootFile[Invocation]:
    """Keep how HAProxy was run: when both are dead, its configuration can still be judged."""
    return BootFile(path, read=_invocation, boot_id=boot_id)


def _memory(raw: Mapping[str, Any]) -> Memory:
    intents = *_older(raw.get("intent")), *(_intent(known) for known in raw.get("intents", ()))
    lists = {key: tuple(value) for key, value in raw.items() if isinstance(value, list)}
    known = {key: value for key, value in raw.items() if key != "intent"}
    memory = Memory(**{**known, **lists, "intents": intents})
    numbers = (
        *(*memory.restarts, memory.attempt, memory.next_attempt_s, memory.failed_since_s or 0),
        *(*memory.failures, *memory.keepalived_starts),
    )
    _check_times(numbers)
    _check_text(memory.proven)
    return memory


def _intent(raw: Mapping[str, Any]) -> Intent:
    intent = Intent(**{**raw, "verb": Verb(raw["verb"])})
    _check_times((intent.since_s, intent.until_s or 0, intent.until_worker or 0))
    _check_text((intent.reason, intent.by))
    return intent


def _older(raw: Mapping[str, Any] | None) -> tuple[Intent, ...]:
    """Read the one order that an older file holds: a pause outlives an upgrade of sentinel."""
    if raw is None or not (raw["paused"] or raw["stepped_down"]):
        return ()
    asked = {key: raw[key] for key in ("since_s", "until_s", "until_worker", "reason", "by")}
    verb = Verb.PAUSE if raw["paused"] else Verb.STEPDOWN
    return (_intent({**asked, "verb": verb, "drain": bool(raw["paused"] and raw["stepped_down"])}),)


def _invocation(raw: Mapping[str, Any]) -> Invocation:
    invocation = Invocation(
        executable=raw["executable"],
        argv=tuple(raw["argv"]),
        env=tuple((name, value) for name, value in raw["env"]),
        cwd=raw["cwd"],
        inherited=int(raw.get("inherited", 0)),
        doubt=str(raw.get("doubt", "")),
    )
    words = (word for pair in invocation.env for word in pair)
    _check_text((invocation.executable, *invocation.argv, *words, invocation.cwd))
    return invocation


def _check_times(numbers: tuple[object, ...]) -> None:
    if not all(isinstance(number, int | float) for number in numbers):
        raise TypeError("a time in it is not a number")


def _check_text(words: tuple[object, ...]) -> None:
    if not all(isinstance(word, str) for word in words):
        raise TypeError("a word in it is not text")
