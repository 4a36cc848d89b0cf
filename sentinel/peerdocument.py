"""What one node's sentinel tells the other's, and how that is read: both sides in one file.

The document goes over the network to whoever asks, so it holds no secret, and it is bounded. What
comes back may be anything: ``parse`` believes nothing, and never raises. Keys are only ever added;
SCHEMA_VERSION rises when one changes its meaning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from sentinel.core import Policy, State
from sentinel.model import PeerView, Scope
from sentinel.snapshot import overall

SCHEMA_VERSION: Final = 1
#: A longer answer is none of ours: the lists are cut to what fits well into it.
DOCUMENT_CHARS_MAX: Final = 48 * 1024
_POOLS_CHARS_MAX: Final = 32 * 1024
_VRRP_CHARS_MAX: Final = 8 * 1024
_NAME_CHARS_MAX: Final = 255
_COUNT_MAX: Final = 10**9
_SHOWN_CHARS: Final = 40


def _alone(state: State) -> State:
    """Return the state without what it says of the peer, or two would call each other degraded."""
    checks = {n: check for n, check in state.checks.items() if check.last.scope is not Scope.PEER}
    return replace(state, checks=checks)


def document(policy: Policy, state: State, *, node: str, now_s: float, time: str) -> str:
    """Return what *node* says of itself at *time* (UTC, ISO 8601), which is for people to read.

    The sums are of all pools, also where not every pool fits.
    """
    told = state.standing
    instances = state.vrrp.instances if state.vrrp is not None else ()
    return json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "time": time,
            "node": node[:_NAME_CHARS_MAX],
            "overall": overall(policy, _alone(state), now_s).value,
            "phase": state.phase.value,
            "serving": None if told is None else told.serving,
            "vrrp": _fitting(
                (
                    {"name": seen.instance.name, "state": seen.claim.state if seen.claim else None}
                    for seen in instances
                ),
                _VRRP_CHARS_MAX,
            ),
            "servers": {
                "up": sum(pool.up for pool in state.pools),
                "total": sum(pool.total for pool in state.pools),
            },
            "pools": _fitting(
                ({"name": pool.name, "up": pool.up, "total": pool.total} for pool in state.pools),
                _POOLS_CHARS_MAX,
            ),
        }
    )


def parse(text: str) -> PeerView | str:
    """Return what the peer says, or in words why that cannot be believed."""
    if len(text) > DOCUMENT_CHARS_MAX:
        return f"the answer is longer than {DOCUMENT_CHARS_MAX} characters"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return f"the answer is not JSON: {_shown(text)}"
    try:
        return _view(found)
    except ValueError as error:
        return str(error)


def _view(found: object) -> PeerView:
    """Read the document; raises ValueError naming the part that is wrong."""
    version = _of(found, "schema_version", int)
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"the answer has schema_version {_shown(version)}, not {SCHEMA_VERSION}: "
            f"run the same version of sentinel on both nodes"
        )
    servers = _of(found, "servers", dict)
    up, total = _counts(servers)
    return PeerView(
        node=_name(found, "node"),
        overall=_name(found, "overall"),
        serving=_of(found, "serving", bool, type(None)),
        servers_up=up,
        servers_total=total,
        pools=tuple((_name(pool, "name"), *_counts(pool)) for pool in _of(found, "pools", list)),
    )


def _of(table: object, key: str, *kinds: type) -> Any:  # noqa: ANN401  (one of kinds)
    """Return a value of exactly one of *kinds*: to JSON a truth value is no number."""
    if not isinstance(table, dict):
        raise ValueError(f"the answer has {_shown(table)} for an object")  # noqa: TRY004  (what was received)
    if key not in table:
        raise ValueError(f"the answer has no {key}")
    value = table[key]
    if type(value) not in kinds:
        raise ValueError(f"the answer has {_shown(value)} for {key}")
    return value


def _name(table: object, key: str) -> str:
    name: str = _of(table, key, str)
    if not name or len(name) > _NAME_CHARS_MAX or not name.isprintable():
        raise ValueError(f"the answer has {_shown(name)} for {key}")
    return name


def _counts(table: object) -> tuple[int, int]:
    up, total = _of(table, "up", int), _of(table, "total", int)
    if not 0 <= up <= total <= _COUNT_MAX:
        raise ValueError(f"the answer has {_shown(up)} of {_shown(total)} servers up")
    return up, total


def _fitting(items: Iterable[dict[str, Any]], chars_max: int) -> list[dict[str, Any]]:
    """Return as many of *items*, from the first, as are written in *chars_max* characters."""
    kept = []
    for item in items:
        chars_max -= len(json.dumps(item)) + len(", ")
        if chars_max < 0:
            break
        kept.append(item)
    return kept


def _shown(value: object) -> str:
    """Show what was received, short and in printable ASCII."""
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
