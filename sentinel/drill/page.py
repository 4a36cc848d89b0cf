"""The report as one self-contained page: an overview, then a timeline for each fault. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import log10
from typing import Final

from sentinel.drill.records import Event, Finding, Outcome
from sentinel.drill.style import STYLE
from sentinel.drill.timeline import draw

_BADGES: Final = {
    Outcome.REACHED: ("ok", "as expected"),
    Outcome.MISSED: ("missed", "not as expected"),
    Outcome.SKIPPED: ("skipped", "not tried"),
}
#: The overview's bars are logarithmic, from one request's distance to a minute.
_BAR_MS_MIN: Final = 10.0
_BAR_MS_MAX: Final = 60_000.0


def render(findings: Sequence[Finding], title: str, made: str, notes: Sequence[str]) -> str:
    """Return the page; *made* says when and with what, *notes* what differs from a real site."""
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>",
            f"<header><h1>{escape(title)}</h1><p class='made'>{escape(made)}</p></header>",
            *_totals(findings),
            *_overview(findings),
            *_key(),
            *(part for finding in findings for part in _fault(finding)),
            *_notes(notes),
            "</main></body></html>",
            "",
        )
    )


def _totals(findings: Sequence[Finding]) -> Iterator[str]:
    count = {outcome: sum(f.outcome is outcome for f in findings) for outcome in Outcome}
    yield '<section class="totals">'
    for outcome, number in count.items():
        name, words = _BADGES[outcome]
        if number or outcome is Outcome.REACHED:
            yield f'<div class="total {name}"><b>{number}</b><span>{words}</span></div>'
    requests = sum(finding.requests for finding in findings)
    failed = sum(finding.failed for finding in findings)
    yield f'<div class="total"><b>{requests:,}</b><span>requests, {failed:,} failed</span></div>'
    yield "</section>"


def _overview(findings: Sequence[Finding]) -> Iterator[str]:
    yield '<div class="scroll"><table class="overview"><thead><tr><th>fault<th>end'
    yield '<th class="wide">longest gap between good answers'
    yield '<th class="number">failed<th class="number">slowest</tr></thead><tbody>'
    for finding in findings:
        name, words = _BADGES[finding.outcome]
        if finding.outcome is Outcome.SKIPPED:
            yield f'<tr><td><a href="#{finding.fault}">{escape(finding.fault)}</a>'
            yield f'<td><span class="badge {name}">{words}</span><td colspan="3"></tr>'
            continue
        yield (
            f'<tr><td><a href="#{finding.fault}">{escape(finding.fault)}</a>'
            f'<td><span class="badge {name}">{words}</span>'
            f'<td class="wide"><span class="bar" style="width:{_bar(finding.outage_ms):.1f}%">'
            f"</span><span>{duration(finding.outage_ms)}</span>"
            f'<td class="number">{finding.failed:,} of {finding.requests:,}'
            f'<td class="number">{duration(finding.slowest_ms)}</tr>'
        )
    yield "</tbody></table></div>"


def _bar(ms: float) -> float:
    part = log10(min(max(ms, _BAR_MS_MIN), _BAR_MS_MAX) / _BAR_MS_MIN)
    return 2 + 68 * part / log10(_BAR_MS_MAX / _BAR_MS_MIN)


def duration(ms: float) -> str:
    """Write a duration as people say it: milliseconds below a second."""
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"  # noqa: PLR2004  (a second)


def _key() -> Iterator[str]:
    yield '<p class="key"><span class="swatch master"></span>VIP or event of the master'
    yield '<span class="swatch backup"></span>of the backup'
    yield '<span class="swatch good"></span>a good answer, as high as it took long'
    yield '<span class="swatch bad"></span>a failed request'
    yield '<span class="swatch outage"></span>the outage</p>'


def _fault(finding: Finding) -> Iterator[str]:
    name, words = _BADGES[finding.outcome]
    yield f'<section class="fault" id="{finding.fault}">'
    yield f'<h2>{escape(finding.title)} <span class="badge {name}">{words}</span></h2>'
    if finding.outcome is Outcome.SKIPPED:
        yield f'<p class="reason {name}">{escape(" ".join(finding.reasons))}</p></section>'
        return
    yield '<p class="figures">'
    usual = duration(finding.usual_ms)
    yield f"<span>outage <b>{duration(finding.outage_ms)}</b>, usual gap {usual}</span>"
    yield f"<span>failed <b>{finding.failed:,}</b> of {finding.requests:,} requests</span>"
    yield f"<span>slowest good answer <b>{duration(finding.slowest_ms)}</b></span></p>"
    for reason in finding.reasons:
        yield f'<p class="reason {name}">{escape(reason)}</p>'
    yield f'<div class="scroll">{draw(finding)}</div>'
    yield f'<p class="expected"><b>Expected</b> {escape(finding.expected)}.</p>'
    yield "<details><summary>Everything that was said</summary><table>"
    yield from (_row(event) for event in finding.events)
    yield "</table></details></section>"


def _row(event: Event) -> str:
    return (
        f'<tr class="{escape(event.level)}"><td class="number">{event.at_s:.3f} s'
        f'<td><span class="swatch {event.node}"></span>{event.node}'
        f"<td>{escape(event.name)}<td>{escape(event.text)}</tr>"
    )


def _notes(notes: Sequence[str]) -> Iterator[str]:
    yield '<section class="notes"><h2>What differs from your site</h2><ul>'
    yield from (f"<li>{escape(note)}" for note in notes)
    yield "</ul></section>"
