"""The log: one event, one line, to syslog and to stderr, without ever waiting for either.

The rules of this file:

- An event has a dotted, past-tense name and plain fields. It is one JSON object after the CEE
  cookie, ``<PRI>sentinel[PID]: @cee: {"event": "haproxy.died", ...}``, which rsyslog's mmjsonparse
  reads and which its default /dev/log input accepts (RFC 5424 it does not: rsyslog #4749).
- structlog's native chain alone. The standard library's handlers block on a stopped syslog daemon
  and add tracebacks after the JSON.
- What is sent is bounded: a line never exceeds what a syslog datagram carries, and stays valid
  JSON when it has to be cut.
- Nothing of structlog is configured globally: an EventLog is an object, and there may be several.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sentinel.address import read_log_target
from sentinel.config import Facility, Level, Log
from sentinel.log.links import StderrLink, link_to
from sentinel.log.outlet import Drops, Outlet

# structlog imports rich wherever it is installed: 50 ms and 6 MB for a console that is never used.
_rich_was_absent = "rich" not in sys.modules
if _rich_was_absent:
    sys.modules["rich"] = None  # type: ignore[assignment]  # makes "import rich" fail
import structlog  # noqa: E402
from structlog.tracebacks import ExceptionDictTransformer  # noqa: E402

if _rich_was_absent:
    del sys.modules["rich"]

#: rsyslog cuts a message at 8 KiB (its default $MaxMessageSize), which would end the JSON early.
JSON_BYTES_MAX: Final = 7500

Field = str | int | float | bool
_Event = MutableMapping[str, Any]  # structlog's own type for an event under way

_SHORTENINGS: Final = (4096, 1024, 256, 64)
_BARE: Final = re.compile(r'[^\s"=]+')
_RESERVED: Final = ("event", "level", "time", "node")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Severity:
    """One level: structlog's number, syslog's severity (RFC 5424, table 2)."""

    level: Level
    number: int
    syslog: int


_SEVERITIES: Final = {
    severity.level: severity
    for severity in (
        _Severity(level=Level.DEBUG, number=10, syslog=7),
        _Severity(level=Level.INFO, number=20, syslog=6),
        _Severity(level=Level.WARNING, number=30, syslog=4),
        _Severity(level=Level.ERROR, number=40, syslog=3),
        _Severity(level=Level.CRITICAL, number=50, syslog=2),
    )
}


class EventLog:
    """Events to syslog and stderr; every call returns at once, whatever has become of them."""

    def __init__(
        self, *, level: Level, node: str, syslog: Outlet | None, stderr: Outlet | None, form: _Form
    ) -> None:
        self._syslog: Final = syslog
        self._stderr: Final = stderr
        self._form: Final = form
        self._logger: Final = structlog.wrap_logger(
            self,
            processors=[
                _Envelope(node),
                structlog.processors.ExceptionRenderer(
                    ExceptionDictTransformer(show_locals=False, max_frames=10)
                ),
                _bounded,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(_SEVERITIES[level].number),
        ).bind()

    def emit(self, name: str, level: str, fields: Mapping[str, Field] | None = None) -> None:
        """Log one event; *level* is a word of config.Level (else ValueError)."""
        self._logger.log(_SEVERITIES[Level(level)].number, name, fields=fields or {})

    def crashed(self, name: str, error: BaseException) -> None:
        """Log an exception that nobody caught, with its last frames and without their locals."""
        self._logger.critical(name, fields={}, exc_info=error)

    def retry(self) -> None:
        """Send what waits and reconnect; to be called at every tick."""
        for outlet in (self._syslog, self._stderr):
            if outlet is not None:
                outlet.retry()

    def close(self) -> None:
        """Make a last attempt, then close; what cannot be sent now is counted as dropped."""
        for outlet in (self._syslog, self._stderr):
            if outlet is not None:
                outlet.close()

    @property
    def dropped(self) -> Drops:
        """Events lost on the way to syslog since the start."""
        return Drops() if self._syslog is None else self._syslog.dropped

    @property
    def dropped_stderr(self) -> Drops:
        """Events lost on the way to stderr since the start."""
        return Drops() if self._stderr is None else self._stderr.dropped

    @property
    def waiting(self) -> int:
        """Events that wait for syslog."""
        return 0 if self._syslog is None else self._syslog.waiting

    def _write(self, event: _Event) -> None:
        if self._syslog is not None:
            self._syslog.put(self._form.syslog(event))
        if self._stderr is not None:
            self._stderr.put(self._form.stderr(event))

    # structlog's native chain ends in a call of the method that is named as the level is.
    debug = info = warning = error = critical = _write


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How one event is written for each of its readers."""

    facility: Facility
    pid: int
    journal: bool  # stderr is the journal, which keeps the time itself and reads <N> prefixes

    def syslog(self, event: _Event) -> bytes:
        priority = list(Facility).index(self.facility) * 8 + _severity(event)
        return b"<%d>sentinel[%d]: @cee: %b" % (priority, self.pid, _json(event))

    def stderr(self, event: _Event) -> bytes:
        fields = (f"{key}={_plain(value)}" for key, value in event.items() if key not in _RESERVED)
        text = " ".join((event["event"], *fields))
        if self.journal:
            return b"<%d>%b\n" % (_severity(event), _utf8(text))
        return b"%b %-8b %b\n" % (_utf8(event["time"]), _utf8(event["level"]), _utf8(text))


