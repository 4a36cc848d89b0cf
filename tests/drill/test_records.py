"""The arithmetic on what was seen of a fault."""

from __future__ import annotations

import json

from drillings import finding

from sentinel.drill.records import (
    Answer,
    Event,
    Finding,
    Holding,
    failed_apart,
    longest_shared_s,
    outage_ms,
    shifted,
    spans,
)


def answers(*times_s: float, bad: tuple[float, ...] = ()) -> list[Answer]:
    """Return good answers at these times and bad ones at those."""
    good = [Answer(at_s=at_s, took_ms=1.0, good=True) for at_s in times_s]
    return [*good, *(Answer(at_s=at_s, took_ms=250.0, good=False) for at_s in bad)]


def test_an_outage_is_the_longest_gap_between_good_answers() -> None:
    """It begins with the last good answer before the fault; bad ones do not end it."""
    seen = answers(9.0, 9.9, 10.7, 10.8, bad=(10.2, 10.4))
    assert round(outage_ms(seen, 10.0, 11.0)) == 800


def test_a_gap_before_the_fault_is_not_its() -> None:
    """What was slow before does not count."""
    assert round(outage_ms(answers(1.0, 9.9, 10.0, 10.1), 10.0, 10.2)) == 100


def test_an_outage_that_never_ends_lasts_as_long_as_was_watched() -> None:
    """Nobody can say more."""
    assert round(outage_ms(answers(9.9), 10.0, 12.0)) == 2100
    assert round(outage_ms([], 10.0, 12.0)) == 2000


def test_answers_come_in_any_order() -> None:
    """A slow request ends after one that was made later."""
    assert round(outage_ms(answers(10.3, 9.9, 10.1), 10.0, 10.4)) == 200


def test_times_count_from_the_fault() -> None:
    """And are put in order."""
    late, early = (Event(at_s=at_s, node="master", level="info", name="x") for at_s in (7.5, 6.0))
    assert [event.at_s for event in shifted([late, early], 7.0)] == [-1.0, 0.5]


def test_the_spans_of_a_node_with_the_vip() -> None:
    """What it still holds ends with the watching; another node's are not its."""
    holdings = [
        Holding(at_s=0.0, node="master", held=True),
        Holding(at_s=0.5, node="master", held=True),
        Holding(at_s=1.0, node="backup", held=True),
        Holding(at_s=2.0, node="master", held=False),
        Holding(at_s=3.0, node="master", held=True),
    ]
    assert list(spans(holdings, "master", 4.0)) == [(0.0, 2.0), (3.0, 4.0)]


def test_how_long_two_nodes_held_the_vip_at_once() -> None:
    """The longest time that they shared after the fault; handing it over shares nothing."""
    handed_over = finding().holdings
    assert longest_shared_s(handed_over, 0.0, 9.0) <= 0.0
    left_behind = [
        Holding(at_s=-4.0, node="master", held=True),
        Holding(at_s=-2.0, node="backup", held=True),
        Holding(at_s=0.5, node="backup", held=False),
        Holding(at_s=1.0, node="backup", held=True),
        Holding(at_s=1.25, node="master", held=False),
    ]
    assert longest_shared_s(left_behind, 0.0, 9.0) == 0.5
    assert longest_shared_s(left_behind[:2], 0.0, 9.0) == 9.0
    assert longest_shared_s([], 0.0, 9.0) == 0.0


def test_what_fails_while_the_vip_moves_is_told_apart() -> None:
    """A request that was under way, or came a moment later, and one that had no such excuse."""
    moved = [Holding(at_s=1.0, node="master", held=False)]

    def failed(begun_s: float, ended_s: float) -> int:
        took_ms = (ended_s - begun_s) * 1000
        return len(failed_apart([Answer(at_s=ended_s, took_ms=took_ms, good=False)], moved))

    assert (failed(0.99, 1.24), failed(1.01, 1.26), failed(0.98, 0.99)) == (0, 0, 0)
    assert (failed(0.7, 0.95), failed(1.1, 1.35)) == (1, 1)
    assert not failed_apart(answers(0.5, 1.5), moved)


def test_an_event_is_known_by_its_name_and_its_first_words() -> None:
    """Whole words, so that one name is not the beginning of another."""
    event = Event(at_s=0, node="master", level="info", name="check.down", text="check=rivals a=b")
    assert event.says("check.down")
    assert event.says("check.down check=rivals")
    assert not event.says("check")
    assert not event.says("check.down check=vrrp")


def test_a_finding_survives_json() -> None:
    """The world tells the command of it in JSON."""
    before = finding()
    assert Finding.from_json(json.loads(json.dumps(before.to_json()))) == before
