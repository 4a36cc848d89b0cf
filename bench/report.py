"""What a bench has found: a table, the targets met or missed, and every sample it rests on.

Every bench ends in one Report, which is printed, can be kept as JSON (``--json FILE``) and is what
``bench/run`` makes RESULTS.md of. Figures are medians, beside them the least and the greatest.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure that must not be above its limit."""

    what: str
    figure: float
    limit: float
    unit: str

    @property
    def met(self) -> bool:
        """The figure keeps to the limit."""
        return self.figure <= self.limit

    def __str__(self) -> str:
        """Say it in one line."""
        over = self.figure - self.limit
        verdict = "met" if self.met else f"MISSED by {over:.4g} {self.unit}"
        return f"{self.what}: {self.figure:.4g} of at most {self.limit:.4g} {self.unit}: {verdict}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that one run of a bench has found. The first column of *rows* are names."""

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    samples: dict[str, list[float]] = field(default_factory=dict)
    command: str = field(default_factory=lambda: shlex.join(["python", *sys.argv]))
    ended: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))
    load: tuple[float, ...] = field(default_factory=os.getloadavg)

    @property
    def met(self) -> bool:
        """Every target is met."""
        return all(target.met for target in self.targets)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read what ``write`` wrote."""
        fields = json.loads(file.read_text())
        fields["rows"] = tuple(map(tuple, fields["rows"]))
        fields["targets"] = tuple(Target(**target) for target in fields["targets"])
        for name in ("header", "notes", "load"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    def write(self, file: Path) -> None:
        """Keep everything as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def __str__(self) -> str:
        """Lay it out as plain text, names to the left and figures to the right."""
        table = (self.header, *self.rows)
        widths = [max(len(row[i]) for row in table) for i in range(len(self.header))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in table
        ]
        load = f"load average of 1, 5 and 15 minutes: {' '.join(f'{x:.1f}' for x in self.load)}"
        return "\n".join([self.title, "", *lines, "", *map(str, self.targets), *self.notes, load])


def spread(samples: Sequence[float], digits: int = 0) -> tuple[str, str, str]:
    """Return the three columns of a row of samples: median, least, greatest."""
    low, middle, high = min(samples), median(samples), max(samples)
    return f"{middle:.{digits}f}", f"{low:.{digits}f}", f"{high:.{digits}f}"


def arguments(docstring: str | None) -> argparse.ArgumentParser:
    """Return the parser of a bench's command line, described by its docstring's first line."""
    parser = argparse.ArgumentParser(description=(docstring or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures there")
    return parser


def need_root() -> None:
    """End the bench when namespaces of a node's kind cannot be made."""
    if os.geteuid() != 0:
        sys.exit(f"bench/{Path(sys.argv[0]).name}: namespaces of a node's kind are root's to make")


def conclude(report: Report, file: Path | None) -> int:
    """Print the report and keep it; return the exit status, 1 when a target was missed."""
    print(report)
    if file is not None:
        report.write(file)
    return 0 if report.met else 1
