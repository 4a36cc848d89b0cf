"""The transitions: one function a phase, each called once per step with the facts already in.

A phase function returns the new state and the actions; it looks at the state, never at the event
that led there, so a lost or repeated event cannot lead it astray and every retry is paced by the
clock alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from sentinel.actions import Action, Report, StartKeepalived
from sentinel.core import evidence, fence, intent, keepalived, lost, manager, moves, standing
from sentinel.core.state import Phase, Policy, State, Turn


def decide(policy: Policy, state: State, now_s: float) -> Turn:
    """Take the step that the present phase asks for, and what is due in any of them."""
    state = lost.believe(policy, state, now_s)
    state, actions = _in_phase(policy, state, now_s)
    state, kills = moves.kill_orphans(state, now_s)
    state, fences = fence.decide(policy, state, now_s)
    state, looks = keepalived.look(state, now_s)
    return state, (*actions, *kills, *fences, *looks)


def _in_phase(policy: Policy, state: State, now_s: float) -> Turn:
    match state.phase:
        case Phase.LEARNING:
            return _learning(policy, state, now_s)
        case Phase.UP:
            return _up(policy, state, now_s)
        case Phase.HUNG:
            return _hung(policy, state, now_s)
        case Phase.DEAD:
            return _dead(policy, state, now_s)
        case Phase.MENDING:
            return _mending(policy, state, now_s)
        case Phase.FAILED:
            return _failed(policy, state, now_s)
        case Phase.HOLDING:
            return _holding(policy, state, now_s)
        case Phase.MAINT:
            return _maint(policy, state, now_s)
    assert_never(state.phase)


def _learning(policy: Policy, state: State, now_s: float) -> Turn:
    """Say nothing before every check has answered or is DOWN: a predecessor's lease still holds."""
    if state.process_seen_s is None:
        return state, ()
    fault = moves.found_fault(policy, state, now_s)
    if fault is not None:
        return fault
    patient = now_s - state.phase_since_s < policy.verify_s
    undecided = state.stuck_since_s is not None or any(
        name not in state.checks or state.checks[name].health.up
        for name in evidence.waiting_for(policy, state)
    )
    if patient and undecided and not evidence.proven(policy, state, now_s):
        return state, ()
    return moves.serve(state, "HAProxy is running", now_s), ()


def _up(policy: Policy, state: State, now_s: float) -> Turn:
    fault = moves.found_fault(policy, state, now_s)
    if fault is not None:
        return fault
    state, reports = _proved_late(policy, state, now_s)
    memory = state.memory
    if memory.attempt and now_s - state.phase_since_s >= policy.restart_window_s:
        memory = replace(memory, attempt=0, next_attempt_s=0.0)
        state = replace(state, memory=memory)
    looks: tuple[Action, ...] = ()
    if manager.outdated(state):
        state, looks = manager.look_again(state, now_s, manager.LOOK_SLOWLY_S)
    state, starts = _start_keepalived(policy, state, now_s)
    return state, (*reports, *looks, *starts)


def _start_keepalived(policy: Policy, state: State, now_s: float) -> Turn:
    """Start the keepalived that sentinel has stopped, if it would not be told to yield."""
    if not state.memory.keepalived_stopped or intent.paused(state):
        return state, ()
    if standing.own_fault(policy, state, now_s):
        return state, ()
    return keepalived.act(state, StartKeepalived(reason="HAProxy is healthy again"), now_s)


def _proved_late(policy: Policy, state: State, now_s: float) -> Turn:
    if not state.unproven or not evidence.proven(policy, state, now_s):
        return state, ()
    return moves.outage_over(state, "HAProxy answers everywhere", now_s)


def _hung(policy: Policy, state: State, now_s: float) -> Turn:
    if not evidence.alive(state):
        return moves.die(policy, state, now_s)
    if state.in_flight is not None:
        return state, ()
    # between its kill and its end a process is no longer stuck, and its sockets are reset
    if state.killed_s is not None and now_s - state.killed_s < policy.verify_s:
        return state, ()
    if not evidence.hung(policy, state, now_s):
        return moves.recover(state, "HAProxy answers again", now_s)
    if state.killed_s is not None:
        return moves.fail(state, "a hung worker cannot be killed", now_s)
    if not evidence.hang_confirmed(policy, state, now_s) or intent.paused(state):
        return state, ()
    refusal = evidence.why_not_restart(policy, state, now_s)
    if refusal:
        return moves.fail(state, f"HAProxy is hung, and {refusal}", now_s)
    if not evidence.backed_off(policy, state, now_s):
        return state, ()
    return moves.kill(policy, state, now_s)


