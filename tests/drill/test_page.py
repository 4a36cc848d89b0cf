"""The report: one page that says all, whatever was found."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from drillings import finding

from sentinel.drill.page import duration, render
from sentinel.drill.records import Event, Finding, Outcome
from sentinel.drill.timeline import draw


def page(*findings: object, notes: tuple[str, ...] = ()) -> str:
    """Return the page of these findings."""
    return render([f for f in findings if isinstance(f, type(finding()))], "drill", "now", notes)


def texts(svg: str) -> list[str]:
    """Return what is written in a drawing, which must be well-formed."""
    return [element.text or "" for element in ET.fromstring(svg).iter("text")]  # noqa: S314  (ours)


def test_it_needs_nothing_from_elsewhere() -> None:
    """It can be mailed, and pasted into a post-mortem."""
    made = page(finding())
    assert not re.search(r"""(?:src|href)=(?!"#)""", made)
    assert "url(" not in made
    assert "prefers-color-scheme: dark" in made


def test_what_was_said_is_escaped() -> None:
    """A log line is no markup."""
    made = page(finding(title="<b>", reasons=("<i>",), outcome=Outcome.MISSED), notes=("<u>",))
    assert "reason=&lt;killed&gt;" in made
    assert not {"<killed>", "<i>", "<u>"} & set(re.findall(r"<\w+>", made))


def test_what_was_not_as_expected_is_said_first() -> None:
    """With the reason, and not as a success."""
    made = page(finding(outcome=Outcome.MISSED, reasons=("clients are not served",)))
    assert '<p class="reason missed">clients are not served</p>' in made
    assert '<span class="badge ok">' not in made
    assert "as expected</span>" in page(finding())


def test_a_fault_that_was_skipped_has_no_figures() -> None:
    """The reason alone, and no drawing of nothing."""
    made = page(Finding.skipped("clock-stepped", "the clock jumps", "there is no libfaketime"))
    assert '<p class="reason skipped">there is no libfaketime</p>' in made
    assert "<svg" not in made
    assert "outage" not in made.partition('<section class="fault"')[2]


def test_the_timeline_shows_lanes_requests_and_events() -> None:
    """Every holder, every failed request, and both programs' words."""
    svg = draw(finding())
    assert {"VIP master", "VIP backup", "haproxy.died", "VRRP MASTER", "fault"} <= set(texts(svg))
    assert svg.count('<rect class="master"') == 2
    assert svg.count('<rect class="backup"') == 1
    assert svg.count('class="outage"') == 1
    (bad,) = re.findall(r'<path class="bad" d="([^"]*)"', svg)
    assert bad.count("M") == 1


def test_a_drawing_of_nothing_is_a_drawing() -> None:
    """A fault before which no client was ever answered."""
    svg = draw(finding(answers=(), holdings=(), events=(), marks=(), ended_s=0.0))
    assert "VIP master" in texts(svg)


def test_many_events_do_not_make_it_endless() -> None:
    """What finds no room is in the table below the drawing."""
    many = tuple(
        Event(at_s=0.5, node="master", level="info", name=f"haproxy.seen{number}")
        for number in range(100)
    )
    svg = draw(finding(events=many))
    assert 1 < svg.count('<g class="event') < 20
    assert page(finding(events=many)).count("<td>haproxy.seen") == 100


def test_durations_read_well() -> None:
    """Milliseconds below a second."""
    assert [duration(ms) for ms in (0.4, 28.2, 999.0, 2390.0)] == [
        "0 ms",
        "28 ms",
        "999 ms",
        "2.39 s",
    ]
