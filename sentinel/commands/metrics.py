"""``sentinel metrics``: what sentinel knows, for Prometheus (its text exposition format).

Meant for node_exporter's textfile collector: cron or a timer calls it with --output, which writes
by rename, so that the collector never reads half a file. What is not known is left out. When
sentinel does not answer, sentinel_up 0 is all there is, and stderr says why: a file that was left
as it is would go on saying that all is well.

Exit status: 0 written, also when sentinel does not answer, 1 FILE cannot be written, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sentinel import __version__
from sentinel.commands import CONFIG_DEFAULT, Subparsers, configuration
from sentinel.commands.client import NoAnswerError, ask

#: Written out, because importing the core would cost a short command its lightness.
PHASES: Final = ("LEARNING", "UP", "HUNG", "DEAD", "MENDING", "FAILED", "HOLDING", "MAINT")
OVERALLS: Final = ("healthy", "degraded", "failed", "unknown")
VRRP_STATES: Final = ("INIT", "BACKUP", "MASTER", "FAULT", "STOP")
#: In a label's value: prometheus.io, exposition formats.
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_READABLE: Final = 0o644

Document = dict[str, Any]
#: Names and values of the labels, and the number.
Sample = tuple[dict[str, str], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric with all its samples; those that are None are not known, and left out."""

    name: str
    doc: str
    samples: tuple[Sample, ...]

    @property
    def type(self) -> str:
        """The metric's type, which its name tells (prometheus.io, metric and label naming)."""
        return "counter" if self.name.endswith("_total") else "gauge"


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "metrics",
        help="print what sentinel knows for Prometheus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", metavar="FILE", help="write to FILE, by rename (stdout)")
    parser.add_argument("--socket", metavar="PATH", help="status socket (the configured one)")
    parser.add_argument(
        "--config", default=CONFIG_DEFAULT, metavar="FILE", help="sentinel.toml (%(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, and write what is known."""
    path = args.socket or configuration("metrics", args.config).status_socket
    try:
        found = _known(ask(path))
    except NoAnswerError as error:
        print(f"sentinel metrics: {error}", file=sys.stderr)
        found = [_one("up", _UP, 0)]
    page = render(found).encode(errors="replace")
    if args.output is None:
        sys.stdout.buffer.write(page)
        sys.stdout.flush()
        return 0
    try:
        _replace(args.output, page)
    except OSError as error:
        print(f"sentinel metrics: {args.output}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _replace(path: str, content: bytes) -> None:
    """Write by rename(2). The collector reads ``*.prom``, which the new file is not called yet."""
    fresh = f"{path}.new"
    with suppress(FileNotFoundError):  # of one that was killed
        os.unlink(fresh)  # noqa: PTH108  (pathlib costs its import)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, _READABLE), "wb") as file:
        os.fchmod(file.fileno(), _READABLE)  # whatever the umask: the collector is another user
        file.write(content)
    os.replace(fresh, path)  # noqa: PTH105  (see above)


# --- the format -----------------------------------------------------------------------------------


def render(found: Iterable[Family]) -> str:
    """Return the page; no two samples have the same labels, which would spoil all of it."""
    return "".join(f"{line}\n" for family in found for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    known = {_labels(labels): value for labels, value in family.samples if value is not None}
    if known:
        yield f"# HELP {family.name} {family.doc}"
        yield f"# TYPE {family.name} {family.type}"
    for labels, value in known.items():
        yield f"{family.name}{labels} {_number(value)}"


def _labels(labels: dict[str, str]) -> str:
    words = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{words}}}" if words else ""


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.9g}"


# --- what is told ---------------------------------------------------------------------------------

_UP: Final = "Whether sentinel answered."


def _known(document: Document) -> list[Family]:
    """Return all there is to tell; of a document of another version what this one understands."""
    version = document.get("version")
    about = {"node": str(document.get("node", "")), "version": str(version)}
    first = [_one("up", _UP, 1), _each("info", "The node, and its sentinel.", [(about, 1)])]
    try:
        return [*first, *families(document)]
    except KeyError:
        if version == __version__:
            raise
        words = f"sentinel {version} is running, and this is {__version__}"
        print(f"sentinel metrics: {words}: systemctl restart sentinel", file=sys.stderr)
        return first


def families(document: Document) -> Iterator[Family]:
    """Yield what a status document tells."""
    yield from _node(document)
    yield from _haproxy(document)
    yield from _checks(document["checks"])
    yield from _pools(document["pools"])
    yield from _keepalived(document["keepalived"])
    yield from _vrrp(document["vrrp"])


