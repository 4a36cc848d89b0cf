"""What keepalived is told: may this node hold the VIP, and how much is it worth beside its peer.

A HAProxy that cannot serve yields by FAULT: the peer takes over at once. What both nodes may suffer
from at the same time (servers, and answers that come from them) lowers the priority instead: the
node that is better off takes the VIP while the other one goes on serving, and when both are as bad
the VIP stays somewhere. keepalived.conf(5), track_file: a weighted one adds its number to the
priority, which is kept within 1 and 254; -254 and less would be FAULT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from sentinel.actions import Report
from sentinel.core import evidence, intent
from sentinel.core.state import Phase, Policy, Standing, State, Turn
from sentinel.model import (
    PEER_STALE_S,
    PROCESS_STALE_S,
    SILENT,
    Code,
    PeerView,
    Scope,
    Verdict,
)
from sentinel.vrrp import VrrpInstance

#: The older version, whose skew counts in seconds: RFC 3768, Skew_Time.
VRRP_V2: Final = 2
#: Lowered by this, every priority is 1, and it is not yet FAULT.
LOWERED_MAX: Final = 253
#: With all servers down the priority is lowered by this much: in percent of what is lost.
DEGRADED_MAX: Final = 100
#: A smaller loss is not worth the connections that a move of the VIP costs.
DEGRADED_FROM_PCT: Final = 20
#: A peer that needs longer than this is slower than a start of HAProxy.
SLOW_S: Final = 0.2
#: A VIP that stays during a start stays for so long: HAProxy starts in a tenth of it.
STAY_S: Final = 1.0
#: The peer must have this much more of its servers, in percent, to be better.
PEER_BETTER_PCT: Final = 10
#: Answers that come from behind HAProxy; the peer may well give the same.
_SHARED: Final = frozenset({Code.L7STS, Code.L7RSP})


def standing(policy: Policy, state: State, now_s: float) -> Standing | None:
    """Return what keepalived is told now; None (no lease) while sentinel does not know."""
    if state.phase is Phase.LEARNING or state.process_seen_s is None:
        return None
    if now_s - state.process_seen_s > PROCESS_STALE_S:
        return None
    if state.phase not in {Phase.UP, Phase.HOLDING}:
        return Standing(serving=_stays(policy, state, now_s), reason=state.reason)
    faults = tuple(_faults(policy, state, now_s))
    own = next((reason for reason, shared in faults if not shared), "")
    if own:
        return Standing(serving=False, reason=own)
    down = intent.stepped_down(state)
    if (down or state.phase is Phase.HOLDING) and _vrrp_awaited(policy, state, now_s):
        return None  # what a predecessor said still holds
    if state.phase is Phase.HOLDING:
        return _held(policy, state, now_s)
    if down:
        return _lowered(policy, state, LOWERED_MAX, down)
    if faults:
        return _shared_fault(policy, state, faults[0][0], now_s)
    return _degraded(policy, state, now_s) or Standing(serving=True, reason=state.reason)


def tell(policy: Policy, state: State, now_s: float) -> Turn:
    """Know what keepalived is told from now on, and report it when it is something else."""
    before, after = state.standing, standing(policy, state, now_s)
    if after == before:  # as nearly always: a new State costs more than the question
        return state, ()
    was, now = (known.words if known else "undecided" for known in (before, after))
    state = replace(state, standing=after)
    if was == now:
        return state, ()
    level = "info" if now == "serving" else "warning"
    reason = after.reason if after else "HAProxy's processes have not been seen for a while"
    fields = (("from", was), ("to", now), ("reason", reason))
    return state, (Report(name="verdict.changed", level=level, fields=fields),)


def _vrrp_awaited(policy: Policy, state: State, now_s: float) -> bool:
    """Tell whether sentinel has just started and will know keepalived's instances in a moment."""
    new = state.started_s is not None and now_s - state.started_s < PROCESS_STALE_S
    return new and state.vrrp is None and bool(evidence.of_scope(policy, Scope.VRRP))


