"""What one node tells the other: both sides of it, and everything that must not be believed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from documents import HEALTHY, NOW_S, POLICY, stepped
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel.core import Phase, State
from sentinel.model import PeerView, PoolView
from sentinel.peerdocument import DOCUMENT_CHARS_MAX, document, parse
from sentinel.vrrp import Claim, InstanceView, VrrpInstance, VrrpState, VrrpView

TIME = "2026-01-02T03:04:05.678+00:00"


def told(state: State = HEALTHY, node: str = "lb2") -> str:
    """Return what *node* says when this is its state."""
    return document(POLICY, stepped(state), node=node, now_s=NOW_S, time=TIME)


def changed(**keys: Any) -> str:
    """Return the document of a healthy node, changed by *keys*."""
    return json.dumps({**json.loads(told()), **keys})


def pools(count: int, name: str = "pool") -> tuple[PoolView, ...]:
    """Return *count* pools, one of two servers up in each."""
    return tuple(PoolView(name=f"{name}{each}", up=1, total=2) for each in range(count))


# --- what is told -------------------------------------------------------------------------------


def test_what_one_node_tells_the_other_understands() -> None:
    """From the state of one to the view of the other."""
    state = replace(HEALTHY, pools=(*HEALTHY.pools, PoolView(name="db", up=3, total=3)))
    assert parse(told(state)) == PeerView(
        node="lb2",
        overall="healthy",
        serving=True,
        servers_up=4,
        servers_total=5,
        pools=(("app", 1, 2), ("db", 3, 3)),
    )


def test_a_node_that_cannot_serve_says_so() -> None:
    """Its phase is for people, its word on serving for the peer."""
    text = told(replace(HEALTHY, phase=Phase.FAILED, reason="budget is spent"))
    assert json.loads(text)["phase"] == "FAILED"
    view = parse(text)
    assert isinstance(view, PeerView)
    assert (view.overall, view.serving) == ("failed", False)


def test_a_node_that_has_just_started_knows_nothing_of_itself() -> None:
    """It says null, not false."""
    view = parse(told(State()))
    assert isinstance(view, PeerView)
    assert (view.overall, view.serving, view.servers_total) == ("unknown", None, 0)


def test_vrrp_is_shown_as_keepalived_claims_it() -> None:
    """A state for each instance, null where keepalived has not said any."""
    claim = Claim(state=VrrpState.MASTER, since_s=900.0)
    instances = (
        InstanceView(instance=VrrpInstance(name="VI_1"), claim=claim),
        InstanceView(instance=VrrpInstance(name="VI_2")),
    )
    text = told(replace(HEALTHY, vrrp=VrrpView(instances=instances)))
    assert json.loads(text)["vrrp"] == [
        {"name": "VI_1", "state": "MASTER"},
        {"name": "VI_2", "state": None},
    ]


def test_nothing_else_is_told() -> None:
    """Everybody may read it: no path, no address, no process, no reason."""
    found = json.loads(told())
    assert found == {
        "schema_version": 1,
        "time": TIME,
        "node": "lb2",
        "overall": "healthy",
        "phase": "UP",
        "serving": True,
        "vrrp": [],
        "servers": {"up": 1, "total": 2},
        "pools": [{"name": "app", "up": 1, "total": 2}],
    }


def test_more_pools_than_fit_are_counted_all_the_same() -> None:
    """The list is cut, the sums are not, and the peer reads it."""
    text = told(replace(HEALTHY, pools=pools(5000)))
    view = parse(text)
    assert isinstance(view, PeerView)
    assert (view.servers_up, view.servers_total) == (5000, 10000)
    assert 500 < len(view.pools) < 5000
    assert view.pools[0] == ("pool0", 1, 2)


def test_five_hundred_pools_are_told_whole() -> None:
    """Nothing is cut from what a large node has."""
    view = parse(told(replace(HEALTHY, pools=pools(500, "www.example.org-"))))
    assert isinstance(view, PeerView)
    assert len(view.pools) == 500


@settings(max_examples=25)
@given(
    st.lists(st.builds(PoolView, name=st.text(min_size=1), up=st.just(0), total=st.integers(0, 9))),
    st.lists(st.text()),
    st.text(),
)
def test_no_name_makes_it_too_long(pools: list[PoolView], instances: list[str], node: str) -> None:
    """Whatever HAProxy and keepalived call their own, the document stays within its bound."""
    views = tuple(InstanceView(instance=VrrpInstance(name=name * 50)) for name in instances)
    several = tuple(replace(pool, name=pool.name * 50) for pool in pools * 50)
    state = replace(HEALTHY, pools=several, vrrp=VrrpView(instances=views * 50))
    assert len(told(state, node * 50)) <= DOCUMENT_CHARS_MAX


# --- what is not believed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the answer is not JSON: ''"),
        ("<html>\n", r"the answer is not JSON: '<html>\n'"),
        ("[" * 40_000, "the answer is not JSON: '[[["),
        ("9" * 5000, "the answer is not JSON: '999"),
        (told()[:-1], "the answer is not JSON: "),
        ("[]", "the answer has [] for an object"),
        ("null", "the answer has None for an object"),
        ("{}", "the answer has no schema_version"),
        (" " * (DOCUMENT_CHARS_MAX + 1), f"the answer is longer than {DOCUMENT_CHARS_MAX}"),
        (changed(schema_version=2), "schema_version 2, not 1: run the same version"),
        (changed(schema_version="1"), "the answer has '1' for schema_version"),
        (changed(schema_version=True), "the answer has True for schema_version"),
        (changed(node=""), "the answer has '' for node"),
        (changed(node="a\nb"), r"the answer has 'a\nb' for node"),
        (changed(node="\ud800"), r"the answer has '\ud800' for node"),
        (changed(node="n" * 256), "the answer has 'nnn"),
        (changed(node=None), "the answer has None for node"),
        (changed(overall=1), "the answer has 1 for overall"),
        (changed(serving=1), "the answer has 1 for serving"),
        (changed(serving="true"), "the answer has 'true' for serving"),
        (changed(servers=[]), "the answer has [] for servers"),
        (changed(servers={"up": 1}), "the answer has no total"),
        (changed(servers={"up": 3, "total": 2}), "the answer has 3 of 2 servers up"),
        (changed(servers={"up": -1, "total": 2}), "the answer has -1 of 2 servers up"),
        (changed(servers={"up": 1.0, "total": 2}), "the answer has 1.0 for up"),
        (changed(servers={"up": True, "total": 2}), "the answer has True for up"),
        (changed(servers={"up": 1, "total": 10**30}), "the answer has 1 of 1000"),
        (changed(servers={"up": 0, "total": float("inf")}), "the answer has inf for total"),
        (changed(pools={}), "the answer has {} for pools"),
        (changed(pools=[1]), "the answer has 1 for an object"),
        (changed(pools=[{"name": "a", "up": 0}]), "the answer has no total"),
        (changed(pools=[{"name": 1, "up": 0, "total": 0}]), "the answer has 1 for name"),
    ],
)
def test_what_is_wrong_is_told(text: str, words: str) -> None:
    """In one short line of printable characters."""
    found = parse(text)
    assert isinstance(found, str)
    assert words in found
    assert found.isprintable()
    assert len(found) < 150


def test_what_a_later_version_adds_is_passed_over() -> None:
    """Keys are only ever added."""
    assert parse(changed(load=1, weather="fair")) == parse(told())


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.text() | JSON.map(json.dumps))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Nothing but a document is a document, and nothing is raised."""
    assert isinstance(parse(text), str)


@given(st.sampled_from(sorted(json.loads(told()))), JSON)
def test_no_value_breaks_the_reader(key: str, value: Any) -> None:
    """Whatever stands behind a known key, the answer is a view or a reason."""
    found = parse(changed(**{key: value}))
    assert isinstance(found, PeerView) or found.isprintable()
