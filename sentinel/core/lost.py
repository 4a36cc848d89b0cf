"""How much of the servers behind HAProxy is lost, and when that is believed.

Two nodes notice the same loss at different times, as HAProxy's checks are some 2 s apart and
sentinel's looks 5 s; the VIP must not move to one that is about to lose them as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sentinel.core.state import Lost, Policy, State
from sentinel.model import PoolView

#: Servers that are lost for this long are lost to the node that has the VIP.
LOST_AFTER_S: Final = 10.0
ALL_LOST_AFTER_S: Final = 7.0


def lose(state: State, pools: tuple[PoolView, ...], now_s: float) -> State:
    """Know the pools, how much of them is lost, and since when."""
    total = sum(pool.total for pool in pools)
    missing = total - sum(pool.up for pool in pools)
    seen_pct = 100 * missing // total if total > 0 else 0
    return replace(state, pools=pools, lost=_seen(state.lost, seen_pct, now_s))


def _seen(lost: Lost, seen_pct: int, now_s: float) -> Lost:
    """Know the loss as seen now; one that changes is at least what it has not fallen below."""
    if seen_pct == lost.seen_pct:
        return lost
    now, before = seen_pct - lost.believed_pct, lost.seen_pct - lost.believed_pct
    lost = replace(lost, seen_pct=seen_pct, since_s=now_s)
    if now * before <= 0:  # it comes from the other side of what is believed, or from there
        return replace(lost, sure_pct=seen_pct, apart_since_s=now_s)
    nearest = min if now > 0 else max
    return replace(lost, sure_pct=nearest(lost.sure_pct, seen_pct))


def believe(policy: Policy, state: State, now_s: float) -> State:
    """Believe in a loss or a gain in such an order that the VIP moves to a better node only.

    Who has the VIP believes a loss when it has lasted and a gain at once; who has not believes a
    loss at once and a gain after hold_s.
    """
    lost = state.lost
    if lost.seen_pct == lost.believed_pct:
        return state
    worse = lost.seen_pct > lost.believed_pct
    holds = state.vrrp is not None and bool(state.vrrp.held)
    wait_s = 0.0
    if holds and worse:
        wait_s = ALL_LOST_AFTER_S if lost.seen_pct == 100 else LOST_AFTER_S  # noqa: PLR2004
    elif not holds and not worse:
        wait_s = policy.hold_s
    if now_s - lost.since_s >= wait_s:
        lost = replace(lost, believed_pct=lost.seen_pct)
    elif now_s - lost.apart_since_s >= wait_s:
        lost = replace(
            lost, believed_pct=lost.sure_pct, sure_pct=lost.seen_pct, apart_since_s=now_s
        )
    return replace(state, lost=lost)
