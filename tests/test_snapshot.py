"""The status document: one word for a node, and everything behind it, ready for JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from documents import (
    AROUND,
    HEALTHY,
    HELD,
    HISTORY,
    LOWERING,
    NOW_S,
    POLICY,
    VIP,
    checked,
    document,
    down,
    stepped,
)

from sentinel.actions import LookAtHaproxy, RemoveVips, RestartHaproxy, StopKeepalived
from sentinel.core import Intent, Memory, Phase, State
from sentinel.events import Verb
from sentinel.model import ConfigurationView, PeerView, ServiceState, Verdict
from sentinel.snapshot import SCHEMA_VERSION, Overall, overall, snapshot
from sentinel.vrrp import VrrpView


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, Overall.HEALTHY),
        ({"process_seen_s": None}, Overall.UNKNOWN),
        ({"process_seen_s": NOW_S - 60}, Overall.UNKNOWN),
        ({"phase": Phase.LEARNING}, Overall.UNKNOWN),
        ({"phase": Phase.DEAD}, Overall.FAILED),
        ({"phase": Phase.HUNG}, Overall.FAILED),
        ({"phase": Phase.MENDING}, Overall.FAILED),
        ({"phase": Phase.FAILED}, Overall.FAILED),
        ({"phase": Phase.HOLDING}, Overall.FAILED),
        ({"phase": Phase.MAINT}, Overall.FAILED),
        ({"checks": {"process": checked("process"), "web": down("web")}}, Overall.DEGRADED),
        ({"checks": {"process": checked("process"), "odd": down("odd")}}, Overall.DEGRADED),
        ({"configuration": ConfigurationView(valid=False, error="x")}, Overall.DEGRADED),
        ({"saturated_s": NOW_S - 1}, Overall.DEGRADED),
        ({"saturated_s": NOW_S - 60}, Overall.HEALTHY),
        ({"hook_silent": True}, Overall.DEGRADED),
        ({"memory": Memory(keepalived_stopped=True)}, Overall.DEGRADED),
        ({"memory": Memory(intents=(Intent(verb=Verb.PAUSE),))}, Overall.DEGRADED),
        ({"memory": Memory(intents=(Intent(verb=Verb.STEPDOWN),))}, Overall.DEGRADED),
    ],
)
def test_one_word_sums_a_node_up(changes: dict[str, Any], word: Overall) -> None:
    """Healthy only when nothing at all is wrong; unknown before it is wrong."""
    assert overall(POLICY, stepped(replace(HEALTHY, **changes)), NOW_S) is word
    assert document(replace(HEALTHY, **changes))["overall"] == word.value


@pytest.mark.parametrize("state", [HEALTHY, State(), State(phase=Phase.FAILED, process_seen_s=1.0)])
def test_every_state_becomes_json(state: State) -> None:
    """From the first moment on, and it comes back as it was."""
    made = document(state, replace(AROUND, lease_written_s=None, hook_age_s=None))
    assert json.loads(json.dumps(made)) == made
    assert made["schema_version"] == SCHEMA_VERSION


def test_what_is_not_known_is_null() -> None:
    """A guess would be taken for a fact."""
    made = document(State(), replace(AROUND, lease_written_s=None, hook_age_s=None))
    assert made["serving"] is None
    assert made["lease"] == {"age_ms": None, "expires_in_ms": None}
    assert made["keepalived"]["hook_called_age_ms"] is None
    assert made["keepalived"]["service"] is None
    haproxy = made["haproxy"]
    for key in ("master_pid", "worker_pid", "curr_conns", "maxconn", "idle_pct", "service"):
        assert haproxy[key] is None


def test_ages_and_durations_are_milliseconds() -> None:
    """Of the clock that neither steps nor sleeps."""
    made = document()
    assert made["uptime_ms"] == 100_000
    assert made["phase_age_ms"] == 90_000
    assert made["lease"] == {"age_ms": 500, "expires_in_ms": 2500}
    assert made["keepalived"]["hook_called_age_ms"] == 1500
    assert made["history"][0]["age_ms"] == 90_000
    (web,) = (check for check in made["checks"] if check["name"] == "web")
    assert (web["age_ms"], web["since_ms"], web["check_duration_ms"]) == (250, 60_000, 1.25)


def test_times_are_utc() -> None:
    """Whoever reads several nodes compares them; an event's time follows from its age."""
    made = document()
    now = datetime.fromisoformat(made["time"])
    assert now.utcoffset() is not None
    assert not now.utcoffset()
    then = datetime.fromisoformat(made["history"][0]["time"])
    assert 89 < (now - then).total_seconds() < 91


