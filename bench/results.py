"""Make RESULTS.md and pair.svg of what the benches have kept in results/: what README quotes.

python bench/results.py
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import bars
from report import Report

HERE: Final = Path(__file__).parent
#: In the order in which a reader wants them.
NAMES: Final = (
    *("pair", "matrix", "concurrency", "crash", "hang", "held", "saturated"),
    *("hook", "daemon", "probe", "backends"),
)
PLOTTED: Final = "pair"
HEADER: Final = """\
# Measured

Made by `bench/run`; every sample is in [results](results). All that is compared was measured side
by side in one run. Figures are medians, with the least and the greatest beside them; the machine is
a small and noisy one, so ratios say more than milliseconds.
"""


def machine() -> str:
    """Say what all this was measured on."""
    model = next(
        line.partition(":")[2].strip()
        for line in [*Path("/proc/cpuinfo").read_text().splitlines(), "model name: unknown"]
        if line.startswith("model name")
    )
    with Path("/etc/os-release").open() as file:
        names = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    system = names.get("PRETTY_NAME", "Linux").strip('"')
    return (
        f"{os.cpu_count()} CPUs ({model}), Linux {platform.release().partition('-')[0]}, {system},"
        f" {first_line('haproxy', '-v')}, {first_line('keepalived', '--version')},"
        f" Python {platform.python_version()}"
    )


def first_line(*argv: str) -> str:
    """Return how a program calls itself: its name and version."""
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return " ".join((done.stdout or done.stderr).replace("version ", "").split()[:2])


def section(report: Report) -> Iterator[str]:
    """Yield the lines of one bench."""
    yield f"\n## {report.title}\n"
    yield f"`{report.command}`, {report.ended}, load average {report.load[0]:.1f} at the end.\n"
    yield row(report.header)
    yield row(("---", *("--:" for _ in report.header[1:])))
    yield from map(row, report.rows)
    yield ""
    yield from (f"- {line}" for line in (*map(str, report.targets), *report.notes))
    if report.name == PLOTTED:
        (HERE / "pair.svg").write_text(bars.draw(report))
        yield "\n![the same as bars](pair.svg)"


def row(cells: tuple[str, ...]) -> str:
    """Return one row of a markdown table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main() -> None:
    """Write RESULTS.md of the benches that have been run."""
    files = [HERE / "results" / f"{name}.json" for name in NAMES]
    lines = [HEADER, f"Machine: {machine()}."]
    for file in files:
        if file.exists():
            lines += section(Report.read(file))
    (HERE / "RESULTS.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
