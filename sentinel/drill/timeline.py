"""One fault as an SVG timeline: who held the VIP, every request, what sentinel said. Pure.

The drawing knows no colour: classes name what a thing is, and the page's style sheet paints them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import log10
from typing import Final

from sentinel.drill.plan import BACKUP, MASTER
from sentinel.drill.records import Answer, Event, Finding, spans

WIDTH: Final = 1080
_LEFT: Final = 92
_RIGHT: Final = 14
_LANE: Final = 16
_PLOT: Final = 84
_ROW: Final = 17
_ROWS_MAX: Final = 9
_GLYPH: Final = 6.1  # width of a character of the labels
#: The slowest answer that the client waits for, and the quickest worth telling apart.
_MS_MAX: Final = 250.0
_MS_MIN: Final = 0.5
_TICKS_MAX: Final = 12
_STEPS_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_TOLD: Final = ("haproxy.", "configuration.", "keepalived", "sentinel.", "hook.", "vip.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Seconds to horizontal positions."""

    begun_s: float
    ended_s: float

    def x(self, at_s: float) -> float:
        """Return where a moment is, clamped to the drawing."""
        part = (at_s - self.begun_s) / max(self.ended_s - self.begun_s, 0.001)
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * min(max(part, 0.0), 1.0), 1)

    def ticks(self) -> Iterator[float]:
        """Yield round moments, a dozen at the most."""
        length_s = self.ended_s - self.begun_s
        step_s = next((s for s in _STEPS_S if length_s / s <= _TICKS_MAX), _STEPS_S[-1])
        number = int(self.begun_s / step_s)
        while number * step_s <= self.ended_s:
            yield round(number * step_s, 3)
            number += 1


def draw(finding: Finding) -> str:
    """Return the drawing of one fault."""
    scale = _Scale(begun_s=finding.begun_s, ended_s=max(finding.ended_s, 0.1))
    lanes_y, plot_y = 24, 24 + 2 * (_LANE + 6) + 10
    labels_y = plot_y + _PLOT + 26
    labels, rows = _labels(finding, scale, labels_y)
    height = labels_y + max(rows, 1) * _ROW + 6
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(finding.fault)}">',
        *_grid(scale, plot_y),
        *_lanes(finding, scale, lanes_y),
        *_requests(finding, scale, plot_y),
        *labels,
        *_marks(finding, scale, height),
        "</svg>",
    ]
    return "\n".join(parts)


def _grid(scale: _Scale, plot_y: int) -> Iterator[str]:
    bottom = plot_y + _PLOT
    for at_s in scale.ticks():
        x = scale.x(at_s)
        yield f'<path class="grid" d="M{x} 18V{bottom}"/>'
        yield f'<text class="tick" x="{x}" y="{bottom + 14}">{at_s:g} s</text>'
    for ms in (1, 10, 100):
        y = _y(ms, plot_y)
        yield f'<path class="grid" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>'
        yield f'<text class="side small" x="{_LEFT - 8}" y="{y + 3.5}">{ms} ms</text>'


def _lanes(finding: Finding, scale: _Scale, top: int) -> Iterator[str]:
    for number, node in enumerate((MASTER, BACKUP)):
        y = top + number * (_LANE + 6)
        yield f'<text class="side" x="{_LEFT - 8}" y="{y + 12}">VIP {node}</text>'
        yield (
            f'<rect class="lane" x="{_LEFT}" y="{y}" width="{WIDTH - _LEFT - _RIGHT}"'
            f' height="{_LANE}" rx="3"/>'
        )
        for since_s, until_s in spans(finding.holdings, node, finding.ended_s):
            if until_s >= finding.begun_s:
                x = scale.x(since_s)
                width = max(scale.x(until_s) - x, 1.5)
                yield (
                    f'<rect class="{node}" x="{x}" y="{y}" width="{width:.1f}"'
                    f' height="{_LANE}" rx="3"><title>{node} holds the VIP from {since_s:.3f} s'
                    f" to {until_s:.3f} s</title></rect>"
                )


