"""The transitions: one function a phase, each called once per step with the facts already in.

A phase function returns the new state and the actions; it looks at the state, never at the event
that led there, so a lost or repeated event cannot lead it astray and every retry is paced by the
clock alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from sentinel.core import evidence, moves
from sentinel.core.moves import Turn
from sentinel.core.state import Phase, Policy, State
from sentinel.model import KillHaproxy, Report, StartKeepalived


def decide(policy: Policy, state: State, now_s: float) -> Turn:
    """Take the step that the present phase asks for."""
    match state.phase:
        case Phase.LEARNING:
            return _learning(state, now_s)
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


def _learning(state: State, now_s: float) -> Turn:
    if state.process_seen_s is None:
        return state, ()
    if evidence.alive(state):
        return moves.serve(state, "HAProxy is running", now_s), ()
    return moves.die(state, now_s)


def _up(policy: Policy, state: State, now_s: float) -> Turn:
    fault = moves.found_fault(policy, state, now_s)
    if fault is not None:
        return fault
    memory = state.memory
    if memory.attempt and now_s - state.phase_since_s >= policy.restart_window_s:
        memory = replace(memory, attempt=0, next_attempt_s=0.0)
        state = replace(state, memory=memory)
    if not memory.keepalived_stopped or evidence.failing(policy, state, now_s):
        return state, ()
    return moves.act_on_keepalived(state, StartKeepalived(reason="HAProxy is healthy again"), now_s)


def _hung(policy: Policy, state: State, now_s: float) -> Turn:
    if not evidence.alive(state):
        return moves.die(state, now_s)
    if state.in_flight is not None:
        return state, ()
    if not evidence.hung(policy, state, now_s):
        return moves.recover(state, "HAProxy answers again", now_s)
    if state.killed_s is not None:
        if now_s - state.killed_s < policy.verify_s:
            return state, ()
        return moves.fail(state, "a hung worker cannot be killed", now_s)
    if not evidence.hang_confirmed(policy, state, now_s):
        return state, ()
    refusal = evidence.why_not_restart(policy, state, now_s)
    if refusal:
        return moves.fail(state, f"HAProxy is hung, and {refusal}", now_s)
    kill = KillHaproxy(procs=evidence.condemned(state), reason=state.reason)
    return replace(state, in_flight=kill, killed_s=now_s), (kill,)


def _dead(policy: Policy, state: State, now_s: float) -> Turn:
    if evidence.alive(state) and not state.unproven:
        return moves.await_proof(policy, state, "HAProxy has been started", now_s)
    if evidence.proven_again(policy, state, now_s):
        return moves.recover(state, "HAProxy answers after all", now_s)
    if state.in_flight is not None:
        return state, ()
    waited_s = now_s - state.phase_since_s
    if not moves.fresh_look(state, now_s) and waited_s < moves.LOOK_MAX_S:
        return moves.look_again(state, now_s, moves.LOOK_EVERY_S)
    service = state.haproxy
    if service is not None and service.intended_stop and moves.fresh_look(state, now_s):
        return moves.stand_down(state, service.intended_stop, now_s)
    if moves.somebody_acts(state) and waited_s < moves.JOB_MAX_S:
        return moves.look_again(state, now_s, moves.LOOK_EVERY_S)
    if not moves.configuration_rechecked(policy, state) and waited_s < moves.LOOK_MAX_S:
        return state, ()
    refusal = evidence.why_not_restart(policy, state, now_s)
    if refusal:
        return moves.fail(state, refusal, now_s)
    if now_s < state.memory.next_attempt_s:
        return state, ()
    return moves.restart(policy, state, now_s)


def _mending(policy: Policy, state: State, now_s: float) -> Turn:
    replacing = state.in_flight is not None and state.unproven
    if not replacing and evidence.proven_again(policy, state, now_s):
        return moves.recover(state, "HAProxy serves again", now_s)
    if state.in_flight is not None:
        return state, ()
    if state.unproven:
        return moves.try_again(state, "the start failed", now_s)
    born = state.incarnation > state.attempted_incarnation
    if born and not evidence.alive(state):
        return moves.try_again(state, "HAProxy died right after its start", now_s)
    if state.verify_by_s is not None and now_s >= state.verify_by_s:
        waiting = ", ".join(evidence.waiting_for(policy, state)) or "a worker"
        return moves.try_again(state, f"no proof of life after the start from {waiting}", now_s)
    return state, ()


def _failed(policy: Policy, state: State, now_s: float) -> Turn:
    hung = evidence.hung(policy, state, now_s)
    if evidence.alive(state) and not hung:
        if not state.unproven:
            return moves.await_proof(policy, state, "HAProxy has been started", now_s)
        if evidence.proven_again(policy, state, now_s):
            return moves.recover(state, "HAProxy answers after all", now_s)
    state, escalation = moves.climb(policy, state, now_s)
    if escalation or state.in_flight is not None:
        return state, escalation
    service = state.haproxy
    dead = not evidence.alive(state)
    if dead and service is not None and service.intended_stop and moves.fresh_look(state, now_s):
        return moves.stand_down(state, service.intended_stop, now_s)
    if not evidence.why_not_restart(policy, state, now_s):
        if hung and now_s - (state.killed_s or 0.0) >= policy.backoff_max_s:
            return moves.enter(replace(state, killed_s=None), Phase.HUNG, hung, now_s), ()
        if not hung and now_s >= state.memory.next_attempt_s:
            return moves.ask_why(moves.enter(state, Phase.DEAD, "another try", now_s), now_s)
    return moves.look_again(state, now_s, moves.LOOK_SLOWLY_S)


def _holding(policy: Policy, state: State, now_s: float) -> Turn:
    fault = moves.found_fault(policy, state, now_s)
    if fault is not None:
        return fault
    if evidence.failing(policy, state, now_s):
        return replace(state, healthy_since_s=now_s), ()
    if now_s - state.healthy_since_s < policy.hold_s:
        return state, ()
    state = replace(state, memory=replace(state.memory, failed_since_s=None))
    reason = f"HAProxy has been healthy for {policy.hold_s:g} s"
    return moves.enter(state, Phase.UP, reason, now_s), (
        Report(name="haproxy.healthy", level="info", fields=(("reason", reason),)),
    )


def _maint(policy: Policy, state: State, now_s: float) -> Turn:
    if evidence.alive(state):
        return moves.await_proof(policy, state, "HAProxy has been started", now_s)
    service = state.haproxy
    if not moves.fresh_look(state, now_s) or service is None or not service.known:
        return moves.look_again(state, now_s, moves.LOOK_SLOWLY_S)
    if service.intended_stop or moves.somebody_acts(state):
        return moves.look_again(state, now_s, moves.LOOK_SLOWLY_S)
    return moves.ask_why(moves.enter(state, Phase.DEAD, f"unit is {service.active}", now_s), now_s)
