"""What the witness makes of the lines that it hears."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import pytest

from sentinel.drill.records import Holding
from sentinel.drill.witness import Witness

VIP = "192.168.1.99"


def heard(words: str, age: timedelta = timedelta(0)) -> list[Holding]:
    """Return what a line that ``ip`` stamped *age* ago is taken for."""
    witness = Witness(VIP)
    stamp = (datetime.now().astimezone() - age).replace(tzinfo=None).isoformat()
    witness.hear_address("master", f"[{stamp}] {words}")
    return witness.holdings


@pytest.mark.parametrize(
    ("words", "held"),
    [
        (f"2: eth0    inet {VIP}/32 scope global eth0", True),
        (f"Deleted 2: eth0    inet {VIP}/32 scope global eth0", False),
    ],
)
def test_a_vip_comes_and_goes(words: str, *, held: bool) -> None:
    """As ``ip -o -ts monitor address`` says it."""
    (holding,) = heard(words)
    assert (holding.node, holding.held) == ("master", held)


def test_other_addresses_are_no_vips() -> None:
    """Nor one that begins as the VIP does."""
    assert not heard(f"2: eth0    inet {VIP}1/32 scope global eth0")


def test_a_line_counts_from_when_it_was_stamped() -> None:
    """Not from when it was heard: on a busy machine the client would seem to fail before a move."""
    now_s = time.monotonic()
    (holding,) = heard(f"2: eth0    inet {VIP}/32", timedelta(seconds=0.5))
    assert holding.at_s < now_s


@pytest.mark.parametrize("age", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_stamp_of_another_clock_is_not_believed(age: timedelta) -> None:
    """The machine's clock may be set while the drill runs."""
    now_s = time.monotonic()
    (holding,) = heard(f"2: eth0    inet {VIP}/32", age)
    assert holding.at_s >= now_s


def test_the_last_verdict_counts() -> None:
    """In its own words, of one or of several."""
    witness = Witness(VIP)
    lowered = '"serving, priority lowered by 50"'
    for node, change in [
        ("master", f"from=undecided to={lowered}"),
        ("backup", f"from={lowered} to=serving"),
        ("master", f"from=serving to={lowered}"),
    ]:
        line = f'2026-01-02T03:04:05Z info verdict.changed {change} reason="to=yielding"'
        witness.hear_sentinel(node, line)
    witness.hear_sentinel("backup", "2026-01-02T03:04:05Z info vip.left to=yielding")
    assert witness.verdicts() == {
        "master": "serving, priority lowered by 50",
        "backup": "serving",
    }
