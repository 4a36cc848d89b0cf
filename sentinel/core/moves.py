"""The moves that several phases share: dying, asking why, restarting, failing, recovering."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sentinel.actions import Action, KillHaproxy, LookAtHaproxy, Recheck, Report, RestartHaproxy
from sentinel.core import evidence, intent
from sentinel.core.state import Memory, Phase, Policy, State, Turn
from sentinel.model import Scope, Verdict

#: The pause doubles with each attempt; 2.0 ** 1024 overflows, and a failure may last for days.
DOUBLINGS_MAX: Final = 30
#: An orphan is killed when it has held our listeners this long, and tried again after the pause.
ORPHAN_S: Final = 0.5
ORPHAN_PAUSE_S: Final = 5.0
#: A line of the log stays readable: so many failing checks are named in it.
WORDS_MAX: Final = 8

#: So many failures are remembered: each doubles the hold, and it has an end.
FAILURES_MAX: Final = 20


def enter(state: State, phase: Phase, reason: str, now_s: float) -> State:
    """Change the phase; the only place that does."""
    starting = state.phase is Phase.DEAD and phase is Phase.MENDING
    return replace(
        state,
        previous=state.phase,
        phase=phase,
        phase_since_s=now_s,
        reason=reason,
        staying=state.staying and starting,
    )


# --- losing it ------------------------------------------------------------------------------------


def found_fault(policy: Policy, state: State, now_s: float) -> Turn | None:
    """Return the turn of a HAProxy that served until now and cannot any more; None while it can."""
    if not evidence.alive(state):
        return die(policy, state, now_s)
    reason = evidence.hung(policy, state, now_s)
    if reason:
        state = replace(state, down_since_s=now_s)
        report = Report(name="haproxy.hung", level="error", fields=last_words(state, reason))
        return enter(state, Phase.HUNG, reason, now_s), (report, *ask_it(policy, state))
    if state.stuck_since_s == now_s:
        return state, ask_it(policy, state)
    return None


def die(policy: Policy, state: State, now_s: float) -> Turn:
    """HAProxy has no worker any more."""
    processes = evidence.of_scope(policy, Scope.PROCESS)
    reason = next(
        (state.checks[n].last.detail for n in processes if n in state.checks), "no worker"
    )
    name, level = "haproxy.died", "error"
    if state.phase is Phase.LEARNING:
        name, level = "haproxy.not_found", "warning"
    report = Report(name=name, level=level, fields=last_words(state, reason))
    down_since_s = state.down_since_s if state.phase is Phase.HUNG else now_s
    told, memory = state.standing, state.memory
    served = told is not None and told.serving and not told.lowered
    first = served and not memory.attempt and memory.failed_since_s is None
    state = replace(state, down_since_s=down_since_s, unproven=False)
    state = replace(enter(state, Phase.DEAD, reason, now_s), staying=first)
    state, actions = ask_why(policy, state, now_s)
    return state, (report, *actions)


def ask_it(policy: Policy, state: State) -> tuple[Action, ...]:
    """Ask HAProxy itself, by every check that it must answer."""
    names = evidence.expected(policy, state)
    return (Recheck(checks=names),) if names else ()


def ask_why(policy: Policy, state: State, now_s: float) -> Turn:
    """Ask the two that know whether a restart is wanted and possible."""
    names = evidence.of_scope(policy, Scope.CONFIGURATION)
    recheck = (Recheck(checks=names),) if names else ()
    return replace(state, haproxy_asked_s=now_s), (LookAtHaproxy(), *recheck)


def last_words(state: State, reason: str) -> tuple[tuple[str, str | int | float], ...]:
    """Return what the failing checks said last, so that the log line explains itself."""
    words = tuple(
        (f"check_{name}", f"{check.health} {check.last.code} {check.last.detail}".rstrip())
        for name, check in state.checks.items()
        if check.last.verdict is not Verdict.PASS
    )
    return (("reason", reason), ("incarnation", state.incarnation), *words[:WORDS_MAX])


# --- mending it -----------------------------------------------------------------------------------


def spend(policy: Policy, state: State, now_s: float) -> Memory:
    """Spend one restart of the budget, and back off before the next attempt."""
    attempt = state.memory.attempt + 1
    pause_s = policy.backoff_s * 2.0 ** min(attempt - 1, DOUBLINGS_MAX)
    return replace(
        state.memory,
        attempt=attempt,
        next_attempt_s=now_s + min(pause_s, policy.backoff_max_s),
        restarts=(*evidence.restarts_in_window(policy, state, now_s), now_s),
    )


def kill(policy: Policy, state: State, now_s: float) -> Turn:
    """Kill the hung worker; this pays for the restart that follows, whoever makes it."""
    action = KillHaproxy(procs=evidence.condemned(state), reason=state.reason)
    memory = spend(policy, state, now_s)
    return replace(state, memory=memory, in_flight=action, killed_s=now_s), (action,)


def restart(policy: Policy, state: State, now_s: float) -> Turn:
    """Restart HAProxy; one that lives but proved nothing is killed first."""
    if evidence.paid(policy, state, now_s):
        used = evidence.restarts_in_window(policy, state, now_s)
        moved = (*(at_s for at_s in used if at_s != state.killed_s), now_s)
        memory = replace(state.memory, restarts=moved)
    else:
        memory = spend(policy, state, now_s)
    action = RestartHaproxy(
        attempt=memory.attempt, reason=state.reason, kill_first=evidence.condemned(state)
    )
    state = replace(
        state,
        memory=memory,
        in_flight=action,
        killed_s=None,
        verify_by_s=None,
        start_failed="",
        attempted_incarnation=state.incarnation,
    )
    return enter(state, Phase.MENDING, f"restart {memory.attempt}: {state.reason}", now_s), (
        action,
    )


def await_proof(policy: Policy, state: State, reason: str, now_s: float) -> Turn:
    """Somebody else started HAProxy: it has to prove itself all the same."""
    state = replace(
        state,
        killed_s=None,
        verify_by_s=now_s + policy.verify_s,
        start_failed="",
        attempted_incarnation=state.incarnation - 1,
    )
    return enter(state, Phase.MENDING, reason, now_s), ask_it(policy, state)


def try_again(policy: Policy, state: State, reason: str, now_s: float) -> Turn:
    """A start failed or proved nothing: ask again what is wrong before the next one."""
    state = replace(state, unproven=evidence.alive(state), start_failed="")
    report = Report(name="haproxy.start_failed", level="error", fields=last_words(state, reason))
    state, actions = ask_why(policy, enter(state, Phase.DEAD, reason, now_s), now_s)
    return state, (report, *actions)


# --- having it again ------------------------------------------------------------------------------


def recover(state: State, reason: str, now_s: float) -> Turn:
    """HAProxy answers again."""
    state, reports = outage_over(state, reason, now_s)
    return serve(state, reason, now_s), reports


def outage_over(state: State, reason: str, now_s: float) -> Turn:
    """Say who ended the outage and how long it took."""
    down_since_s = now_s if state.down_since_s is None else state.down_since_s
    restarted = any(at_s >= down_since_s for at_s in state.memory.restarts)
    fields = (
        ("reason", reason),
        ("down_ms", round((now_s - down_since_s) * 1000)),
        ("attempt", state.memory.attempt),
        ("incarnation", state.incarnation),
    )
    name = "haproxy.restarted" if restarted else "haproxy.recovered"
    state = replace(state, killed_s=None, verify_by_s=None, down_since_s=None, unproven=False)
    return state, (Report(name=name, level="info", fields=fields),)


def accept_unproven(policy: Policy, state: State, now_s: float) -> Turn:
    """Let a HAProxy be that lives, though not all of it answers: the node yields until it does."""
    waiting = ", ".join(evidence.waiting_for(policy, state))
    reason = f"HAProxy runs, but {waiting} has not answered"
    report = Report(name="haproxy.unproven", level="error", fields=last_words(state, reason))
    state = replace(state, killed_s=None, verify_by_s=None, unproven=True)
    return serve(state, reason, now_s), (report,)


def serve(state: State, reason: str, now_s: float) -> State:
    """Serve again, or prove for hold_s that the failure is over."""
    if state.memory.failed_since_s is None:
        return enter(state, Phase.UP, reason, now_s)
    return enter(replace(state, healthy_since_s=now_s), Phase.HOLDING, reason, now_s)


# --- giving up ------------------------------------------------------------------------------------


def fail(state: State, reason: str, now_s: float) -> Turn:
    """HAProxy cannot be mended now; from here on the failure's clock runs.

    The same failure is reported once, however often it is tried to mend it.
    """
    since_s = state.memory.failed_since_s
    memory = replace(state.memory, failed_since_s=now_s if since_s is None else since_s)
    if since_s is None:
        recent = evidence.lately(state.memory.failures, evidence.FLAPPING_S, now_s)
        memory = replace(memory, failures=(*recent, now_s)[-FAILURES_MAX:])
    report = Report(name="haproxy.failed", level="critical", fields=last_words(state, reason))
    reports = () if reason == state.failure else (report,)
    state = replace(state, memory=memory, failure=reason)
    down_since_s = now_s if state.down_since_s is None else state.down_since_s
    if since_s is None or state.keepalived_heard_s < down_since_s:
        state = replace(state, keepalived_stale=True)  # what was heard is older than this outage
    return enter(state, Phase.FAILED, reason, now_s), reports


def stand_down(state: State, reason: str, now_s: float) -> Turn:
    """Leave HAProxy to the administrator who stopped it, or who paused sentinel."""
    report = Report(name="haproxy.stopped", level="warning", fields=(("reason", reason),))
    return enter(state, Phase.MAINT, reason, now_s), (report,)


# --- orphans --------------------------------------------------------------------------------------


def kill_orphans(state: State, now_s: float) -> Turn:
    """Kill what is left of an earlier HAProxy and takes connections from the one that serves.

    Only while that one lives, and only what was seen on its listeners twice: in a reload the
    listeners change hands.
    """
    killed_s, seen_s = state.orphans_killed_s, state.listeners_seen_s
    if state.in_flight is not None or not evidence.alive(state) or intent.paused(state):
        return state, ()
    if killed_s is not None and now_s - killed_s < ORPHAN_PAUSE_S:
        return state, ()
    spared = {state.instance.master, state.instance.worker} if state.instance else set()
    procs = tuple(
        proc
        for proc, since_s in state.orphans.items()
        if seen_s - since_s >= ORPHAN_S and proc not in spared
    )
    if not procs:
        return state, ()
    action = KillHaproxy(procs=procs, reason="left over from an earlier HAProxy, on its listeners")
    return replace(state, in_flight=action, orphans_killed_s=now_s), (action,)
