"""What keepalived claims, put together from lines and dumps that come in any order."""

from __future__ import annotations

from sentinel.vrrp import Claim, VrrpInstance, VrrpState
from sentinel.vrrpstate.claims import INSTANCES_MAX, Claims
from sentinel.vrrpstate.dump import Level
from sentinel.vrrpstate.fifo import Notice, parse


def said(line: str) -> Notice:
    """Read a line that is known to be good."""
    notice = parse(line.encode())
    assert notice is not None
    return notice


def level(state: VrrpState, priority: int = 150, name: str = "VI_1") -> Level:
    """Make what a dump says of one instance."""
    return Level(name=name, state=state, priority=priority, vips=frozenset())


def test_nothing_is_claimed_before_anything_was_heard() -> None:
    """None is not the same as BACKUP."""
    assert Claims().of("VI_1", 0.0) is None


def test_a_line_makes_a_claim() -> None:
    """With the moment it was heard, and by whom."""
    claims = Claims()
    claims.hear(said('INSTANCE "VI_1" MASTER 150'), (), 7.0)
    expected = Claim(state=VrrpState.MASTER, since_s=7.0, priority=150, source="FIFO")
    assert claims.of("VI_1", 0.0) == expected


def test_the_same_state_goes_on_and_its_priority_changes() -> None:
    """A dump or another line confirms it: it is as old as it was."""
    claims = Claims()
    claims.hear(said('INSTANCE "VI_1" MASTER 150'), (), 7.0)
    claims.hear(said('INSTANCE "VI_1" MASTER_PRIORITY 148'), (), 8.0)
    claims.learn([level(VrrpState.MASTER, 146)], 9.0)
    expected = Claim(state=VrrpState.MASTER, since_s=7.0, priority=146, source="JSON")
    assert claims.of("VI_1", 0.0) == expected


def test_a_dump_mends_a_lost_line() -> None:
    """The FIFO was full, or made anew."""
    claims = Claims()
    claims.hear(said('INSTANCE "VI_1" MASTER 150'), (), 7.0)
    claims.learn([level(VrrpState.BACKUP)], 9.0)
    claim = claims.of("VI_1", 0.0)
    assert claim is not None
    assert (claim.state, claim.since_s) == (VrrpState.BACKUP, 9.0)


def test_a_line_is_newer_than_the_dump_that_was_asked_for_before() -> None:
    """It was written while keepalived's answer was under way."""
    claims = Claims()
    claims.hear(said('INSTANCE "VI_1" MASTER 150'), (), 9.1)
    claims.learn([level(VrrpState.BACKUP), level(VrrpState.FAULT, name="VI_2")], 9.0)
    states = [claims.of(name, 0.0) for name in ("VI_1", "VI_2")]
    assert [claim and claim.state for claim in states] == [VrrpState.MASTER, VrrpState.FAULT]


def test_a_group_speaks_for_its_members() -> None:
    """And for nobody else; what their priorities are it does not say."""
    claims = Claims()
    members = (VrrpInstance(name="VI_1", group="VG"), VrrpInstance(name="VI_2", group="VG"))
    claims.hear(said('INSTANCE "VI_1" BACKUP 150'), members, 6.0)
    claims.hear(said('GROUP "VG" MASTER 0'), (*members, VrrpInstance(name="VI_3")), 7.0)
    first, second = claims.of("VI_1", 0.0), claims.of("VI_2", 0.0)
    assert first == Claim(state=VrrpState.MASTER, since_s=7.0, priority=150, source="FIFO")
    assert second == Claim(state=VrrpState.MASTER, since_s=7.0, priority=None, source="FIFO")
    assert claims.of("VI_3", 0.0) is None
    assert claims.of("VG", 0.0) is None


def test_what_a_dead_keepalived_said_counts_no_more() -> None:
    """Its successor has not yet spoken, or says the same as of now."""
    claims = Claims()
    claims.hear(said('INSTANCE "VI_1" MASTER 150'), (), 7.0)
    assert claims.of("VI_1", 8.0) is None
    claims.hear(said('INSTANCE "VI_1" MASTER 150'), (), 9.0)
    claim = claims.of("VI_1", 8.0)
    assert claim is not None
    assert claim.since_s == 8.0


def test_names_without_end_are_bounded() -> None:
    """Those that are known are still heard."""
    claims = Claims()
    for number in range(INSTANCES_MAX + 1):
        claims.hear(said(f'INSTANCE "VI_{number}" BACKUP 1'), (), 1.0)
    claims.hear(said('INSTANCE "VI_0" MASTER 1'), (), 2.0)
    first, last = claims.of("VI_0", 0.0), claims.of(f"VI_{INSTANCES_MAX}", 0.0)
    assert first is not None
    assert first.state is VrrpState.MASTER
    assert last is None