def test_a_check_is_told_in_haproxys_words() -> None:
    """Its state with its counter, its code, its last result, and whether it yields."""
    state = replace(HEALTHY, checks={"web": checked("web", Verdict.FAIL)})
    (web,) = document(state)["checks"]
    assert web["state"] == "UP 2/3"
    assert (web["verdict"], web["check_code"], web["last_chk"]) == ("FAIL", "L7OK", "status 200")
    assert (web["scope"], web["yields"]) == ("frontend", True)


def test_restarts_are_counted_in_their_window() -> None:
    """What is too old to count is not used, and a pause is told by what is left of it."""
    memory = Memory(restarts=(NOW_S - 100, NOW_S - 10), attempt=2, next_attempt_s=NOW_S + 1.5)
    made = document(replace(HEALTHY, memory=memory))["restarts"]
    assert made == {
        "used": 1,
        "budget": 3,
        "window_ms": 60_000,
        "attempt": 2,
        "next_attempt_in_ms": 1500,
    }


def test_actions_under_way_are_pending() -> None:
    """At most one on each service and on the VIPs, by its name."""
    state = replace(
        HEALTHY,
        in_flight=RestartHaproxy(attempt=1, reason="died"),
        keepalived_in_flight=StopKeepalived(reason="died"),
        fencing=RemoveVips(vips=(VIP,), reason="died"),
    )
    assert document(state)["pending"] == ["RestartHaproxy", "StopKeepalived", "RemoveVips"]
    assert LookAtHaproxy.__name__ not in document(state)["pending"]


def test_a_service_is_told_whole() -> None:
    """Programs get the service manager's own words."""
    made = document(replace(HEALTHY, haproxy=ServiceState(known=False, detail="timed out")))
    assert made["haproxy"]["service"]["known"] is False
    assert made["haproxy"]["service"]["detail"] == "timed out"


def test_the_whole_history_is_told() -> None:
    """The newest comes last."""
    made = snapshot(POLICY, HEALTHY, HISTORY * 50, AROUND, NOW_S)
    assert len(made["history"]) == len(HISTORY) * 50
    assert made["history"][-1]["fields"]["to"] == "UP"


# --- the pair -------------------------------------------------------------------------------------


def held(**changes: Any) -> State:
    """Return a healthy node that is MASTER and has the VIP, with *changes*."""
    return replace(HEALTHY, vrrp=VrrpView(instances=(HELD,), pids=(200,)), **changes)


def test_nothing_of_a_pair_is_known_at_first() -> None:
    """No instances, no peer, no hold, nothing asked for."""
    made = document(State())
    assert (made["vrrp"], made["peer"], made["held_for_ms"], made["advice"]) == ([], None, None, [])
    assert made["intent"] == {
        "paused": False,
        "stepped_down": False,
        "ends_in_ms": None,
        "until_start": False,
        "reason": "",
        "by": "",
    }
    assert made["orders"] == []


def test_an_instance_is_told_with_its_vips() -> None:
    """Keepalived's word with its age and source, and beside it what the kernel shows."""
    (made,) = document(held())["vrrp"]
    assert made == {
        "name": "VI_1",
        "interface": "eth0",
        "state": "MASTER",
        "state_age_ms": 60_000,
        "source": "FIFO",
        "priority": 254,
        "effective_priority": 254,
        "vips": [{"address": VIP.address, "prefix": 32, "interface": "eth0", "present": True}],
    }


def test_what_keepalived_does_not_say_is_null() -> None:
    """A VIP that a dead keepalived has left is here all the same."""
    silent = replace(HELD, claim=None)
    (made,) = document(replace(HEALTHY, vrrp=VrrpView(instances=(silent,))))["vrrp"]
    keys = ("state", "state_age_ms", "source", "effective_priority")
    assert [made[key] for key in keys] == [None] * 4
    assert made["vips"][0]["present"] is True


