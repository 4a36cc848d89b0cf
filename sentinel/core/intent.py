"""What an administrator has asked for: a pause, a hand-over, and their end.

Each order holds until its own end, whatever is asked for after it: the hand-over for a package's
upgrade must neither end somebody's maintenance nor make it endless. Of two orders that differ in
nothing but their time the longer one holds. RESUME ends them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from sentinel.actions import Report
from sentinel.core.state import Intent, Phase, State
from sentinel.core.views import Absorbed
from sentinel.events import Order, Verb


def obey(state: State, order: Order, now_s: float) -> Absorbed:
    """Take an order; one that repeats what is already so can make it last longer."""
    held = state.memory.intents
    if order.verb is Verb.RESUME:
        return _end(state, held, f"resumed by {order.by}" if order.by else "resumed", now_s)
    asked = Intent(
        verb=order.verb,
        drain=order.drain,
        since_s=now_s,
        until_s=None if order.for_s is None else now_s + order.for_s,
        until_worker=_started(state) if order.until_start else None,
        reason=order.reason,
        by=order.by,
    )
    alike = tuple(intent for intent in held if _kind(intent) == _kind(asked))
    others = tuple(intent for intent in held if intent not in alike)
    intents = (*others, max(asked, *alike, key=_end_of) if alike else asked)
    state = replace(state, memory=replace(state.memory, intents=intents))
    name = "sentinel.paused" if order.verb is Verb.PAUSE else "vip.stepdown_asked"
    fields = [("reason", asked.reason or "none given"), ("by", asked.by or "unknown")]
    if order.for_s is not None:
        fields.append(("for", f"{order.for_s:g} s"))
    if order.drain:
        fields.append(("drain", "yes"))
    return state, (Report(name=name, level="warning", fields=tuple(fields)),)


def expire(state: State, now_s: float) -> Absorbed:
    """End each order whose time is over, or whose purpose is fulfilled."""
    reports: tuple[Report, ...] = ()
    for intent in state.memory.intents:
        reason = _over(state, intent, now_s)
        if reason:
            state, more = _end(state, (intent,), reason, now_s)
            reports += more
    return state, reports


def _over(state: State, intent: Intent, now_s: float) -> str:
    """Return why an order is over; empty while it holds."""
    if intent.until_s is not None and now_s >= intent.until_s:
        return "its time is over"
    if intent.until_worker is None or state.phase is not Phase.UP or state.unproven:
        return ""
    serves = _started(state) > intent.until_worker
    return "HAProxy has been started and serves" if serves else ""


def _started(state: State) -> int:
    """Return when the present worker was started, 0 without one."""
    worker = state.instance.worker if state.instance is not None else None
    return worker.start_ticks if worker is not None else 0


def _kind(intent: Intent) -> tuple[Verb, bool, bool, bool]:
    """Return what two orders have in common of which one is enough: no more than 16 can hold."""
    timed, until_start = intent.until_s is not None, intent.until_worker is not None
    return intent.verb, intent.drain, timed, until_start


def _end_of(intent: Intent) -> tuple[float, int]:
    return intent.until_s or 0.0, intent.until_worker or 0


def _end(state: State, ended: tuple[Intent, ...], reason: str, now_s: float) -> Absorbed:
    if not ended:
        return state, ()
    intents = tuple(intent for intent in state.memory.intents if intent not in ended)
    fields = (
        ("reason", reason),
        ("order", ", ".join(intent.verb for intent in ended)),
        ("after_s", round(now_s - min(intent.since_s for intent in ended), 1)),
    )
    name = "order.ended" if intents else "sentinel.resumed"
    state = replace(state, memory=replace(state.memory, intents=intents))
    return state, (Report(name=name, level="info", fields=fields),)


def lasting(intents: Iterable[Intent]) -> Intent | None:
    """Return the order that ends last; one that waits for a start may do so after any time."""

    def end(intent: Intent) -> tuple[float, bool]:
        until_s = math.inf if intent.until_s is None else intent.until_s
        return until_s, intent.until_worker is None

    return max(intents, key=end, default=None)


def paused(state: State) -> str:
    """Return why nothing is to be mended now; empty when it is."""
    intent = lasting(intent for intent in state.memory.intents if intent.pauses)
    return _words("sentinel is paused", intent) if intent is not None else ""


def stepped_down(state: State) -> str:
    """Return why the other node is to hold the VIP; empty when this one may."""
    intent = lasting(intent for intent in state.memory.intents if intent.steps_down)
    return _words("stepped down", intent) if intent is not None else ""


def _words(what: str, intent: Intent) -> str:
    by = f" by {intent.by}" if intent.by else ""
    return f"{what}{by}: {intent.reason}" if intent.reason else f"{what}{by}"