def _dead(policy: Policy, state: State, now_s: float) -> Turn:
    back = _back(policy, state, now_s)
    if back is not None:
        return back
    if state.in_flight is not None:
        return state, ()
    waited_s = now_s - state.phase_since_s
    if not manager.fresh_look(state, now_s):
        if manager.given_up(state, now_s):
            return moves.fail(state, "the service manager does not answer", now_s)
        soon = evidence.backed_off(policy, state, now_s)
        every_s = manager.LOOK_EVERY_S if soon else manager.LOOK_SLOWLY_S
        return manager.look_again(state, now_s, every_s)
    purpose = _left_alone(state, now_s)
    if purpose:
        return moves.stand_down(state, purpose, now_s)
    if manager.somebody_acts(state.haproxy) and waited_s < manager.JOB_MAX_S:
        return manager.look_again(state, now_s, manager.LOOK_EVERY_S)
    rechecked = evidence.configuration_rechecked(policy, state) and not manager.contradicts(
        policy, state
    )
    if not rechecked and waited_s < manager.LOOK_MAX_S:
        return state, ()
    refusal = evidence.why_not_restart(policy, state, now_s)
    if refusal:
        return moves.fail(state, refusal, now_s)
    if not evidence.backed_off(policy, state, now_s):
        return state, ()
    return moves.restart(policy, state, now_s)


def _left_alone(state: State, now_s: float) -> str:
    """Return why a dead HAProxy is not to be started; empty when it may be."""
    purpose = manager.stopped_on_purpose(state, now_s)
    return f"stopped by an administrator: {purpose}" if purpose else intent.paused(state)


def _back(policy: Policy, state: State, now_s: float) -> Turn | None:
    """Return the turn of a HAProxy that is there again without our doing; None while it is not."""
    if not evidence.alive(state):
        return None
    if not state.unproven:
        return moves.await_proof(policy, state, "HAProxy has been started", now_s)
    if evidence.lives(policy, state) or evidence.proven(policy, state, now_s):
        return moves.await_proof(policy, state, "HAProxy answers after all", now_s)
    return None


def _mending(policy: Policy, state: State, now_s: float) -> Turn:
    replacing = state.in_flight is not None and state.unproven
    if not replacing and evidence.proven(policy, state, now_s):
        return moves.recover(state, "HAProxy serves again", now_s)
    if state.in_flight is not None:
        return state, ()
    if state.start_failed:
        return moves.try_again(policy, state, f"the start failed: {state.start_failed}", now_s)
    born = state.incarnation > state.attempted_incarnation
    if born and not evidence.alive(state):
        return moves.try_again(policy, state, "HAProxy died right after its start", now_s)
    if state.verify_by_s is None or now_s < state.verify_by_s:
        return state, ()
    if evidence.lives(policy, state) or (evidence.alive(state) and intent.paused(state)):
        return moves.accept_unproven(policy, state, now_s)
    waiting = ", ".join(evidence.waiting_for(policy, state)) or "a worker"
    return moves.try_again(policy, state, f"no proof of life after the start: {waiting}", now_s)


def _failed(policy: Policy, state: State, now_s: float) -> Turn:
    hung = evidence.hung(policy, state, now_s)
    back = None if hung else _back(policy, state, now_s)
    if back is not None:
        return back
    state, escalation = keepalived.climb(policy, state, now_s)
    if escalation or state.in_flight is not None:
        return state, escalation
    purpose = "" if hung else _left_alone(state, now_s)
    if purpose:
        return moves.stand_down(state, purpose, now_s)
    refused = evidence.why_not_restart(policy, state, now_s)
    if hung and not refused:
        killed_s = state.killed_s
        if killed_s is None or now_s - killed_s >= policy.backoff_max_s:
            return moves.enter(replace(state, killed_s=None), Phase.HUNG, hung, now_s), ()
    able = manager.fresh_look(state, now_s) and not refused and not hung
    if able and evidence.backed_off(policy, state, now_s):
        state = moves.enter(state, Phase.DEAD, f"another try after: {state.failure}", now_s)
        return moves.ask_why(policy, state, now_s)
    return manager.look_again(state, now_s, manager.LOOK_SLOWLY_S)


def _holding(policy: Policy, state: State, now_s: float) -> Turn:
    fault = moves.found_fault(policy, state, now_s)
    if fault is not None:
        return fault
    state, reports = _proved_late(policy, state, now_s)
    if standing.own_fault(policy, state, now_s):
        return replace(state, healthy_since_s=now_s), reports
    healthy_s, hold_s = now_s - state.healthy_since_s, evidence.hold_s(policy, state)
    if healthy_s < hold_s:
        told = standing.standing(policy, state, now_s)
        if healthy_s < policy.hold_s or told is None or not told.serving:
            return state, reports
        state, starts = _start_keepalived(policy, state, now_s)
        return state, (*reports, *starts)
    state = replace(state, memory=replace(state.memory, failed_since_s=None), failure="")
    reason = f"HAProxy has been healthy for {hold_s:g} s"
    healthy = Report(name="haproxy.healthy", level="info", fields=(("reason", reason),))
    return moves.enter(state, Phase.UP, reason, now_s), (*reports, healthy)


def _maint(policy: Policy, state: State, now_s: float) -> Turn:
    if evidence.alive(state):
        return moves.await_proof(policy, state, "HAProxy has been started", now_s)
    if not manager.fresh_look(state, now_s):
        return manager.look_again(state, now_s, manager.LOOK_SLOWLY_S)
    if _left_alone(state, now_s) or manager.somebody_acts(state.haproxy):
        return manager.look_again(state, now_s, manager.LOOK_SLOWLY_S)
    active = state.haproxy.active if state.haproxy is not None else "unknown"
    state = moves.enter(state, Phase.DEAD, f"unit is {active}", now_s)
    return moves.ask_why(policy, state, now_s)