def _requests(finding: Finding, scale: _Scale, top: int) -> Iterator[str]:
    """Draw every request as a dot as high as it took long; a failed one as a stroke on top."""
    good = [answer for answer in finding.answers if answer.good]
    bad = [answer for answer in finding.answers if not answer.good]
    gap = _longest_gap(good, finding)
    if gap is not None:
        x, end = scale.x(gap[0]), scale.x(gap[1])
        yield (
            f'<rect class="outage" x="{x}" y="{top}" width="{max(end - x, 1.0):.1f}"'
            f' height="{_PLOT}"><title>outage {finding.outage_ms:.0f} ms</title></rect>'
        )
    dots = "".join(f"M{scale.x(a.at_s)} {_y(a.took_ms, top)}h0" for a in good)
    strokes = "".join(f"M{scale.x(a.at_s)} {top}v9" for a in bad)
    yield f'<text class="side" x="{_LEFT - 8}" y="{top + 8}">requests</text>'
    yield f'<path class="good" d="{dots}"/>'
    yield f'<path class="bad" d="{strokes}"/>'


def _longest_gap(good: Sequence[Answer], finding: Finding) -> tuple[float, float] | None:
    """Return the gap that makes the outage, as records.outage_ms counts it."""
    times_s = sorted(answer.at_s for answer in good)
    before_s = [at_s for at_s in times_s if at_s < 0]
    times_s = [*(before_s[-1:] or [0.0]), *(a for a in times_s if a >= 0), finding.ended_s]
    return max(pairwise(times_s), key=lambda gap: gap[1] - gap[0], default=None)


def _y(ms: float, top: int) -> float:
    """Return how high a time lies: logarithmic, quick answers at the bottom."""
    part = log10(min(max(ms, _MS_MIN), _MS_MAX) / _MS_MIN) / log10(_MS_MAX / _MS_MIN)
    return round(top + 12 + (_PLOT - 14) * (1 - part), 1)


def _labels(finding: Finding, scale: _Scale, top: int) -> tuple[list[str], int]:
    """Write sentinel's and keepalived's events, each in the first row where it has room."""
    ends: list[float] = []
    drawn: list[str] = [f'<text class="side" x="{_LEFT - 8}" y="{top + 11}">events</text>']
    for event in finding.events:
        if not event.name.startswith(_TOLD) or event.at_s < finding.begun_s:
            continue
        text = _words(event)
        x, width = scale.x(event.at_s), 14 + len(text) * _GLYPH
        left = x if x + width <= WIDTH else x - width
        row = next((row for row, end in enumerate(ends) if end <= min(left, x)), len(ends))
        if row >= _ROWS_MAX:
            continue
        ends[row:] = [*([max(left + width, x) + 4]), *ends[row + 1 :]]
        drawn.append(_label(event, text, x, top + row * _ROW, left))
    return drawn, len(ends)


def _label(event: Event, text: str, x: float, y: float, left: float) -> str:
    anchor = "start" if left == x else "end"
    at = x + 9 if left == x else x - 9
    title = escape(f"{event.at_s:.3f} s {event.node} {event.name} {event.text}")
    return (
        f'<g class="event {event.node} {escape(event.level)}"><title>{title}</title>'
        f'<path class="stem" d="M{x} {y + 2}v10"/><circle cx="{x}" cy="{y + 7}" r="3.5"/>'
        f'<text x="{at}" y="{y + 11}" text-anchor="{anchor}">{escape(text)}</text></g>'
    )


def _words(event: Event) -> str:
    if event.name == "keepalived":
        return f"VRRP {event.text.partition('Entering ')[2].partition(' STATE')[0]}"
    return event.name


def _marks(finding: Finding, scale: _Scale, height: int) -> Iterator[str]:
    end = -1000.0
    for number, mark in enumerate(finding.marks):
        x = scale.x(mark.at_s)
        text = "fault" if number == 0 else mark.text
        yield f'<path class="mark" d="M{x} 16V{height}"/>'
        if x >= end:
            yield f'<text class="marked" x="{x + 4}" y="12">{escape(text)}</text>'
            end = x + 8 + len(text) * _GLYPH