def _node(document: Document) -> Iterator[Family]:
    intent = document["intent"]
    yield _one("uptime_seconds", "For how long sentinel has run.", _s(document["uptime_ms"]))
    yield _one("dry_run", "Whether sentinel only says what it would do.", document["dry_run"])
    yield _of("overall", "The one word for the node.", OVERALLS, document["overall"])
    yield _of("phase", "Where sentinel stands with HAProxy.", PHASES, document["phase"])
    age_s = _s(document["phase_age_ms"])
    yield _one("phase_age_seconds", "For how long it has been in this phase.", age_s)
    serving = document["serving"]
    yield _one("serving", "Whether keepalived is told that this node may hold the VIP.", serving)
    yield _one("lowered", "By how much the VRRP priority is lowered.", document["lowered"])
    held_s = _s(document["held_for_ms"] or 0)
    yield _one("held_for_seconds", "How long the VIP is still held back after a failure.", held_s)
    yield _one("paused", "Whether somebody has paused sentinel.", intent["paused"])
    yield _one("stepped_down", "Whether somebody has handed the VIP over.", intent["stepped_down"])
    errors, dropped = len(document["errors"]), document["log_dropped"]
    yield _one("errors", "Files and sockets that sentinel cannot use, see sentinel status.", errors)
    yield _one("log_dropped_total", "Events that were lost on the way to syslog.", dropped)


def _haproxy(document: Document) -> Iterator[Family]:
    haproxy, restarts = document["haproxy"], document["restarts"]
    valid = haproxy["configuration"]["valid"] if haproxy["configuration"] else None
    yield _one("saturated", "Whether HAProxy is full (maxconn).", haproxy["saturated"])
    yield _one("configuration_valid", "Whether HAProxy would start with its files.", valid)
    yield _one("restarts_used", "Restarts of HAProxy within the window.", restarts["used"])
    yield _one("restarts_budget", "Restarts that one window allows.", restarts["budget"])


def _checks(checks: list[Document]) -> Iterator[Family]:
    named = [({"check": check["name"], "scope": check["scope"]}, check) for check in checks]
    up = [(labels, check["state"].startswith("UP")) for labels, check in named]
    unknown = [(labels, check["verdict"] == "UNKNOWN") for labels, check in named]
    took_s = [(labels, _s(check["check_duration_ms"])) for labels, check in named]
    yield _each("check_up", "Whether a check is UP.", up)
    yield _each("check_unknown", "Whether a check could not look when it last tried.", unknown)
    yield _each("check_duration_seconds", "How long a check took when it last ran.", took_s)


def _pools(pools: list[Document]) -> Iterator[Family]:
    up = [({"pool": pool["name"]}, pool["up"]) for pool in pools]
    total = [({"pool": pool["name"]}, pool["total"]) for pool in pools]
    yield _each("pool_servers_up", "Servers of a backend that are up.", up)
    yield _each("pool_servers", "Servers of a backend that are meant to serve.", total)


def _keepalived(keepalived: Document) -> Iterator[Family]:
    called_ms = keepalived["hook_called_age_ms"]
    age_s = None if called_ms is None else _s(called_ms)
    stopped = keepalived["stopped_by_sentinel"]
    yield _one("hook_age_seconds", "Since when keepalived has not called the hook.", age_s)
    yield _one("hook_silent", "Whether that is too long.", keepalived["hook_silent"])
    yield _one("keepalived_stopped", "Whether sentinel has stopped keepalived.", stopped)


def _vrrp(instances: list[Document]) -> Iterator[Family]:
    vips = [
        (_of_vip(instance, vip), vip["present"])
        for instance in instances
        for vip in instance["vips"]
    ]
    states = [
        ({"instance": instance["name"], "state": state}, state == instance["state"])
        for instance in instances
        if instance["state"] is not None
        for state in VRRP_STATES
    ]
    yield _each("vip_present", "Whether a VIP is on this node, as the kernel says.", vips)
    yield _each("vrrp_state", "What keepalived says of an instance.", states)


def _of_vip(instance: Document, vip: Document) -> dict[str, str]:
    names = {"instance": instance["name"], "vip": vip["address"]}
    return names | {"interface": vip["interface"]}


def _one(name: str, doc: str, value: float | None) -> Family:
    return _each(name, doc, [({}, value)])


def _of(name: str, doc: str, words: Iterable[str], present: str) -> Family:
    """Return 1 for the word that is true and 0 for all others, so that each can be graphed."""
    return _each(name, doc, [({name: word}, word == present) for word in words])


def _each(name: str, doc: str, samples: Iterable[Sample]) -> Family:
    return Family(name=f"sentinel_{name}", doc=doc, samples=tuple(samples))


def _s(duration_ms: float) -> float:
    return duration_ms / 1000
