"""When somebody who was seen counts as a rival, and when he has gone."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sentinel.neighbours.sightings import RIVALS_MAX, Sightings
from sentinel.vrrp import Rival

OTHER = Rival(how="ARP", address="192.0.2.1", mac="02:00:00:00:00:02")
SPEAKER = Rival(how="VRRP", address="192.0.2.7", mac="02:00:00:00:00:02", priority=250)


def test_nobody_is_a_rival_at_first_sight() -> None:
    """It may be the moment of a hand-over."""
    seen = Sightings(advert_int_s=1.0)
    assert seen.note(OTHER, 10.0)
    assert seen.suspects == (OTHER,)
    assert not seen.rivals


def test_seen_again_an_interval_and_a_second_later_he_counts() -> None:
    """Sooner it is the last of one who is giving up."""
    seen = Sightings(advert_int_s=1.0)
    seen.note(OTHER, 10.0)
    assert not seen.note(OTHER, 11.9)
    assert not seen.rivals
    assert seen.note(OTHER, 12.0)
    assert seen.rivals == (OTHER,)
    assert not seen.note(OTHER, 13.0), "no news any more"


def test_the_wait_follows_the_advert_interval() -> None:
    """Ten seconds between adverts are ten seconds in which a hand-over may be under way."""
    seen = Sightings(advert_int_s=10.0)
    seen.note(OTHER, 0.0)
    seen.note(OTHER, 10.9)
    assert not seen.rivals
    seen.note(OTHER, 11.0)
    assert seen.rivals == (OTHER,)


def test_one_lost_answer_is_not_the_end_of_a_rival() -> None:
    """It takes the silence that makes keepalived believe that a MASTER is dead."""
    seen = Sightings(advert_int_s=1.0)
    seen.note(OTHER, 0.0)
    seen.note(OTHER, 2.0)
    seen.forget(6.0)
    assert seen.rivals == (OTHER,)
    seen.forget(6.1)
    assert not seen.rivals
    assert not seen.suspects


def test_who_comes_back_later_begins_anew() -> None:
    """Two hand-overs are not a split brain."""
    seen = Sightings(advert_int_s=1.0)
    seen.note(OTHER, 0.0)
    seen.forget(100.0)
    seen.note(OTHER, 100.0)
    assert not seen.rivals


def test_a_changed_priority_is_not_another_machine() -> None:
    """The last one said is kept."""
    seen = Sightings(advert_int_s=1.0)
    seen.note(SPEAKER, 0.0)
    better = replace(SPEAKER, priority=254)
    seen.note(better, 2.0)
    assert seen.rivals == (better,)


@given(st.integers(0, 200))
def test_what_is_remembered_is_bounded(count: int) -> None:
    """Anybody on the wire can make machines up."""
    seen = Sightings(advert_int_s=1.0)
    for number in range(count):
        seen.note(replace(SPEAKER, address=f"192.0.2.{number}"), 0.0)
    assert len(seen.suspects) == min(count, RIVALS_MAX)
