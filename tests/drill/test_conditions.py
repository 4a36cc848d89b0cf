"""Conditional blocks of haproxy.cfg, judged by HAProxy and cut out."""

from __future__ import annotations

import pytest

from sentinel.drill.conditions import asked, settled

TEXT = """\
always
  .if one   # a comment
    a
    .if two
      b
    .else
      c
    .endif
  .elif three
    d
  .else
    e
  .endif
end"""


@pytest.mark.parametrize(
    ("true", "left"),
    [
        ({"one"}, "a c"),
        ({"one", "two"}, "a b"),
        ({"one", "three"}, "a c"),
        ({"two", "three"}, "d"),
        ({"two"}, "e"),
    ],
)
def test_one_branch_is_left(true: set[str], left: str) -> None:
    """The first that holds, and every line keeps its number."""
    found = settled(TEXT, lambda condition: condition.split()[0] in true)
    assert found.split() == ["always", *left.split(), "end"]
    assert found.split("\n").index("end") == TEXT.split("\n").index("end")


@pytest.mark.real
def test_haproxy_judges() -> None:
    """What it refuses to judge may be so; neither may a missing HAProxy end the plan."""
    holds = asked("/usr/sbin/haproxy")
    assert holds("version_atleast(1.8)")
    assert not holds("streq(a,b)")
    assert holds("nonsense(")
    assert asked("/nonexistent/haproxy")("streq(a,b)")
