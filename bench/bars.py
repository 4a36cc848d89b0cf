"""What ``pair.py`` found, as bars: one for every contestant, on a logarithmic axis. Pure.

The drawing is one SVG file that needs nothing else; it is light or dark as its reader is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from math import log10
from statistics import median
from typing import Final

from contestants import PAIRS, Contestant, contestants
from report import Report
from trial import WATCH_S

WIDTH: Final = 1080
_LABELS: Final = 150
_GAP: Final = 26
_PANEL: Final = (WIDTH - _LABELS - _GAP) / 2
#: Room behind the longest bar for its figure.
_FIGURE: Final = 74
_BAR: Final = 11
_STEP: Final = 15
_TITLE: Final = 22
_TOP: Final = 66
_MS_MIN: Final = 5.0
_MS_MAX: Final = WATCH_S * 1000
_TICKS: Final = {10: "10 ms", 100: "100 ms", 1000: "1 s", 10000: "10 s"}
_STYLE: Final = """
text { font: 12px/1.2 system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1c2024 }
.paper { fill: #fbfaf7 } .grid { stroke: #e3e0d8 } .soft { fill: #697077; font-size: 11px }
.head { font-size: 17px; font-weight: 650 } .group { font-size: 13px; font-weight: 600 }
.peer { fill: #a9b0b8 } .ours { fill: #2a66c8 } .whisker { stroke: #1c2024; opacity: .55 }
.name { text-anchor: end; font-size: 11px } .tick { text-anchor: middle }
.figure { font-size: 11px } text.peer { fill: #4a5057 }
text.ours { fill: #2a66c8; font-weight: 650 }
@media (prefers-color-scheme: dark) {
  text { fill: #e7e9ec } .paper { fill: #14171b } .grid { stroke: #2b313a } .soft { fill: #98a0aa }
  .peer { fill: #59626d } text.peer { fill: #c3c8ce } .ours, text.ours { fill: #6ea3ff }
  .whisker { stroke: #e7e9ec }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Bars that belong together: one fault, and which figures tell it, the greatest of them.

    *ours* is what sentinel has for it where that is another fault of ``trial.py``.
    """

    title: str
    fault: str
    figures: tuple[str, ...] = ("outage_ms",)
    ours: str = ""

    def samples(self, report: Report, pair: str, contestant: Contestant) -> list[float]:
        """Return the bar's samples in ms; what never ended is as long as was watched."""
        fault = self.ours if self.ours and contestant.is_sentinel else self.fault
        name = f"{fault}/{pair}/{contestant.name}"
        figures = [report.samples.get(f"{name}/{figure}", []) for figure in self.figures]
        settled = report.samples.get(f"{name}/settled", [])
        worst = map(max, zip(*figures, strict=True))
        return [ms if ok else _MS_MAX for ms, ok in zip(worst, settled, strict=True)]


GROUPS: Final = (
    Group(title="HAProxy killed: outage", fault="crash"),
    Group(title="HAProxy killed, configuration broken: outage", fault="broken"),
    Group(title="HAProxy hangs: outage", fault="hang"),
    Group(
        title="planned hand-over (keepalived stopped; sentinel stepdown): outage",
        fault="stop",
        ours="stepdown",
    ),
    Group(
        title="keepalived killed: VIP on two nodes, or outage",
        fault="killed",
        figures=("shared_ms", "outage_ms"),
    ),
    Group(title="power cut: outage", fault="power"),
    Group(title="cable pulled: outage", fault="cable"),
)


def draw(report: Report) -> str:
    """Return the drawing of a report of ``pair.py``."""
    competing = [each for each in contestants() if not each.unfit]
    rows = [each for each in competing if not each.is_variant]
    step = _TITLE + len(rows) * _STEP + 10
    height = _TOP + len(GROUPS) * step + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Outages of a pair by fault and by what watches it</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="10"/>',
    ]
    for number, pair in enumerate(PAIRS):
        left = _LABELS + number * (_PANEL + _GAP)
        parts += _axis(left, height, pair)
        for place, group in enumerate(GROUPS):
            top = _TOP + place * step
            if number == 0:
                parts.append(f'<text class="group" x="16" y="{top + 14}">{group.title}</text>')
            for row, contestant in enumerate(rows):
                y = top + _TITLE + row * _STEP
                if number == 0:
                    parts.append(_name(contestant, y))
                parts += _bar(group.samples(report, pair, contestant), contestant, left, y)
    return "\n".join([*parts, "</svg>", ""])


def _axis(left: float, height: int, pair: str) -> Iterator[str]:
    title = {"classic": "classic pair: VRRPv2, 1 s", "fast": "fast pair: VRRPv3, 0.1 s"}[pair]
    yield f'<text class="head" x="{left:.0f}" y="28">{title}</text>'
    for ms, text in _TICKS.items():
        x = left + _width(ms)
        yield f'<path class="grid" d="M{x:.1f} 56V{height - 26}"/>'
        yield f'<text class="soft tick" x="{x:.1f}" y="50">{text}</text>'
        yield f'<text class="soft tick" x="{x:.1f}" y="{height - 12}">{text}</text>'


def _name(contestant: Contestant, y: float) -> str:
    ours = " ours" if contestant.is_sentinel else ""
    title = escape(contestant.title)
    return f'<text class="name{ours}" x="{_LABELS - 8}" y="{y + 9.5}">{title}</text>'


def _bar(found: list[float], contestant: Contestant, left: float, y: float) -> Iterator[str]:
    """Draw the median as a bar and as a figure, and a whisker from the least to the greatest."""
    if not found:
        return
    kind = "ours" if contestant.is_sentinel else "peer"
    middle, low, high = median(found), min(found), max(found)
    yield (
        f'<rect class="{kind}" x="{left:.1f}" y="{y}" width="{_width(middle):.1f}"'
        f' height="{_BAR}" rx="2"/>'
    )
    yield (
        f'<path class="whisker" d="M{left + _width(low):.1f} {y + _BAR / 2}'
        f'H{left + _width(high):.1f}"/>'
    )
    x = left + max(_width(middle), _width(high)) + 6
    yield f'<text class="figure {kind}" x="{x:.1f}" y="{y + 9.5}">{_words(middle)}</text>'


def _width(ms: float) -> float:
    part = log10(max(min(ms, _MS_MAX), _MS_MIN) / _MS_MIN) / log10(_MS_MAX / _MS_MIN)
    return max(part * (_PANEL - _FIGURE), 1.5)


def _words(ms: float) -> str:
    if ms >= 0.99 * _MS_MAX:
        return "never"
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"
