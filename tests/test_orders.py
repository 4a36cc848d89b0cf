"""An order on its way to the daemon: it arrives as it was given, or is refused in words."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel import orders
from sentinel.drivers.localsocket import LINE_BYTES_MAX
from sentinel.events import Order, Verb

#: What can be typed: no lone surrogates.
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=500)
ORDERS = st.builds(
    Order,
    verb=st.sampled_from(Verb),
    for_s=st.none() | st.floats(min_value=0.001, max_value=365 * 86400.0),
    reason=WORDS,
    by=WORDS,
    drain=st.booleans(),
    until_start=st.booleans(),
)


def line(**changes: Any) -> str:
    """Return the line of a good order with some keys changed."""
    return json.dumps({"verb": "pause", "for_s": 60, "reason": "x", "by": "me"} | changes)


@given(ORDERS)
def test_an_order_arrives_as_it_was_given(order: Order) -> None:
    """Whatever the reason holds, in one line."""
    written = orders.write(order)
    assert "\n" not in written
    assert orders.read(written) == order


def test_the_longest_order_fits_into_a_line() -> None:
    """What the daemon would not read to its end could not be refused in words."""
    longest = Order(
        verb=Verb.STEPDOWN, for_s=1 / 3, reason="\U0001f600" * 500, by="\U0001f600" * 32
    )
    written = orders.write(longest)
    assert len(written.encode()) < LINE_BYTES_MAX
    assert orders.read(written) == longest


def test_only_the_verb_is_needed() -> None:
    """A person may write one with a few words."""
    assert orders.read('{"verb": "resume"}\n') == Order(verb=Verb.RESUME)


def test_a_whole_number_is_a_time() -> None:
    """JSON knows one kind of number."""
    assert orders.read(line(for_s=365 * 86400)).for_s == 365 * 86400


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "that is no order: Expecting value"),
        ("status\n", "that is no order: Expecting value"),
        ("[]", "that is no order"),
        ("4", "that is no order"),
        ("null", "that is no order"),
        ("{}", "that is no order: 'verb'"),
        ("[" * 4000, "that is no order"),
        (line(verb="stop"), "'stop' is not a valid Verb"),
        (line(verb=["pause"]), "is not a valid Verb"),
        (line(verb=None), "None is not a valid Verb"),
        (line(for_s=0), "more than nothing and at most a year"),
        (line(for_s=-1), "more than nothing and at most a year"),
        (line(for_s=365 * 86400 + 1), "more than nothing and at most a year"),
        (line(for_s=float("inf")), "more than nothing and at most a year"),
        (line(for_s=float("nan")), "more than nothing and at most a year"),
        (line(for_s="30m"), "more than nothing and at most a year"),
        (line(for_s=True), "more than nothing and at most a year"),
        (line(reason="x" * 501), "a reason is a text of at most 500 characters"),
        (line(reason=4), "a reason is a text of at most 500 characters"),
        (line(by="x" * 501), "a reason is a text of at most 500 characters"),
        (line(by=None), "a reason is a text of at most 500 characters"),
        (line(drain="yes"), "drain and until_start are true or false"),
        (line(until_start=1), "drain and until_start are true or false"),
    ],
)
def test_what_is_no_order_is_refused(said: str, words: str) -> None:
    """In words that get back to whoever said it; nothing is taken for something milder."""
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        orders.read(said)
    assert json.loads(orders.refused(refused.value)) == {"ok": False, "error": str(refused.value)}


@given(st.text())
def test_nothing_else_is_raised(said: str) -> None:
    """Whatever comes over the socket: an order, or a refusal."""
    with suppress(ValueError):
        orders.read(said)
