"""Users where not every id exists."""

from __future__ import annotations

from pathlib import Path

from sentinel.drill.users import exists, only_existing

EVERY_ID = "         0          0 4294967295\n"
ONE_ID = "         0       1000          1\n"
EVERYBODY = "root:x:0:0::/root:/bin/sh\nhaproxy:x:103:106::/var/lib/haproxy:/usr/sbin/nologin\n"


def test_an_id_exists_within_a_range() -> None:
    """Of any line of the map."""
    assert exists(103, EVERY_ID)
    assert exists(0, ONE_ID)
    assert not exists(1, ONE_ID)
    assert exists(100, f"{ONE_ID}1 100000 100\n")
    assert not exists(101, f"{ONE_ID}1 100000 100\n")


def test_who_has_no_id_is_root_by_another_name() -> None:
    """User and group of passwd, each by its own map."""
    assert only_existing(EVERYBODY, ONE_ID, ONE_ID) == EVERYBODY.replace("103:106", "0:0")
    assert only_existing(EVERYBODY, EVERY_ID, ONE_ID) == EVERYBODY.replace("103:106", "103:0")
    assert only_existing("haproxy:x:106:\n", ONE_ID) == "haproxy:x:0:\n"


def test_where_every_id_exists_nothing_changes() -> None:
    """As for root itself, who takes the same way; nor does what is no user."""
    odd = "+::::::\n\n# nobody\nbroken:x\n"
    assert only_existing(odd, ONE_ID, ONE_ID) == odd
    for text in (EVERYBODY, Path("/etc/passwd").read_text()):
        assert only_existing(text, EVERY_ID, EVERY_ID) == text