def _stays(policy: Policy, state: State, now_s: float) -> bool:
    """Tell whether the VIP stays here during the first start after a death."""
    if not state.staying or not _worth_staying(policy, state):
        return False
    quick = state.down_since_s is not None and now_s - state.down_since_s < STAY_S
    return quick and (state.configuration is None or state.configuration.valid)


def _worth_staying(policy: Policy, state: State) -> bool:
    """Tell whether HAProxy is started again sooner than the peer takes over from a FAULT.

    That takes the peer's skew (RFC 9568, section 6.1): 0.6 s with the priorities 101/100 of VRRPv2,
    2 ms with 254/250 and adverts of 0.1 s. HAProxy's start takes a tenth of a second or two.
    """
    if policy.stay_on_crash is not None or state.vrrp is None:
        return bool(policy.stay_on_crash)
    skews = [skew_s(seen.instance) for seen in state.vrrp.instances if seen.present]
    return max(skews, default=0.0) > SLOW_S


# --- yielding softly ------------------------------------------------------------------------------


def _lowered(policy: Policy, state: State, by: int, reason: str) -> Standing:
    """Lower the priority where that moves the VIP; else FAULT does."""
    if why_not_lowered(policy, state):
        return Standing(serving=False, reason=reason)
    return Standing(serving=True, reason=reason, lowered=by)


def _held(policy: Policy, state: State, now_s: float) -> Standing:
    """Leave the VIP to the peer for as long as that one can serve, and not to nobody."""
    if policy.peer and _peer_fails(state, now_s):
        return Standing(serving=True, reason=f"{state.reason}; the peer cannot serve")
    held, told = _lowered(policy, state, LOWERED_MAX, state.reason), state.standing
    if not held.serving and told and told.serving and policy.peer and not _heard(state, now_s):
        return Standing(serving=True, reason=f"{state.reason}; the peer has fallen silent")
    return held


def _shared_fault(policy: Policy, state: State, reason: str, now_s: float) -> Standing:
    """Yield only to a peer that is better off; the VIP is never given to nobody."""
    if not why_not_lowered(policy, state):
        return Standing(serving=True, reason=reason, lowered=LOWERED_MAX)
    if policy.peer and not peer_is_better(state, now_s):
        return Standing(serving=True, reason=f"{reason}; the peer is not known to be better")
    return Standing(serving=False, reason=reason)


