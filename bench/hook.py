"""What one call of the hook costs, beside the check it replaces, as processes grow in number.

    python bench/hook.py [--runs 300] [--sleepers 0 100 500] [--json FILE]

hyperfine (without a shell of its own) runs, side by side: ``/bin/true``, the floor of starting any
program; the hook with a good lease; the hook with none, where it looks at a process; and the
original check of chk_haproxy.sh. Times are medians, CPU is user + system of the whole process tree;
the commands take turns in short rounds.
Exit 1 when the hook takes more than 2 ms, or more than a tenth of the original's CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from report import Report, Target, arguments, conclude

if TYPE_CHECKING:
    from collections.abc import Iterator

HOOK: Final = Path(__file__).parents[1] / "contrib/keepalived/chk_sentinel.sh"
ORIGINAL: Final = """#!/bin/bash
status=$(ps aux|grep haproxy | grep -v grep | grep -v bash | wc -l)
[ "${status}" != "0" ]
"""
WALL_MAX_MS: Final = 2.0
CPU_SHARE_MAX: Final = 0.1
ROUNDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one call takes; the CPU time is that of everything it started."""

    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What hyperfine measured in one turn: every wall time, and the mean CPU time."""

    wall_ms: list[float]
    cpu_ms: float


def write_commands(folder: Path) -> dict[str, str]:
    """Write the files the commands read, the lease anew; return the commands by name."""
    with Path("/proc/uptime").open() as clock:
        uptime_s = float(clock.read().split()[0])
    # The longest lease the hook believes; a bench of one command ends well before.
    (folder / "lease").write_text(f"OK {int((uptime_s + 60) * 100)}\n")
    (folder / "haproxy.pid").write_text(f"{os.getpid()}\n")
    (folder / "original.sh").write_text(ORIGINAL)
    (folder / "original.sh").chmod(0o755)
    arguments = f"{folder}/haproxy.pid {folder}/hook-called"
    return {
        "/bin/true": "/bin/true",
        "hook, lease good": f"{HOOK} {folder}/lease {arguments}",
        "hook, direct look": f"{HOOK} {folder}/none {arguments}",
        "original ps|grep": f"{folder}/original.sh",
    }


def run_round(command: str, folder: Path, runs: int) -> Round:
    """Run *command* under hyperfine; what it exits with is of no interest."""
    results = folder / "results.json"
    options = f"-N -i --style none --warmup 5 --runs {runs} --export-json {results}"
    subprocess.run(["hyperfine", *options.split(), command], check=True, stderr=subprocess.DEVNULL)
    result = json.loads(results.read_text())["results"][0]
    return Round(
        wall_ms=[time_s * 1e3 for time_s in result["times"]],
        cpu_ms=(result["user"] + result["system"]) * 1e3,
    )


def measure(folder: Path, runs: int) -> dict[str, Cost]:
    """Measure all commands in turns, so that a busy moment of the machine meets each of them."""
    rounds: dict[str, list[Round]] = defaultdict(list)
    for _ in range(ROUNDS):
        for name in write_commands(folder):
            command = write_commands(folder)[name]
            rounds[name].append(run_round(command, folder, max(1, runs // ROUNDS)))
    return {
        name: Cost(
            wall_ms=median(wall_ms for found in own for wall_ms in found.wall_ms),
            cpu_ms=median(found.cpu_ms for found in own),
        )
        for name, own in rounds.items()
    }


@contextmanager
def sleepers(count: int) -> Iterator[None]:
    """Keep *count* sleeping processes for the length of the block."""
    pids = [os.posix_spawn("/bin/sleep", ["sleep", "3600"], {}) for _ in range(count)]
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def rows_of(processes: int, costs: dict[str, Cost]) -> list[tuple[str, ...]]:
    """Return one block of the table, everything as a ratio to the floor and to the original."""
    floor, original = costs["/bin/true"], costs["original ps|grep"]
    return [
        (
            f"{name}, {processes} processes",
            f"{cost.wall_ms:.2f}",
            f"{cost.cpu_ms:.2f}",
            f"{cost.wall_ms / floor.wall_ms:.1f}",
            f"{cost.cpu_ms / original.cpu_ms:.1%}",
        )
        for name, cost in costs.items()
    ]


def conclusion(measured: dict[int, dict[str, Cost]]) -> Report:
    """Judge the dearer way through the hook, at the greatest number of processes."""
    hooks = [
        (cost, costs["original ps|grep"])
        for costs in measured.values()
        for name, cost in costs.items()
        if name.startswith("hook")
    ]
    few, many = measured[min(measured)], measured[max(measured)]
    growth = many["hook, lease good"].cpu_ms / few["hook, lease good"].cpu_ms
    return Report(
        name="hook",
        title="One call of the hook beside the check it replaces, medians",
        header=("", "wall ms", "CPU ms", "x true", "of original CPU"),
        rows=tuple(row for count, costs in measured.items() for row in rows_of(count, costs)),
        targets=(
            Target(
                what="the hook's wall time, at worst",
                figure=max(hook.wall_ms for hook, _ in hooks),
                limit=WALL_MAX_MS,
                unit="ms",
            ),
            Target(
                what="the hook's share of the original's CPU, at worst",
                figure=max(hook.cpu_ms / original.cpu_ms for hook, original in hooks),
                limit=CPU_SHARE_MAX,
                unit="of it",
            ),
        ),
        notes=(
            f"from {min(measured)} to {max(measured)} processes its CPU grows {growth:.2f}-fold",
        ),
    )


def main() -> int:
    """Measure, print, judge."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--sleepers", type=int, nargs="+", default=[0, 100, 500])
    options = parser.parse_args()
    if shutil.which("hyperfine") is None:
        parser.error("hyperfine is needed: apt install hyperfine")
    measured = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for count in options.sleepers:
            with sleepers(count):
                processes = sum(entry.name.isdigit() for entry in Path("/proc").iterdir())
                measured[processes] = measure(folder, options.runs)
    return conclude(conclusion(measured), options.json)


if __name__ == "__main__":
    sys.exit(main())