def configure(settings: Log, *, node: str, stderr: int | None = 2) -> EventLog:
    """Build the log that *settings* ask for; *stderr* is a file descriptor, None for none.

    Nothing is connected before the first event, and a receiver that is missing is no error. Raises
    ValueError for a target that ``read_log_target`` refuses, host names among them.
    """
    form = _Form(
        facility=settings.facility,
        pid=os.getpid(),
        journal=stderr is not None and _is_journal(stderr),
    )
    link = link_to(read_log_target(settings.target))
    return EventLog(
        level=settings.level,
        node=node,
        syslog=None if link is None else Outlet(link, gap=_gap(form.syslog, node)),
        stderr=None if stderr is None else Outlet(StderrLink(stderr), gap=_gap(form.stderr, node)),
        form=form,
    )


class _Envelope:
    """The head of every event, in the order in which people read it; then its fields."""

    def __init__(self, node: str) -> None:
        self._node: Final = node

    def __call__(self, _logger: object, level: str, event: _Event) -> _Event:
        fields = event.pop("fields")
        return {
            "event": event.pop("event"),
            "level": level,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "node": self._node,
            **{f"{key}_" if key in _RESERVED else key: _finite(fields[key]) for key in fields},
            **event,  # exc_info
        }


def _gap(render: Callable[[_Event], bytes], node: str) -> Callable[[int], bytes]:
    """Return what renders the event that follows a gap."""
    envelope = _Envelope(node)

    def line(count: int) -> bytes:
        return render(
            envelope(None, Level.WARNING, {"event": "log.dropped", "fields": {"count": count}})
        )

    return line


def _bounded(_logger: object, _level: str, event: _Event) -> tuple[tuple[_Event], _Event]:
    """Shorten the longest texts until the JSON fits; structlog takes (arguments, keywords)."""
    if len(_json(event)) <= JSON_BYTES_MAX:
        return (event,), {}
    for length_max in _SHORTENINGS:
        shortened = {key: _shortened(value, length_max) for key, value in event.items()}
        if len(_json(shortened)) <= JSON_BYTES_MAX:
            return (shortened,), {}
    head = {key: shortened[key] for key in _RESERVED}
    return ({**head, "truncated": True},), {}


def _shortened(value: Any, length_max: int) -> Any:  # noqa: ANN401  (JSON, of any depth)
    match value:
        case str() if len(value) > length_max:
            return value[:length_max] + "…"
        case list():
            return [_shortened(item, length_max) for item in value]
        case dict():
            return {key: _shortened(item, length_max) for key, item in value.items()}
    return value


def _finite(value: Field) -> Field:
    """Spell infinity and NaN out, which JSON has no numbers for (RFC 8259, section 6)."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _json(event: _Event) -> bytes:
    return _utf8(json.dumps(event, ensure_ascii=False))


def _plain(value: object) -> str:
    """Write a value for people: quoted and escaped where it could be taken for something else."""
    if isinstance(value, str) and value.isprintable() and _BARE.fullmatch(value):
        return value
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # lone surrogates, from undecodable program output


def _severity(event: _Event) -> int:
    return _SEVERITIES[Level(event["level"])].syslog


def _is_journal(fd: int) -> bool:
    """Whether *fd* is the journal's stream (systemd.exec(5), $JOURNAL_STREAM)."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
