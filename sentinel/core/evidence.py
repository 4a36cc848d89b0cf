"""Questions that decisions are made of: each reads the state and answers, none changes it."""

from __future__ import annotations

from typing import Final

from sentinel.core.state import CheckState, Policy, State
from sentinel.model import SILENT, Code, Observation, Proc, Scope, Verdict

#: Saturation explains silent probes this long after it was last seen: one that ends now may have
#: begun while the queue was full, and a busy HAProxy may leave a question or two unanswered.
SATURATION_MEMORY_S: Final = 5.0
#: So many silent answers in a row, of the runtime API and of every frontend, are a hang; one
#: answer among them is life, however slow.
SILENCES_MIN: Final = 3
#: Silences that did not begin together are believed to be one hang after this long.
SILENT_APART_S: Final = 30.0
#: A worker that is stopped for this long is hung, whoever may still be waiting for its answer.
STUCK_ALONE_S: Final = 5.0
#: A failure makes the holds of so long longer.
FLAPPING_S: Final = 3600.0
#: Answers of the kernel: it completes and refuses connects for a dead listener as for a living one.
_KERNEL: Final = frozenset({Code.L4OK, Code.L4CON})
#: What only HAProxy itself can have said to a probe, be it unwanted.
_SAID: Final = frozenset({Code.L6OK, Code.L6RSP, Code.L7OK, Code.L7STS, Code.L7RSP})
_CONNECTED: Final = frozenset({Code.L6TOUT, Code.L7TOUT})


def alive(state: State) -> bool:
    """HAProxy has a worker."""
    return state.instance is not None and state.instance.alive


def saturated(state: State, now_s: float) -> bool:
    """HAProxy said, now or a moment ago, that it is full."""
    return state.saturated_s is not None and now_s - state.saturated_s < SATURATION_MEMORY_S


# --- what the checks of the present incarnation say -----------------------------------------------


def of_scope(policy: Policy, *scopes: Scope) -> tuple[str, ...]:
    """Return the names of the checks of these scopes."""
    return tuple(name for name, known in policy.checks.items() if known.scope in scopes)


def counts(policy: Policy, state: State, name: str) -> bool:
    """Tell whether this check's failures may move anything (see CheckPolicy.discovered)."""
    known = policy.checks.get(name)
    return known is not None and (not known.discovered or name in state.memory.proven)


def expected(policy: Policy, state: State) -> tuple[str, ...]:
    """Return the checks that a living HAProxy must answer: runtime API and yielding frontends."""
    return tuple(
        name
        for name in of_scope(policy, Scope.RUNTIME, Scope.FRONTEND)
        if counts(policy, state, name)
        and (policy.checks[name].scope is Scope.RUNTIME or policy.checks[name].yields)
    )


def asked(policy: Policy, state: State, *scopes: Scope) -> dict[str, CheckState]:
    """Return the checks of these scopes that count and have asked the present incarnation."""
    return {
        name: state.checks[name]
        for name in of_scope(policy, *scopes)
        if counts(policy, state, name)
        and name in state.checks
        and state.checks[name].incarnation == state.incarnation
    }


def answered(seen: Observation) -> bool:
    """The check is content, or has an unwanted status, which is the backends' business."""
    if seen.verdict is Verdict.PASS:
        return True
    return seen.scope is Scope.FRONTEND and seen.code is Code.L7STS


def spoke(seen: Observation) -> bool:
    """HAProxy itself answered, not the kernel in its place; of the runtime API only a pass counts.

    The runtime API may be answered by a worker before a reload, and then fails.
    """
    if seen.scope is Scope.FRONTEND:
        return seen.code in _SAID
    return seen.scope is Scope.RUNTIME and seen.verdict is Verdict.PASS


# --- is it hung -----------------------------------------------------------------------------------


def silent(policy: Policy, state: State, now_s: float) -> bool:
    """Tell whether the runtime API and the frontends are silent, with no other excuse.

    A full HAProxy also lets probes time out, but its runtime API answers; so without a runtime API
    silence alone proves nothing: the node yields, and nothing is killed. A check that could not
    look, and one that only the kernel answered, says nothing either way. A frontend that only
    alerts accuses nobody, but its answer is life.
    """
    if not any(check.silences >= SILENCES_MIN for check in state.checks.values()):
        return False  # as nearly always: this is asked at every step
    witnesses = {
        name: check
        for name, check in asked(policy, state, Scope.RUNTIME, Scope.FRONTEND).items()
        if check.last.verdict is not Verdict.UNKNOWN and check.last.code not in _KERNEL
    }
    accusers = {policy.checks[name].scope for name in witnesses if name in expected(policy, state)}
    return (
        accusers == {Scope.RUNTIME, Scope.FRONTEND}
        and all(
            check.last.code in SILENT
            and check.silences >= max(SILENCES_MIN, policy.checks[name].fall)
            for name, check in witnesses.items()
        )
        and _together(state, tuple(witnesses.values()), now_s)
    )


def _together(state: State, witnesses: tuple[CheckState, ...], now_s: float) -> bool:
    """Tell whether the witnesses fell silent at once, as in a hang, or all are so for long.

    One that answered while another was silent already makes two faults likelier: a runtime API
    that hangs by itself (haproxy/haproxy#2951), and servers that hang. So does a HAProxy whose
    last word was that it is full.
    """
    full = state.runtime is not None and state.runtime.saturated
    last_word_s = max(check.spoke_s for check in witnesses)
    first_s = min(check.silent_since_s for check in witnesses)
    last_s = max(check.silent_since_s for check in witnesses)
    at_once = last_word_s < first_s and not full
    return at_once or now_s - last_s >= SILENT_APART_S