def _degraded(policy: Policy, state: State, now_s: float) -> Standing | None:
    """Be worth as much less as servers are lost; None when that would be of no use."""
    lost_pct = state.lost.believed_pct
    if lost_pct < DEGRADED_FROM_PCT or not policy.degrade or why_not_lowered(policy, state):
        return None
    if policy.peer and not peer_is_better(state, now_s, lost_pct):
        return None
    reason = f"{lost_pct} % of the servers are down"
    return Standing(serving=True, reason=reason, lowered=lost_pct * DEGRADED_MAX // 100)


def skew_s(instance: VrrpInstance) -> float:
    """Return Skew_Time of a peer of about our own priority."""
    unit_s = 1.0 if instance.version == VRRP_V2 else instance.advert_int_s
    return (256 - instance.priority) / 256 * unit_s


def why_not_lowered(policy: Policy, state: State) -> str:
    """Return why a lower priority would not move every VIP of this node; empty when it would."""
    if not policy.priority_file:
        return "no priority file is configured (hook.priority_file)"
    if state.vrrp is None or not state.vrrp.instances:
        return "keepalived's instances are not known"
    reasons = (_why_not_lowered(policy, seen.instance) for seen in state.vrrp.instances)
    return next((reason for reason in reasons if reason), "")


def _why_not_lowered(policy: Policy, instance: VrrpInstance) -> str:
    name = instance.name
    weights = [t.weight for t in instance.track_files if t.path == policy.priority_file]
    if not weights:
        return f"{name} does not track {policy.priority_file}"
    if weights != [1]:
        return f"{name} tracks {policy.priority_file} with weight {weights[0]} instead of 1"
    if instance.priority == 255:  # noqa: PLR2004  (RFC 9568: the owner of the address)
        return f"{name} has priority 255, which nothing lowers"
    if instance.nopreempt:
        return f"{name} has nopreempt, and so probably its peer, which would not take over"
    return ""


def peer_is_better(state: State, now_s: float, lost_pct: int | None = None) -> bool:
    """Tell whether the peer says that it is well, or has lost fewer servers than *lost_pct*.

    One that is silent, or counts no servers, is not known to be better.
    """
    peer = _heard(state, now_s)
    if peer is None:
        return False
    if not peer.serving or lost_pct is None:
        return peer.serving is True and peer.overall == "healthy"
    if not peer.servers_total:
        return False
    lost_there_pct = 100 * (peer.servers_total - peer.servers_up) // peer.servers_total
    return lost_pct - lost_there_pct >= PEER_BETTER_PCT


def _peer_fails(state: State, now_s: float) -> bool:
    """Tell whether the peer says that it cannot serve; one that is silent may well serve."""
    peer = _heard(state, now_s)
    return peer is not None and peer.serving is False


def _heard(state: State, now_s: float) -> PeerView | None:
    """Return what the peer has said of itself; None when that is too old, or was not the peer."""
    peer = state.peer
    if peer is None or peer.same_node or now_s - state.peer_heard_s > PEER_STALE_S:
        return None
    return peer


# --- what keeps a living HAProxy from being worth the VIP -----------------------------------------


def failing(policy: Policy, state: State, now_s: float) -> str:
    """Return why a living HAProxy is not worth the VIP: a check that yields is DOWN; else empty."""
    return next((reason for reason, _ in _faults(policy, state, now_s)), "")


def own_fault(policy: Policy, state: State, now_s: float) -> str:
    """Return why a living HAProxy is not worth the VIP, whatever the peer is; else empty."""
    return next((reason for reason, shared in _faults(policy, state, now_s) if not shared), "")


def _faults(policy: Policy, state: State, now_s: float) -> Iterator[tuple[str, bool]]:
    """Yield each fault, and whether the peer may share it."""
    for name, check in state.checks.items():
        if not check.health.up and not _excused(policy, state, name, now_s):
            words = f"{name} is DOWN: {check.last.code} {check.last.detail}".rstrip()
            yield words, _may_be_shared(policy, state, name)
    waiting = evidence.waiting_for(policy, state) if state.unproven else ()
    missing = [name for name in waiting if policy.checks[name].yields]
    if missing:
        shared = all(_waits_for_server(policy, state, name) for name in missing)
        yield f"{', '.join(missing)} has not answered since the start", shared


def _excused(policy: Policy, state: State, name: str, now_s: float) -> bool:
    """Tell whether a check that is DOWN is no fault: it does not yield, or says nothing now.

    A full HAProxy lets requests wait. One that waits for a server is excused where sentinel chose
    the path of the probe.
    """
    known = policy.checks.get(name)
    if known is None or not known.yields or not evidence.counts(policy, state, name):
        return True
    if state.checks[name].failed_code in SILENT and evidence.saturated(state, now_s):
        return True
    return known.discovered and _waits_for_server(policy, state, name)


def _may_be_shared(policy: Policy, state: State, name: str) -> bool:
    """Tell whether the peer may well get the same answers; also of one that begins to pass."""
    last = state.checks[name].last
    if last.scope is not Scope.FRONTEND:
        return False
    mending = last.verdict is Verdict.PASS
    return mending or last.code in _SHARED or _waits_for_server(policy, state, name)


def _waits_for_server(policy: Policy, state: State, name: str) -> bool:
    """Tell whether a frontend accepts, and HAProxy answers, but not what a server is to answer.

    What made it DOWN counts, also while it begins to pass.
    """
    check = state.checks.get(name)
    if check is None or check.last.scope is not Scope.FRONTEND:
        return False
    apis = evidence.asked(policy, state, Scope.RUNTIME).values()
    answers = any(api.health.up and evidence.spoke(api.last) for api in apis)
    return answers and check.failed_code is Code.L7TOUT
