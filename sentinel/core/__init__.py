r"""The decisions: ``step(policy, state, event, now_s) -> (state, actions)``.

Rule 1: everything that decides lives in this package, and nothing here looks at a clock, does I/O,
logs or draws lots. Time comes in as *now_s*, effects go out as actions and come back as events, so
every decision can be replayed from its inputs.

    event --> absorb: facts into the state --> decide: the phase's transition --> actions
                                                  (evidence answers its questions)

    absorb   views (what checks saw) with lost (of the servers), outcomes (how actions ended),
             intent (what people asked for)
    decide   phases and their moves on HAProxy, with manager; keepalived and fence on keepalived
    standing what keepalived is told after each step

The phases:

    LEARNING --> UP <--> HUNG --kill--> DEAD --restart--> MENDING --proved--> UP
                  \---died---------------^ ^--not proved----/
                  DEAD/HUNG --cannot be mended--> FAILED --mended--> HOLDING --hold_s--> UP
                  DEAD --stopped on purpose--> MAINT --started--> MENDING
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sentinel.actions import Action, Recheck, Report
from sentinel.core.absorb import absorb
from sentinel.core.evidence import of_scope
from sentinel.core.phases import decide
from sentinel.core.standing import tell
from sentinel.core.state import (
    CheckPolicy,
    CheckState,
    Health,
    Intent,
    Memory,
    Phase,
    Policy,
    Standing,
    State,
)
from sentinel.events import Event
from sentinel.model import Scope
from sentinel.vrrp import Vip

__all__ = [
    "CheckPolicy",
    "CheckState",
    "Health",
    "Intent",
    "Memory",
    "Phase",
    "Policy",
    "Standing",
    "State",
    "step",
]


#: Without a step for so long (there are several a second), sentinel was not there.
ABSENT_S: Final = 2.0


def step(
    policy: Policy, state: State, event: Event, now_s: float
) -> tuple[State, tuple[Action, ...]]:
    """Return the state after *event* and what is to be done.

    *now_s* is CLOCK_BOOTTIME in seconds and never runs backwards.
    """
    if state.started_s is None:
        state = replace(state, started_s=now_s, phase_since_s=now_s, stepped_s=now_s)
    before = state = _awake(state, now_s)
    state, reports = absorb(policy, state, event, now_s)
    after, actions = decide(policy, state, now_s)
    if after.phase is not state.phase:
        actions = (*actions, _transition(state, after))
    if _held(after) - _held(before):
        actions = (*actions, Recheck(checks=of_scope(policy, Scope.VRRP)))
    after, told = tell(policy, after, now_s)
    return replace(after, stepped_s=now_s), (*reports, *actions, *told)


def _awake(state: State, now_s: float) -> State:
    """Let no time count against HAProxy in which nobody looked: a suspended machine, a long stall.

    A worker found stuck before has to be found so twice again, one that is held for hung to be so
    for as long as ever, and a start has its time left.
    """
    gap_s = now_s - state.stepped_s
    if gap_s < ABSENT_S:
        return state
    if state.phase is not Phase.HUNG:
        verify_by_s = _later(state.verify_by_s, gap_s)
        return replace(state, stuck_since_s=None, verify_by_s=verify_by_s)
    since_s, seen_s = _later(state.stuck_since_s, gap_s), _later(state.process_seen_s, gap_s)
    return replace(state, stuck_since_s=since_s, process_seen_s=seen_s)


def _later(at_s: float | None, by_s: float) -> float | None:
    return None if at_s is None else at_s + by_s


def _held(state: State) -> frozenset[Vip]:
    """A VIP that has come may be somebody else's as well: that is looked for at once."""
    held = state.vrrp.held if state.vrrp else ()
    return frozenset(vip for seen in held for vip in seen.present)


def _transition(before: State, after: State) -> Report:
    """Every change of phase is one line in the log, so that the phases can be followed there."""
    fields = (
        ("from", before.phase.value),
        ("to", after.phase.value),
        ("reason", after.reason),
        ("after_s", round(after.phase_since_s - before.phase_since_s, 3)),
    )
    return Report(name="phase.changed", level="info", fields=fields)
