"""The report's style sheet: light and dark, on a screen and on paper."""

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1c2024; --soft: #697077; --line: #e6e3dc;
  --lane: #f0eee8; --master: #2a66c8; --backup: #b26a00; --good: #2f9467; --bad: #cf2e3d;
  --outage: rgba(207, 46, 61, .13); --ok: #23734f; --caution: #8a5a00; --missed: #b4202f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --card: #1b1f25; --ink: #e7e9ec; --soft: #98a0aa; --line: #2b313a;
    --lane: #232932; --master: #6ea3ff; --backup: #f0ac4c; --good: #4fc594; --bad: #ff6b78;
    --outage: rgba(255, 107, 120, .18); --ok: #5fd0a0; --caution: #f0b65c; --missed: #ff7d88;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 64px }
h1 { font-size: 30px; line-height: 1.2; margin: 0; letter-spacing: -.02em }
h2 { font-size: 18px; line-height: 1.3; margin: 0; letter-spacing: -.01em }
.made { margin: 6px 0 0; color: var(--soft) }
.totals { display: flex; flex-wrap: wrap; gap: 12px; margin: 26px 0 22px }
.total { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 10px 18px 12px; min-width: 130px }
.total b { display: block; font-size: 26px; line-height: 1.2; font-weight: 650 }
.total span { color: var(--soft); font-size: 13px }
.total.ok b { color: var(--ok) } .total.skipped b { color: var(--caution) }
.total.missed b { color: var(--missed) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th { text-align: left; font-weight: 500; font-size: 12.5px; color: var(--soft) }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: baseline }
.overview td { white-space: nowrap }
.wide { width: 46% } .number { text-align: right; white-space: nowrap }
a { color: inherit; text-decoration-color: var(--line); text-underline-offset: 3px }
a:hover { text-decoration-color: currentColor }
.bar { display: inline-block; height: 9px; border-radius: 5px; background: var(--bad);
  opacity: .75; margin-right: 9px }
.badge { display: inline-block; padding: 1px 9px; border-radius: 20px; font-size: 12px;
  font-weight: 550; letter-spacing: 0; border: 1px solid; white-space: nowrap;
  vertical-align: 2px }
.badge.ok { color: var(--ok) } .badge.skipped { color: var(--caution) }
.badge.missed { color: var(--missed) }
.key { color: var(--soft); font-size: 13px; margin: 22px 0 0 }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 3px;
  margin: 0 6px 0 18px }
.key .swatch:first-child, td .swatch { margin-left: 0 }
.swatch.master { background: var(--master) } .swatch.backup { background: var(--backup) }
.swatch.good { background: var(--good); border-radius: 50% }
.swatch.bad { background: var(--bad); width: 3px }
.swatch.outage { background: var(--outage); border: 1px solid var(--bad) }
.fault, .notes { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 20px 24px; margin-top: 18px; break-inside: avoid }
.fault:target { border-color: var(--master) }
.figures { margin: 4px 0 8px; color: var(--soft); display: flex; flex-wrap: wrap; gap: 4px 22px }
.figures b { color: var(--ink); font-weight: 600 }
.reason { margin: 4px 0; font-size: 14px }
.reason.missed { color: var(--missed) } .reason.skipped { color: var(--caution) }
.expected { margin: 8px 0 0; color: var(--soft); font-size: 13.5px }
.expected b { font-weight: 600; margin-right: 4px }
details { margin-top: 8px; font-size: 13px; color: var(--soft) }
summary { cursor: pointer }
details td { font-size: 12.5px; padding: 3px 12px 3px 0; overflow-wrap: anywhere }
details td:first-child, details td:nth-child(2), details td:nth-child(3) { white-space: nowrap }
.notes { color: var(--soft) } .notes ul { padding-left: 20px; margin: 8px 0 0 }
svg { display: block; width: 100%; min-width: 760px; margin-top: 6px }
svg text { font-size: 11px; fill: var(--soft) }
svg .side { text-anchor: end } svg .small { font-size: 9.5px }
svg .tick { text-anchor: middle; font-size: 10px }
svg .grid { stroke: var(--line); stroke-width: 1 }
svg .lane { fill: var(--lane) }
svg rect.master { fill: var(--master) } svg rect.backup { fill: var(--backup) }
svg .outage { fill: var(--outage) }
svg .good, svg .bad { fill: none; stroke-linecap: round }
svg .good { stroke: var(--good); stroke-width: 2.6; opacity: .8 }
svg .bad { stroke: var(--bad); stroke-width: 1.2; stroke-linecap: butt }
svg .mark { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 3; opacity: .55 }
svg text.marked { fill: var(--ink); font-weight: 600 }
svg .event text { fill: var(--ink) } svg .event.error text, svg .event.critical text
  { fill: var(--missed) }
svg .event.warning text { fill: var(--caution) }
svg .event.master circle { fill: var(--master) } svg .event.backup circle { fill: var(--backup) }
svg .stem { stroke: none }
@media print { details { display: none } body { background: none } }
"""
