"""Health is HAProxy's own hysteresis (configuration manual 5.2, rise and fall)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.config import Config
from sentinel.core import Health, Policy
from sentinel.model import Verdict

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
WORDS = {"+": PASS, "-": FAIL, "?": UNKNOWN}


@pytest.mark.parametrize(
    ("rise", "fall", "results", "told"),
    [
        (2, 3, "", "UP"),
        (2, 3, "+", "UP"),
        (2, 3, "-", "UP 2/3"),
        (2, 3, "--", "UP 1/3"),
        (2, 3, "---", "DOWN"),
        (2, 3, "--+", "UP"),
        (2, 3, "--+--", "UP 1/3"),
        (2, 3, "----", "DOWN"),
        (2, 3, "---+", "DOWN 1/2"),
        (2, 3, "---++", "UP"),
        (2, 3, "---+-", "DOWN"),
        (2, 3, "---+-+", "DOWN 1/2"),
        (3, 1, "-", "DOWN"),
        (3, 1, "-++", "DOWN 2/3"),
        (3, 1, "-+++", "UP"),
        (1, 1, "-", "DOWN"),
        (1, 1, "-+", "UP"),
        (2, 3, "--????", "UP 1/3"),
        (2, 3, "---+??", "DOWN 1/2"),
    ],
)
def test_states_read_as_haproxys(rise: int, fall: int, results: str, told: str) -> None:
    """A run of results leads to the state that HAProxy's statistics would show."""
    health = Health.fresh(rise, fall)
    for word in results:
        health = health.after(WORDS[word])
    assert str(health) == told


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.sampled_from([PASS, FAIL, UNKNOWN])))
def test_only_a_run_of_results_changes_the_state(
    rise: int, fall: int, results: list[Verdict]
) -> None:
    """DOWN after fall failures in a row, UP after rise passes in a row, and else as it was."""
    health, up, run = Health.fresh(rise, fall), True, 0
    for verdict in results:
        health = health.after(verdict)
        if verdict is not UNKNOWN:
            run = run + 1 if (verdict is FAIL) is up else 0
        if run == (fall if up else rise):
            up, run = not up, 0
        assert health.up is up
        assert health.settled is (run == 0)
        assert 0 <= health.counter < rise + fall


def test_the_policy_begins_with_the_configurations_defaults() -> None:
    """What the core assumes is what the configuration documents."""
    policy, config = Policy(checks={}), Config()
    restart, keepalived = config.restart, config.keepalived
    assert (restart.budget, restart.window_s) == (policy.restart_budget, policy.restart_window_s)
    assert (restart.backoff_s, restart.backoff_max_s) == (policy.backoff_s, policy.backoff_max_s)
    assert (restart.verify_s, restart.stuck_s) == (policy.verify_s, policy.stuck_s)
    assert keepalived.stop_on_failure == policy.stop_keepalived
    assert (keepalived.stop_after_s, keepalived.hold_s) == (policy.stop_after_s, policy.hold_s)
    assert config.hook.call_within_s == policy.call_within_s