def hung(policy: Policy, state: State, now_s: float) -> str:
    """Return why HAProxy, though alive, cannot answer; empty while it can.

    Two looks at the process, stuck_s apart, must find it stuck: a busy worker may well be seen
    once in uninterruptible sleep. An answer in between ends the suspicion (``absorb``).
    """
    if not alive(state):
        return ""
    if state.stuck_since_s is not None and state.process_seen_s is not None:
        seen_for_s = state.process_seen_s - state.stuck_since_s
        if seen_for_s > 0 and seen_for_s >= policy.stuck_s:
            return "worker is stopped and does not answer"
    if silent(policy, state, now_s):
        return "runtime API and frontends are silent"
    return ""


def hang_confirmed(policy: Policy, state: State, now_s: float) -> bool:
    """Tell whether a second witness agrees with the state of the process, or all checks do."""
    if silent(policy, state, now_s):
        return True
    since_s = now_s if state.stuck_since_s is None else state.stuck_since_s
    return now_s - since_s >= STUCK_ALONE_S or any(
        state.checks[name].last.code in SILENT and state.checks[name].last_begun_s >= since_s
        for name in expected(policy, state)
        if name in state.checks
    )


def condemned(state: State) -> tuple[Proc, ...]:
    """Return the processes to kill to end this HAProxy: its worker, and whatever is stuck."""
    worker = state.instance.worker if state.instance is not None else None
    return tuple(dict.fromkeys((*((worker,) if worker else ()), *state.stuck)))


# --- does it serve --------------------------------------------------------------------------------


def proven(policy: Policy, state: State, now_s: float) -> bool:
    """Tell whether the present incarnation has answered every expected check.

    A full HAProxy counts as started when its runtime API answers.
    """
    if not alive(state) or state.stuck_since_s is not None:
        return False
    waiting = waiting_for(policy, state)
    if not waiting:
        return True
    return (
        saturated(state, now_s)
        and not set(waiting) & set(of_scope(policy, Scope.RUNTIME))
        and all(n in state.checks and state.checks[n].last.code in SILENT for n in waiting)
    )


def waiting_for(policy: Policy, state: State) -> tuple[str, ...]:
    """Return the expected checks that the present incarnation has not answered yet.

    One that could not look cannot be waited for: its socket may be gone from the configuration.
    """
    waiting = []
    for name in expected(policy, state):
        check = state.checks.get(name)
        if check is None or check.incarnation != state.incarnation:
            waiting.append(name)
        elif check.answered_incarnation == state.incarnation:
            continue
        elif check.last.verdict is not Verdict.UNKNOWN:
            waiting.append(name)
    return tuple(waiting)


def lives(policy: Policy, state: State) -> bool:
    """Tell whether a HAProxy that has not proved itself may yet be no failed start.

    One that answers anything at all is not mended by another restart: what it lacks is up to its
    configuration or to the backends. Without a runtime API a probe that connected is taken for
    life, because backends that hang look the same.
    """
    if not alive(state) or state.stuck_since_s is not None:
        return False
    checks = asked(policy, state, Scope.RUNTIME, Scope.FRONTEND)
    if any(spoke(check.last) for check in checks.values()):
        return True
    if any(
        check.last.scope is Scope.RUNTIME and check.last.verdict is Verdict.FAIL
        for check in checks.values()
    ):
        return False
    return any(check.last.code in _CONNECTED for check in checks.values())


# --- may it be restarted --------------------------------------------------------------------------


def restarts_left(policy: Policy, state: State, now_s: float) -> int:
    """Return how many restarts the budget still allows in the window that ends now."""
    return policy.restart_budget - len(restarts_in_window(policy, state, now_s))


def restarts_in_window(policy: Policy, state: State, now_s: float) -> tuple[float, ...]:
    """Return the restarts that still count."""
    return lately(state.memory.restarts, policy.restart_window_s, now_s)


def lately(stamps: tuple[float, ...], span_s: float, now_s: float) -> tuple[float, ...]:
    """Return those of *stamps* that lie in the span that ends now."""
    return tuple(at_s for at_s in stamps if now_s - at_s < span_s)


def configuration_rechecked(policy: Policy, state: State) -> bool:
    """The configuration was judged after HAProxy was found dead."""
    names = of_scope(policy, Scope.CONFIGURATION)
    return all(
        name in state.checks and state.checks[name].last_begun_s >= state.phase_since_s
        for name in names
    )


def paid(policy: Policy, state: State, now_s: float) -> bool:
    """Tell whether the kill of a hung worker has already paid for the restart that follows it."""
    return state.killed_s in restarts_in_window(policy, state, now_s)


def why_not_restart(policy: Policy, state: State, now_s: float) -> str:
    """Return why HAProxy must not be restarted now; empty when it may be (backoff aside)."""
    if state.configuration is not None and not state.configuration.valid:
        return f"configuration is invalid: {state.configuration.error}"
    if not paid(policy, state, now_s) and restarts_left(policy, state, now_s) <= 0:
        return f"restart budget is spent: {policy.restart_budget} in {policy.restart_window_s:g} s"
    return ""


def backed_off(policy: Policy, state: State, now_s: float) -> bool:
    """Tell whether the pause after the last attempt is over."""
    return paid(policy, state, now_s) or now_s >= state.memory.next_attempt_s


# --- how long is it held --------------------------------------------------------------------------


def hold_s(policy: Policy, state: State) -> float:
    """Return how long HAProxy must be healthy before the VIP may come back.

    It doubles with each failure of the last hour, so that a node that flaps does so ever more
    slowly.
    """
    doublings = max(0, len(state.memory.failures) - 1)
    longest_s = max(policy.hold_s, policy.hold_max_s)
    return min(policy.hold_s * 2.0**doublings, longest_s)
