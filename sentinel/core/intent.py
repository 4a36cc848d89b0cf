"""What an administrator has asked for: a pause, a hand-over, and their end."""

from __future__ import annotations

from dataclasses import replace

from sentinel.actions import Report
from sentinel.core.state import Intent, Phase, State
from sentinel.core.views import Absorbed
from sentinel.events import Order, Verb


def obey(state: State, order: Order, now_s: float) -> Absorbed:
    """Take an order; one that repeats what is already so renews its time and its reason."""
    before = state.memory.intent
    if order.verb is Verb.RESUME:
        return _end(state, f"resumed by {order.by}" if order.by else "resumed", now_s)
    intent = Intent(
        paused=before.paused or order.verb is Verb.PAUSE,
        stepped_down=before.stepped_down or order.verb is Verb.STEPDOWN or order.drain,
        since_s=now_s,
        until_s=None if order.for_s is None else now_s + order.for_s,
        until_worker=_started(state) if order.until_start else None,
        reason=order.reason,
        by=order.by,
    )
    name = "sentinel.paused" if order.verb is Verb.PAUSE else "vip.stepdown_asked"
    fields = [("reason", intent.reason or "none given"), ("by", intent.by or "unknown")]
    if order.for_s is not None:
        fields.append(("for", f"{order.for_s:g} s"))
    if order.drain:
        fields.append(("drain", "yes"))
    state = replace(state, memory=replace(state.memory, intent=intent))
    return state, (Report(name=name, level="warning", fields=tuple(fields)),)


def expire(state: State, now_s: float) -> Absorbed:
    """End what was asked for when its time is over, or its purpose fulfilled."""
    intent = state.memory.intent
    if intent.until_s is not None and now_s >= intent.until_s:
        return _end(state, "its time is over", now_s)
    if intent.until_worker is None or state.phase is not Phase.UP:
        return state, ()
    if _started(state) <= intent.until_worker:
        return state, ()
    return _end(state, "HAProxy has been started and serves", now_s)


def _started(state: State) -> int:
    """Return when the present worker was started, 0 without one."""
    worker = state.instance.worker if state.instance is not None else None
    return worker.start_ticks if worker is not None else 0


def _end(state: State, reason: str, now_s: float) -> Absorbed:
    intent = state.memory.intent
    if not intent.paused and not intent.stepped_down:
        return state, ()
    fields = (("reason", reason), ("after_s", round(now_s - intent.since_s, 1)))
    state = replace(state, memory=replace(state.memory, intent=Intent()))
    return state, (Report(name="sentinel.resumed", level="info", fields=fields),)


def paused(state: State) -> str:
    """Return why nothing is to be mended now; empty when it is."""
    intent = state.memory.intent
    return _words("sentinel is paused", intent) if intent.paused else ""


def stepped_down(state: State) -> str:
    """Return why the other node is to hold the VIP; empty when this one may."""
    intent = state.memory.intent
    return _words("stepped down", intent) if intent.stepped_down else ""


def _words(what: str, intent: Intent) -> str:
    by = f" by {intent.by}" if intent.by else ""
    return f"{what}{by}: {intent.reason}" if intent.reason else f"{what}{by}"