@pytest.mark.parametrize(
    ("intent", "told"),
    [
        (
            Intent(verb=Verb.PAUSE, reason="x", by="eve"),
            {"paused": True, "reason": "x", "by": "eve", "ends_in_ms": None},
        ),
        (
            Intent(verb=Verb.STEPDOWN, until_s=NOW_S + 2.5),
            {"stepped_down": True, "ends_in_ms": 2500},
        ),
        (Intent(verb=Verb.STEPDOWN, until_s=NOW_S - 0.5), {"ends_in_ms": 0}),
        (Intent(verb=Verb.STEPDOWN, until_worker=2), {"until_start": True, "ends_in_ms": None}),
        (Intent(verb=Verb.PAUSE, drain=True), {"paused": True, "stepped_down": True}),
    ],
)
def test_what_was_asked_for_is_told(intent: Intent, told: dict[str, Any]) -> None:
    """Who wants what, why, and for how much longer; an end that is due is no negative time."""
    made = document(held(memory=Memory(intents=(intent,))))
    assert {key: made["intent"][key] for key in told} == told
    assert made["orders"] == [made["intent"]]


def test_every_order_is_told_and_the_sum_ends_with_the_last() -> None:
    """A pause with an end, and a hand-over until HAProxy has been started, which may be later."""
    pause = Intent(verb=Verb.PAUSE, until_s=NOW_S + 60, by="eve")
    stepdown = Intent(verb=Verb.STEPDOWN, until_worker=2, by="root")
    made = document(held(memory=Memory(intents=(pause, stepdown))))
    assert [order["by"] for order in made["orders"]] == ["eve", "root"]
    assert [order["paused"] for order in made["orders"]] == [True, False]
    summed = made["intent"]
    assert (summed["paused"], summed["stepped_down"], summed["by"]) == (True, True, "root")
    assert (summed["ends_in_ms"], summed["until_start"]) == (None, True)


def test_a_stepdown_lowers_the_priority_where_that_moves_the_vip() -> None:
    """Serving goes on; where it moves nothing, why FAULT has to do it is told."""
    state = held(memory=Memory(intents=(Intent(verb=Verb.STEPDOWN, by="eve", reason="kernel"),)))
    made = document(state, policy=LOWERING)
    assert (made["serving"], made["lowered"]) == (True, 253)
    assert made["hand_over_by_fault"] == ""
    assert made["serving_reason"] == "stepped down by eve: kernel"

    made = document(state)
    assert (made["serving"], made["lowered"]) == (False, 0)
    assert made["hand_over_by_fault"] == "no priority file is configured (hook.priority_file)"


def test_undecided_lowers_nothing() -> None:
    """The number is there before there is anything to be told."""
    assert document(State())["lowered"] == 0


@pytest.mark.parametrize(
    ("phase", "healthy_s", "failures", "held_for_ms"),
    [
        (Phase.HOLDING, 4.0, (), 6000),
        (Phase.HOLDING, 4.0, (NOW_S - 900, NOW_S - 600), 16_000),  # the second one doubles it
        (Phase.HOLDING, 10.5, (), 0),
        (Phase.UP, 4.0, (), None),
        (Phase.FAILED, 4.0, (), None),
    ],
)
def test_how_long_the_vip_is_held_back(
    phase: Phase, healthy_s: float, failures: tuple[float, ...], held_for_ms: int | None
) -> None:
    """What is left of the hold, which failures within an hour make longer."""
    memory = Memory(failures=failures)
    state = held(phase=phase, healthy_since_s=NOW_S - healthy_s, memory=memory)
    assert document(state)["held_for_ms"] == held_for_ms


def test_the_peer_is_told_as_it_told_itself() -> None:
    """With its pools."""
    peer = PeerView(
        node="lb2",
        overall="healthy",
        serving=True,
        servers_up=1,
        servers_total=2,
        pools=(("app", 1, 2),),
    )
    made = document(held(peer=peer))
    assert json.loads(json.dumps(made))["peer"] == {
        "node": "lb2",
        "overall": "healthy",
        "serving": True,
        "servers_up": 1,
        "servers_total": 2,
        "pools": [["app", 1, 2]],
        "same_node": False,
    }


def test_advice_and_errors_are_lists() -> None:
    """One sentence each."""
    made = document(HEALTHY, replace(AROUND, advice=("set weight 1",), errors=("no space",)))
    assert (made["advice"], made["errors"]) == (["set weight 1"], ["no space"])
