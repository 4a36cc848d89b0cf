"""Questions that decisions are made of: each reads the state and answers, none changes it."""

from __future__ import annotations

from typing import Final

from sentinel.core.state import CheckState, Phase, Policy, Standing, State
from sentinel.model import SILENT, Code, Proc, Scope, Verdict

#: A process check older than this proves nothing: the lease is left to run out.
PROCESS_STALE_S: Final = 5.0
#: Saturation explains probe failures this long after it was last seen: a probe that ends now may
#: have begun while the queue was full.
SATURATION_MEMORY_S: Final = 10.0
#: Without a runtime API or a probe to ask, a stopped worker is believed hung after this long.
STUCK_ALONE_S: Final = 2.0


def alive(state: State) -> bool:
    """HAProxy has a worker."""
    return state.instance is not None and state.instance.alive


def saturated(state: State, now_s: float) -> bool:
    """HAProxy said, now or a moment ago, that it is full."""
    return state.saturated_s is not None and now_s - state.saturated_s < SATURATION_MEMORY_S


def counts(policy: Policy, state: State, name: str) -> bool:
    """Tell whether this check's failures may move anything (see CheckPolicy.discovered)."""
    known = policy.checks.get(name)
    return known is not None and (not known.discovered or name in state.memory.proven)


def expected(policy: Policy, state: State) -> tuple[str, ...]:
    """Return the checks that a living HAProxy must answer: the runtime API and the frontends."""
    return tuple(
        name
        for name, known in policy.checks.items()
        if known.scope in {Scope.RUNTIME, Scope.FRONTEND} and counts(policy, state, name)
    )


def liveness(policy: Policy, state: State) -> dict[str, CheckState]:
    """Return the expected checks that have run, with what they know."""
    return {name: state.checks[name] for name in expected(policy, state) if name in state.checks}


def silent(policy: Policy, state: State) -> bool:
    """Tell whether the runtime API and every frontend are DOWN by silence, with no other excuse.

    A bare TCP connect proves nothing either way: the kernel completes it for a dead listener.

    A full HAProxy also lets probes time out, but its runtime API answers; so without a runtime
    API silence alone proves nothing, and the node yields without killing anything.
    """
    checks = [c for c in liveness(policy, state).values() if c.last.code is not Code.L4OK]
    scopes = {check.last.scope for check in checks}
    return scopes == {Scope.RUNTIME, Scope.FRONTEND} and all(
        not check.health.up and check.last.code in SILENT for check in checks
    )


def hung(policy: Policy, state: State, now_s: float) -> str:
    """Return why HAProxy, though alive, cannot answer; empty while it can."""
    if not alive(state):
        return ""
    if state.stuck_since_s is not None and now_s - state.stuck_since_s >= policy.stuck_s:
        answered = any(
            check.answered_begun_s > state.stuck_since_s
            for check in liveness(policy, state).values()
        )
        if not answered:
            return "worker is stopped and does not answer"
    if silent(policy, state):
        return "runtime API and frontends are silent"
    return ""


def hang_confirmed(policy: Policy, state: State, now_s: float) -> bool:
    """Tell whether two witnesses agree: the process state and a silent answer, or all checks."""
    if silent(policy, state):
        return True
    since_s = state.stuck_since_s
    if since_s is None:
        return False
    asked = [c for c in liveness(policy, state).values() if c.last_begun_s > since_s]
    if not liveness(policy, state):
        return now_s - since_s >= STUCK_ALONE_S
    return any(c.last.verdict is Verdict.FAIL and c.last.code in SILENT for c in asked)


def condemned(state: State) -> tuple[Proc, ...]:
    """Return the processes to kill to end a hung HAProxy: its worker, and whatever is stuck."""
    if state.instance is None or state.instance.worker is None:
        return ()
    process = state.checks.get("process")
    view = process.last.view if process is not None else None
    stuck: tuple[Proc, ...] = getattr(view, "stuck", ())
    return tuple(dict.fromkeys((state.instance.worker, *stuck)))


def proven_again(policy: Policy, state: State, now_s: float) -> bool:
    """Tell whether the newest incarnation has answered every expected check.

    A full HAProxy counts as started when its runtime API answers.
    """
    if not alive(state) or state.stuck_since_s is not None:
        return False
    waiting = waiting_for(policy, state)
    if not waiting:
        return True
    runtime = state.checks.get("runtime")
    runtime_answers = runtime is not None and runtime.passed_incarnation == state.incarnation
    return (
        runtime_answers
        and saturated(state, now_s)
        and all(n in state.checks and state.checks[n].last.code in SILENT for n in waiting)
    )


def waiting_for(policy: Policy, state: State) -> tuple[str, ...]:
    """Return the expected checks that the newest incarnation has not answered yet.

    One that says UNKNOWN cannot be waited for: its socket may be gone from the configuration.
    """
    waiting = []
    for name in expected(policy, state):
        check = state.checks.get(name)
        if check is None:
            waiting.append(name)
        elif check.last.verdict is Verdict.UNKNOWN:
            continue
        elif check.passed_incarnation != state.incarnation:
            waiting.append(name)
    return tuple(waiting)


def answered(verdict: Verdict, code: Code) -> bool:
    """HAProxy itself answered, be it with an unwanted status: that is the backends' business."""
    return verdict is Verdict.PASS or (verdict is Verdict.FAIL and code is Code.L7STS)


def restarts_left(policy: Policy, state: State, now_s: float) -> int:
    """Return how many restarts the budget still allows in the window that ends now."""
    return policy.restart_budget - len(restarts_in_window(policy, state, now_s))


def restarts_in_window(policy: Policy, state: State, now_s: float) -> tuple[float, ...]:
    """Return the restarts that still count."""
    return tuple(at_s for at_s in state.memory.restarts if now_s - at_s < policy.restart_window_s)


def why_not_restart(policy: Policy, state: State, now_s: float) -> str:
    """Return why HAProxy must not be restarted now; empty when it may be (backoff aside)."""
    if state.configuration is not None and not state.configuration.valid:
        return f"configuration is invalid: {state.configuration.error}"
    if restarts_left(policy, state, now_s) <= 0:
        return f"restart budget is spent: {policy.restart_budget} in {policy.restart_window_s:g} s"
    return ""


def failing(policy: Policy, state: State, now_s: float) -> str:
    """Return why a living HAProxy is not worth the VIP: a check that yields is DOWN; else empty."""
    for name, check in state.checks.items():
        known = policy.checks.get(name)
        if known is None or not known.yields or check.health.up:
            continue
        if not counts(policy, state, name):
            continue
        if check.last.code in SILENT and saturated(state, now_s):
            continue
        return f"{name} is DOWN: {check.last.code} {check.last.detail}".rstrip()
    return ""


def standing(policy: Policy, state: State, now_s: float) -> Standing | None:
    """Return what keepalived is told now; None (no lease) while sentinel does not know."""
    if state.phase is Phase.LEARNING or state.process_seen_s is None:
        return None
    if now_s - state.process_seen_s > PROCESS_STALE_S:
        return None
    if state.phase is not Phase.UP:
        return Standing(serving=False, reason=state.reason)
    reason = failing(policy, state, now_s)
    return Standing(serving=not reason, reason=reason or state.reason)
