"""Which values are right alone and wrong together.

Each function looks at one such bond and names every key that it is about, the one to report it at
first: where one of them is wrong already, there is nothing to add.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from posixpath import normpath
from typing import Final

from sentinel.address import read_listen, read_peer_url
from sentinel.config import (
    Command,
    Config,
    Manager,
    Pace,
    Peer,
    Probe,
    ProbeType,
    Restart,
)
from sentinel.configfile.duration import write_duration
from sentinel.model import PEER_STALE_S, PROCESS_STALE_S

#: Names of sentinel's own checks, which status and logs show beside the configured ones.
RESERVED_NAMES: Final = frozenset(
    {"process", "listeners", "runtime", "configuration", "backends", "vrrp", "rivals", "peer"}
)
#: What sentinel keeps in run_dir and cannot be told to keep elsewhere.
RUN_DIR_NAMES: Final = ("lock", "memory.json", "invocation.json")
#: systemd refuses a unit's sixth start within 10 s (systemd-system.conf(5), DefaultStartLimit*).
START_LIMIT_BURST: Final = 5
START_LIMIT_INTERVAL_S: Final = 10.0

_HTTP_FIELDS: Final = ("method", "path", "headers", "expect", "body")
_TLS_FIELDS: Final = ("sni", "verify", "ca_file", "expires_within_s")

Where = Callable[[str, int], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """One bond that is broken: the keys, what is wrong and the cure."""

    keys: tuple[str, ...]
    wrong: str
    cure: str


def contradictions(config: Config, where: Where) -> Iterator[Contradiction]:
    """Yield all of them; *where* writes the path of an element of an array of tables."""
    probes = {where("probe", index): probe for index, probe in enumerate(config.probe)}
    commands = {where("command", index): item for index, item in enumerate(config.command)}
    yield from _spent_in_time(config.restart)
    if config.haproxy.manager is not Manager.COMMANDS:
        yield from _start_limit(config.restart)
    yield from _above(
        "keepalived.hold",
        config.keepalived.hold_s,
        "keepalived.hold_max",
        config.keepalived.hold_max_s,
    )
    yield from _same_paths(config)
    yield from _own_peer(config.peer)
    yield from _too_old("process", config.process, PROCESS_STALE_S)
    if config.peer.url:
        yield from _too_old("peer", config.peer.pace, PEER_STALE_S)
    paces = {
        "process": config.process,
        "runtime": config.runtime,
        "configuration": config.configuration,
        "backends": config.backends.pace,
        "vrrp": config.vrrp.pace,
        "peer": config.peer.pace,
    }
    paces |= {path: check.pace for path, check in (probes | commands).items()}
    for path, pace in paces.items():
        yield from _pace(path, pace)
    yield from _same_names(probes | commands)
    for path, probe in probes.items():
        yield from _unused(path, probe)
        yield from _body(path, probe)
        yield from _trust(path, probe)


def _attempts_s(restart: Restart, each_s: float) -> Iterator[float]:
    """Yield when each restart begins if all fail, each after *each_s* at the least."""
    at_s = 0.0
    for attempt in range(restart.budget):
        yield at_s
        pause_s = min(restart.backoff_s * 2.0**attempt, restart.backoff_max_s)
        at_s += max(pause_s, each_s)


def _spent_in_time(restart: Restart) -> Iterator[Contradiction]:
    """Only a spent budget leads on to the last rung, so it must be possible to spend it."""
    yield from _above(
        "restart.backoff", restart.backoff_s, "restart.backoff_max", restart.backoff_max_s
    )
    *_, last_s = (0.0, *_attempts_s(restart, restart.verify_s))
    if last_s >= restart.window_s:
        yield Contradiction(
            keys=(
                "restart.budget",
                "restart.window",
                "restart.backoff",
                "restart.backoff_max",
                "restart.verify",
            ),
            wrong=f"{restart.budget} restarts that fail take {write_duration(last_s)} with their "
            f"pauses and are never counted in one window of {write_duration(restart.window_s)}",
            cure="lower the budget, or raise the window",
        )


def _start_limit(restart: Restart) -> Iterator[Contradiction]:
    """A start that systemd refuses would be spent for nothing."""
    starts = sum(at_s < START_LIMIT_INTERVAL_S for at_s in _attempts_s(restart, 0.0))
    if starts > START_LIMIT_BURST:
        yield Contradiction(
            keys=("restart.budget", "restart.backoff", "restart.backoff_max"),
            wrong=f"{starts} restarts within 10s would meet systemd's start limit of "
            f"{START_LIMIT_BURST}",
            cure="lower the budget, or raise the backoff",
        )


def _above(key: str, value_s: float, bound: str, bound_s: float) -> Iterator[Contradiction]:
    """A bound below what it bounds is none."""
    if value_s > bound_s:
        name = bound.rpartition(".")[2]
        yield Contradiction(
            keys=(key, bound),
            wrong=f"{write_duration(value_s)} is longer than {name}, {write_duration(bound_s)}",
            cure=f"raise {name}, or lower this",
        )


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    """Yield every file that is read or written, with its key; what is seldom set comes first."""
    for name in RUN_DIR_NAMES:
        yield "run_dir", f"{config.run_dir}/{name}"
    for path in config.haproxy.config:
        yield "haproxy.config", path
    yield "haproxy.pidfile", config.haproxy.pidfile
    yield "vrrp.file", config.vrrp.file
    yield "hook.lease_file", config.lease_file
    yield "hook.track_file", config.track_file
    yield "hook.priority_file", config.priority_file
    yield "hook.sign", config.sign
    yield "vrrp.fifo", config.fifo
    yield "status.socket", config.status_socket
    yield "status.control", config.control_socket


def _same_paths(config: Config) -> Iterator[Contradiction]:
    """Two kinds of content cannot stand in one file, whether it was named or is the default."""
    seen: dict[str, str] = {}
    for key, path in _paths(config):
        first = seen.setdefault(normpath(path), key)
        if first != key:
            used = "used in run_dir" if first == "run_dir" else first
            yield Contradiction(
                keys=(key, first),
                wrong=f"{path} is {used} already",
                cure="give each a path of its own",
            )


def _own_peer(peer: Peer) -> Iterator[Contradiction]:
    """A node that asks itself whether the peer is better learns nothing."""
    try:
        asks_itself = read_peer_url(peer.url) == read_listen(peer.listen)
    except ValueError:  # one of them is empty, or refused by its form already
        return
    if asks_itself:
        yield Contradiction(
            keys=("peer.url", "peer.listen"),
            wrong=f'"{peer.url}" is what this node itself listens on',
            cure="write the address of the other node",
        )


def _pace(path: str, pace: Pace) -> Iterator[Contradiction]:
    """The fast interval is the one between two doubts (HAProxy, section 5.2, fastinter)."""
    if pace.fastinter_s > pace.inter_s:
        yield Contradiction(
            keys=(f"{path}.fastinter", f"{path}.inter"),
            wrong=f"{write_duration(pace.fastinter_s)} is longer than inter, "
            f"{write_duration(pace.inter_s)}",
            cure="lower it, or leave it out",
        )


def _too_old(path: str, pace: Pace, believed_s: float) -> Iterator[Contradiction]:
    """What is no longer believed when the next look ends would be known now and then only."""
    for key, every_s in (("inter", pace.inter_s), ("downinter", pace.downinter_s)):
        if every_s + pace.timeout_s >= believed_s:
            yield Contradiction(
                keys=(f"{path}.{key}", f"{path}.timeout"),
                wrong=f"{write_duration(every_s)} and a timeout of {write_duration(pace.timeout_s)}"
                f" are too long: what was seen is believed for {write_duration(believed_s)}",
                cure="lower one of them",
            )


def _same_names(checks: dict[str, Probe | Command]) -> Iterator[Contradiction]:
    """Status and logs know a check by its name alone."""
    seen: dict[str, str] = {}
    for path, check in checks.items():
        key = f"{path}.name"
        if check.name in RESERVED_NAMES:
            yield Contradiction(
                keys=(key,),
                wrong=f'"{check.name}" is the name of a check of sentinel\'s own',
                cure="choose another name",
            )
        first = seen.setdefault(check.name, path)
        if first != path:
            yield Contradiction(
                keys=(key,),
                wrong=f'"{check.name}" is the name of {first}',
                cure="choose another name",
            )


def _unused(path: str, probe: Probe) -> Iterator[Contradiction]:
    """A setting that this type of probe never looks at promises what is not done."""
    tls = probe.type in {ProbeType.TLS, ProbeType.HTTPS}
    http = probe.type in {ProbeType.HTTP, ProbeType.HTTPS}
    unused = (
        *((field, '"http" or "https"') for field in _HTTP_FIELDS if not http),
        *((field, '"tls" or "https"') for field in _TLS_FIELDS if not tls),
    )
    for field, types in unused:
        if getattr(probe, field) != getattr(Probe(), field):
            yield Contradiction(
                keys=(f"{path}.{field.removesuffix('_s')}", f"{path}.type"),
                wrong=f'a probe of type "{probe.type}" has no use for it',
                cure=f"leave it out, or set type to {types}",
            )


def _body(path: str, probe: Probe) -> Iterator[Contradiction]:
    """An answer to HEAD has no body (RFC 9110, section 9.3.2)."""
    if probe.body and probe.method == "HEAD":
        yield Contradiction(
            keys=(f"{path}.body", f"{path}.method", f"{path}.type"),
            wrong="an answer to HEAD has no body to match",
            cure='set method = "GET"',
        )


def _trust(path: str, probe: Probe) -> Iterator[Contradiction]:
    """A CA that nobody asks protects nobody."""
    if probe.ca_file and not probe.verify:
        yield Contradiction(
            keys=(f"{path}.ca_file", f"{path}.verify", f"{path}.type"),
            wrong="the certificate is not verified, so no CA is asked",
            cure="set verify = true",
        )
