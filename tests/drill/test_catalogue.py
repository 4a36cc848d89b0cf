"""The declared faults: complete, distinct, honest."""

from __future__ import annotations

import pytest

from sentinel.drill.catalogue import CATALOGUE, QUICK, chosen
from sentinel.drill.faults import Fault, Vip

MASTER, BACKUP, BOTH = frozenset({"master"}), frozenset({"backup"}), frozenset({"master", "backup"})


def test_names_are_distinct_and_fit_the_list() -> None:
    """They are typed after --only."""
    names = [fault.name for fault in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and " " not in name and len(name) < 28 for name in names)


@pytest.mark.parametrize("fault", CATALOGUE, ids=lambda fault: fault.name)
def test_a_fault_contradicts_itself_nowhere(fault: Fault) -> None:
    """What must be said may not be forbidden, and what may not move the VIP keeps it at home."""
    assert not set(fault.told) & set(fault.untold)
    if not fault.moves_vip and fault.meanwhile is not None:
        assert fault.meanwhile.vip is Vip.HOME
    assert fault.end.vip is Vip.HOME
    assert fault.end.served
    assert fault.expected.startswith(("meanwhile: ", "in the end: "))


def test_faults_are_chosen_in_the_order_of_the_catalogue() -> None:
    """None chosen means all."""
    assert chosen(()) == CATALOGUE
    assert [fault.name for fault in chosen(QUICK[::-1])] == list(QUICK)


def test_where_the_vip_must_be() -> None:
    """Of all places and holders."""
    holders = (frozenset[str](), MASTER, BACKUP, BOTH)

    def truth(vip: Vip, *, nopreempt: bool = False) -> list[bool]:
        return [vip.holds(names, nopreempt=nopreempt) for names in holders]

    assert truth(Vip.HOME) == [False, True, False, False]
    assert truth(Vip.HOME, nopreempt=True) == [False, True, True, False]
    assert truth(Vip.PEER) == [False, False, True, False]
    assert truth(Vip.BOTH) == [False, False, False, True]
