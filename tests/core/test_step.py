"""What is easier said of ``step`` in code than in a scenario."""

from dataclasses import replace

from sentinel.actions import Report, RestartHaproxy
from sentinel.core import CheckPolicy, Memory, Policy, State, moves, step
from sentinel.events import CheckRemoved, Finished, Tick
from sentinel.model import Instance, Proc, Scope

POLICY = Policy(checks={"process": CheckPolicy(scope=Scope.PROCESS, rise=1, fall=1)})


def test_what_a_predecessor_began_changes_nothing() -> None:
    """The end of an action that this state did not begin is at most reported."""
    state, _ = step(POLICY, State(), Tick(), 100.0)
    action = RestartHaproxy(attempt=1, reason="worker died")
    assert step(POLICY, state, Finished(action=action, ok=True), 100.0) == (state, ())
    after, actions = step(POLICY, state, Finished(action=action, ok=False, detail="no"), 100.0)
    assert after == state
    assert [action.name for action in actions if isinstance(action, Report)] == ["action.failed"]


def test_a_failure_may_last_for_years() -> None:
    """The pause between attempts stays at its maximum, however many there were."""
    state = State(memory=Memory(attempt=1_000_000))
    memory = moves.spend(POLICY, state, 100.0)
    assert memory.next_attempt_s == 100.0 + POLICY.backoff_max_s


def test_pauses_double() -> None:
    """The pause after each attempt is twice the one before, up to the maximum."""
    state, pauses = State(), []
    for _ in range(7):
        state = replace(state, memory=moves.spend(POLICY, state, 0.0))
        pauses.append(state.memory.next_attempt_s)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_time_begins_with_the_first_step() -> None:
    """The first change of phase does not claim the machine's uptime for itself."""
    state, _ = step(POLICY, State(), Tick(), 5000.0)
    assert (state.started_s, state.phase_since_s) == (5000.0, 5000.0)


def test_an_orphan_waits_for_the_restart_under_way() -> None:
    """A second action on HAProxy would make the core forget the first, and wait for it for ever."""
    restart = RestartHaproxy(attempt=1, reason="it died")
    orphan = Proc(pid=7, start_ticks=1)
    alive = Instance(master=None, worker=Proc(pid=8, start_ticks=2))
    state = State(instance=alive, in_flight=restart, orphans={orphan: 0.0}, listeners_seen_s=60.0)
    assert moves.kill_orphans(state, 60.0) == (state, ())
    free, actions = moves.kill_orphans(replace(state, in_flight=None), 60.0)
    assert free.in_flight is not None
    assert [type(action).__name__ for action in actions] == ["KillHaproxy"]
    dead = replace(state, in_flight=None, instance=None)
    assert moves.kill_orphans(dead, 60.0) == (dead, ())


def test_a_removed_check_has_to_prove_itself_again() -> None:
    """A probe of the same name may come back asking something else."""
    state = State(memory=Memory(proven=("front", "runtime")))
    after, _ = step(Policy(checks={}), state, CheckRemoved(check="front"), 1.0)
    assert after.memory.proven == ("runtime",)
