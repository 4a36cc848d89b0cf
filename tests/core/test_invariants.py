"""Whatever happens, in whatever order: DESIGN's invariants hold after every step.

A history is one seed: random faults for a while, then none. A failing seed is printed and replays
with SENTINEL_SEED=N; SENTINEL_HISTORIES=N plays more of them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import pytest
from simulator import ALL, BENIGN, Agenda, Fault, Node, heal

from sentinel.actions import (
    Action,
    KillHaproxy,
    LookAtHaproxy,
    LookAtKeepalived,
    Recheck,
    Report,
    RestartHaproxy,
    StartKeepalived,
    StopKeepalived,
)
from sentinel.core import Phase, Policy, State, evidence, intent, manager, moves
from sentinel.core.standing import failing, standing

HISTORIES: Final = int(os.environ.get("SENTINEL_HISTORIES", "50"))
SEEDS: Final = (
    [int(os.environ["SENTINEL_SEED"])] if "SENTINEL_SEED" in os.environ else range(HISTORIES)
)
FAULTS_S: Final = 20.0
#: Seeing what has happened takes the shell this long at the default paces, at the most.
SEEN_S: Final = 0.8
POLICIES: Final = (
    Policy(checks={}),
    Policy(checks={}, restart_budget=1, restart_window_s=20.0, hold_s=3.0, backoff_max_s=8.0),
    Policy(checks={}, restart_budget=5, restart_window_s=10.0, backoff_s=0.2, hold_s=0.0),
    Policy(checks={}, restart_budget=0, restart_window_s=5.0, stop_after_s=0.0, hold_s=1.0),
)


#: What a paused sentinel may do: look, and speak.
IDLE: Final = (Report, Recheck, LookAtHaproxy, LookAtKeepalived)


@dataclass(slots=True)
class Watcher:
    """Holds every step against the invariants, knowing what the core cannot know."""

    policy: Policy
    restarts: list[float] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    rungs: list[tuple[float, type[Action], int]] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)
    reports: list[tuple[float, str]] = field(default_factory=list)
    not_serving_since_s: float | None = None

    def judge(self, node: Node, before: State, after: State, actions: tuple[Action, ...]) -> None:
        """Judge one step."""
        now_s = node.agenda.now_s
        assert len(actions) <= 12, actions
        self._judge_lease(node, after, now_s)
        self._judge_memory(before, after, now_s)
        for action in actions:
            self._judge_action(node, after, action, now_s)
            assert not intent.paused(after) or isinstance(action, IDLE), action
        under_way = node.shell.under_way
        ours = [a for a in (*under_way, *actions) if isinstance(a, RestartHaproxy | KillHaproxy)]
        theirs = [
            a for a in (*under_way, *actions) if isinstance(a, StopKeepalived | StartKeepalived)
        ]
        assert len(ours) <= 1
        assert len(theirs) <= 1
        if after.phase is Phase.MENDING:
            assert after.in_flight is not None or after.verify_by_s is not None

    def _judge_lease(self, node: Node, after: State, now_s: float) -> None:
        """The lease never says OK while HAProxy is known dead, nor long while it is deaf."""
        verdict = standing(node.shell.policy, after, now_s)
        serving = verdict is not None and verdict.serving
        if serving:
            assert evidence.alive(after)
            dead_since_s = node.haproxy.dead_since_s
            assert dead_since_s is None or now_s - dead_since_s <= SEEN_S
            self.not_serving_since_s = None
        elif self.not_serving_since_s is None:
            self.not_serving_since_s = now_s

    def _judge_memory(self, before: State, after: State, now_s: float) -> None:
        """The budget is spent in steps of one, and never twice within the backoff."""
        fresh = [at_s for at_s in after.memory.restarts if at_s not in before.memory.restarts]
        assert fresh in ([], [now_s])
        if after.memory.attempt > before.memory.attempt and self.spent:
            assert now_s - self.spent[-1] >= self.policy.backoff_s - 1e-9
        if after.memory.attempt > before.memory.attempt:
            self.spent.append(now_s)
        assert len(after.memory.restarts) <= max(self.policy.restart_budget, 0)

    def _judge_action(self, node: Node, after: State, action: Action, now_s: float) -> None:
        policy, truth = self.policy, node.haproxy
        match action:
            case RestartHaproxy():
                self.restarts.append(now_s)
                self._within_budget(self.restarts, now_s)
                unwanted = not node.manager.wanted and not node.manager.job
                unseen = now_s - node.manager.unwanted_since_s <= manager.FRESH_S
                assert not unwanted or (unseen and not node.manager.stop_ended_haproxy)
                node.manager.wanted = True  # it has forgotten the stop
            case KillHaproxy():
                self.kills.append(now_s)
                self._within_budget(self.kills, now_s)
                assert not truth.listens or (truth.api_hangs and truth.probes_wait)
            case StopKeepalived():
                assert after.phase is Phase.FAILED
                assert self.not_serving_since_s is not None
                assert now_s - self.not_serving_since_s >= policy.stop_after_s - 1e-9
                self._judge_rung(action, node.shell.life, now_s)
            case StartKeepalived():
                assert self.rungs, "never stopped by us"
                assert after.phase is Phase.UP
                assert not failing(node.shell.policy, after, now_s)
                self._judge_rung(action, node.shell.life, now_s)
            case LookAtHaproxy():
                self.looks = [at_s for at_s in self.looks if now_s - at_s < 1.0] + [now_s]
                assert len(self.looks) <= 15
            case LookAtKeepalived():
                pass
            case Report():
                self.reports.append((now_s, action.name))

    def _judge_rung(self, action: Action, life: int, now_s: float) -> None:
        """The same is not tried again before the longest pause, but by a new run of sentinel."""
        if self.rungs:
            at_s, kind, lived = self.rungs[-1]
            again = kind is type(action) and lived == life
            assert not again or now_s - at_s >= self.policy.backoff_max_s
        self.rungs.append((now_s, type(action), life))

    def _within_budget(self, stamps: list[float], now_s: float) -> None:
        window = [at_s for at_s in stamps if now_s - at_s < self.policy.restart_window_s]
        assert len(window) <= self.policy.restart_budget, window


def well(node: Node) -> bool:
    """Everything is as it should be, without anything pending."""
    return (
        node.haproxy.listens
        and node.shell.state.phase is Phase.UP
        and node.shell.lease is True
        and node.shell.state.memory.failed_since_s is None
        and not node.shell.state.memory.keepalived_stopped
        and node.keepalived.running
        and node.manager.active == "active"
        and not node.shell.under_way
    )


def bound_s(policy: Policy) -> float:
    """Return how long it may take from the last fault until all is well, at the very most."""
    return (
        policy.restart_window_s
        + 2 * policy.backoff_max_s
        + 3 * policy.verify_s
        + 8 * policy.hold_s  # three failures in one history double it three times
        + 2 * moves.ORPHAN_PAUSE_S
        + manager.JOB_MAX_S
        + 2 * manager.LOOK_MAX_S
        + 20.0  # a command that began while the manager hung
    )


def play(seed: int, faults: Mapping[str, Fault], policy: Policy) -> tuple[Node, Watcher]:
    """Play one history: faults for a while, then none until all is well."""
    agenda = Agenda(seed)
    random, watcher = agenda.random, Watcher(policy)
    restarts_itself = random.random() < 0.7
    node = Node(agenda, policy, watcher.judge, restarts_itself=restarts_itself, held_up=0.03)
    node.shell.begin()
    for _ in range(random.randrange(1, 9)):
        name = random.choice(sorted(faults))
        while_s = random.choice((0.05, 0.3, 1.0, 3.0, 8.0))
        agenda.after(random.uniform(1.0, FAULTS_S), partial(faults[name], node, while_s))
    agenda.run(agenda.now_s + FAULTS_S + 8.0)
    heal(node)
    agenda.run(agenda.now_s + 1.0)  # what happened a moment ago may be unseen yet
    patience_s = bound_s(policy) if policy.restart_budget else 5.0
    agenda.run(agenda.now_s + patience_s, enough=lambda: well(node))
    return node, watcher


@pytest.mark.parametrize("policy", POLICIES, ids=["default", "once", "eager", "never"])
def test_invariants_hold_in_every_history(policy: Policy) -> None:
    """Any faults in any order: every step within the invariants, and well again afterwards."""
    for seed in SEEDS:
        try:
            node, _ = play(seed, ALL, policy)
            assert well(node) or not policy.restart_budget, node.shell.state
        except AssertionError as error:
            pytest.fail(f"SENTINEL_SEED={seed}: {error}")


def test_what_is_not_haproxys_fault_moves_nothing() -> None:
    """Backends, saturation, reloads, a hung runtime API, a killed sentinel: no drastic action.

    Silent probes and a silent runtime API together are a hang, and cannot be told from one when
    they begin within a second; so a history has the one or the other.
    """
    for seed in SEEDS:
        silent = ("servers hang", "HAProxy is full") if seed % 2 else ("the runtime API hangs",)
        faults = {name: fault for name, fault in BENIGN.items() if name not in silent}
        try:
            node, watcher = play(seed, faults, POLICIES[0])
            assert (watcher.restarts, watcher.kills, watcher.rungs) == ([], [], [])
            assert "haproxy.hung" not in [name for _, name in watcher.reports]
            assert well(node), node.shell.state
        except AssertionError as error:
            pytest.fail(f"SENTINEL_SEED={seed}: {error}")


def healthy_node(seed: int) -> tuple[Node, Watcher]:
    """Return a node at the default policy and paces that has been well for a while."""
    watcher = Watcher(POLICIES[0])
    agenda = Agenda(seed)
    node = Node(agenda, POLICIES[0], watcher.judge, restarts_itself=True)
    node.shell.begin()
    agenda.run(agenda.now_s + agenda.random.uniform(3.0, 8.0))
    assert well(node)
    return node, watcher


def test_a_stopped_haproxy_is_yielded_and_killed_in_time() -> None:
    """SIGSTOP at any moment: yielded well within a second, killed within another, serving again."""
    for seed in SEEDS:
        node, watcher = healthy_node(seed)
        stopped_s = node.agenda.now_s
        node.haproxy.deafen(stopped=True)
        node.agenda.run(stopped_s + 5.0, enough=lambda: node.shell.lease is False)  # noqa: B023
        assert node.agenda.now_s - stopped_s < 0.8
        node.agenda.run(stopped_s + 5.0, enough=lambda: bool(watcher.kills))  # noqa: B023
        assert watcher.kills[0] - stopped_s < 1.3
        node.agenda.run(stopped_s + 5.0, enough=lambda: well(node))  # noqa: B023
        assert node.agenda.now_s - stopped_s < 2.0


LASTING: Final = {
    "the configuration stays invalid": {"configuration_valid": False},
    "every start dies": {"stillborn": 10_000},
    "it cannot be killed": {"frozen": True},
}


@pytest.mark.parametrize("how", LASTING.values(), ids=LASTING.keys())
def test_a_lasting_failure_does_not_flood_the_log(how: dict[str, bool]) -> None:
    """What cannot be mended is tried again and again, and said once; a try is a few lines.

    systemd adds up to five restarts of its own to each of ours.
    """
    node, watcher = healthy_node(0)
    for name, value in how.items():
        setattr(node.haproxy, name, value)
    if "frozen" not in how:
        node.crash()
    began_s = node.agenda.now_s
    node.agenda.run(began_s + 600.0)
    later = [name for at_s, name in watcher.reports if at_s > began_s + 60.0]
    assert watcher.rungs
    assert "haproxy.failed" not in later
    assert len(later) <= 9 * 70, later
