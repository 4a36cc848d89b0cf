"""Every fault of ``sentinel drill``, again and again on both shipped pairs, ends as stated.

    python bench/matrix.py [--runs 10] [--pair PAIR ...] [--only FAULT ...] [--lanes 4]
                           [--json FILE]

Each trial is a ``sentinel drill`` of one fault, with the end state that the catalogue states for
it. Several drills are under way at once, since most of a fault is waiting: the outages are what a
busy machine makes of them, and ``pair.py`` has the better ones. What missed its end is told with
the drill's reasons and events. It needs root; ten runs take half an hour or so on two processors.
Exit 1 when a single trial missed its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from lanes import in_lanes
from report import Report, Target, arguments, conclude, need_root, spread

from sentinel.drill.catalogue import CATALOGUE
from sentinel.drill.records import Finding, Outcome

PAIRS: Final = ("fast", "classic")
#: Every wait of a drill has its own, shorter end.
DRILL_S: Final = 300.0
UNTOLD: Final = "-"
#: Of these nobody may notice anything: no failover, no restart.
UNNOTICED: Final = frozenset(fault.name for fault in CATALOGUE if not fault.moves_vip)

#: What was found of each fault and pair, in the order of the runs.
Findings = dict[tuple[str, str], list[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bout:
    """One drill to be."""

    fault: str
    pair: str

    async def hold(self) -> Finding:
        """Drill; a drill that tells nothing of the fault has missed it."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sentinel", "drill", "--json"),
            *("--pair", self.pair, "--only", self.fault),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            async with asyncio.timeout(DRILL_S):
                said, errors = await process.communicate()
        except TimeoutError:
            process.terminate()
            await process.communicate()
            return self._nothing("the drill did not end")
        found = json.loads(said or "{}").get("findings", [])
        return Finding.from_json(found[0]) if found else self._nothing(errors.decode().strip())

    def _nothing(self, why: str) -> Finding:
        return Finding(
            fault=self.fault, title="", expected="", outcome=Outcome.MISSED, reasons=(why,)
        )


def bouts(options: argparse.Namespace) -> list[Bout]:
    """Return all trials, every run in another order."""
    chance = random.Random(options.runs)  # noqa: S311  (no secret)
    found = []
    for _ in range(options.runs):
        round_ = [Bout(fault=fault, pair=pair) for pair in options.pair for fault in options.only]
        chance.shuffle(round_)
        found += round_
    return found


async def hold_all(trials: list[Bout], lanes: int) -> Findings:
    """Hold all trials, *lanes* at once, and tell of each."""
    findings: Findings = defaultdict(list)

    async def hold(bout: Bout) -> str:
        finding = await bout.hold()
        findings[bout.fault, bout.pair].append(finding)
        return told(bout, finding)

    await in_lanes(trials, lanes, hold)
    return findings


def told(bout: Bout, finding: Finding) -> str:
    """Return how one trial ended, and all of it when it should not have ended so."""
    end = (
        f"{bout.fault} {bout.pair}: {finding.outcome},"
        f" outage {finding.outage_ms:.0f} ms, {finding.failed} failed"
    )
    if finding.outcome == Outcome.REACHED:
        return end
    return "\n    ".join((end, *finding.reasons, *finding.story()))


def row(fault: str, findings: Findings, pairs: list[str]) -> tuple[str, ...]:
    """Return how often each pair reached the stated end, and the client's outages."""
    cells = [fault]
    for pair in pairs:
        found = findings[fault, pair]
        tried = [finding for finding in found if finding.outcome != Outcome.SKIPPED]
        if not tried:
            cells += (found[0].outcome, UNTOLD, UNTOLD)
            continue
        reached = sum(finding.outcome == Outcome.REACHED for finding in tried)
        middle, low, high = spread([finding.outage_ms for finding in tried])
        cells += (f"{reached} of {len(tried)}", middle, f"{low}-{high}")
    return tuple(cells)


def conclusion(findings: Findings, options: argparse.Namespace, minutes: float) -> Report:
    """Count the ends that were not as stated."""
    tried = [
        finding
        for found in findings.values()
        for finding in found
        if finding.outcome != Outcome.SKIPPED
    ]
    quiet = [finding for finding in tried if finding.fault in UNNOTICED]
    header = [
        (f"{pair}: ended as stated", f"{pair}: outage, ms", "least-greatest")
        for pair in options.pair
    ]
    return Report(
        name="matrix",
        title=f"Every fault of the drill, {options.runs} runs of each",
        header=("", *(cell for cells in header for cell in cells)),
        rows=tuple(row(fault, findings, options.pair) for fault in options.only),
        targets=(
            Target(
                what=f"trials that did not end as stated, of {len(tried)}",
                figure=sum(finding.outcome != Outcome.REACHED for finding in tried),
                limit=0,
                unit="trials",
            ),
            Target(
                what=f"of them, in the {len(quiet)} trials in which the VIP may not move",
                figure=sum(finding.outcome != Outcome.REACHED for finding in quiet),
                limit=0,
                unit="trials",
            ),
        ),
        notes=(
            "outage: the longest gap between good answers, of a client that asks every 10 ms",
            f"{len(tried)} drills, {options.lanes} at once, in {minutes:.0f} minutes",
        ),
        samples={
            f"{fault}/{pair}/{name}": [float(getattr(finding, name)) for finding in found]
            for (fault, pair), found in sorted(findings.items())
            for name in ("outage_ms", "failed", "requests", "ended_s", "usual_ms")
        },
    )


def options_of() -> argparse.Namespace:
    """Read the command line."""
    faults = [fault.name for fault in CATALOGUE]
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--pair", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--only", nargs="+", choices=faults, default=faults, metavar="FAULT")
    parser.add_argument("--lanes", type=int, default=4, help="drills at once (default: 4)")
    return parser.parse_args()


def main() -> int:
    """Drill, print, judge."""
    options = options_of()
    need_root()
    begun_s = time.monotonic()
    findings = asyncio.run(hold_all(bouts(options), options.lanes))
    minutes = (time.monotonic() - begun_s) / 60
    return conclude(conclusion(findings, options, minutes), options.json)


if __name__ == "__main__":
    sys.exit(main())
