"""The same faults befall a pair under sentinel and under what people run today: a table of outages.

    python bench/pair.py [--runs 3] [--quick] [--only NAME ...] [--pair PAIR] [--fault NAME ...]
                         [--lanes 5] [--json FILE]

Two nodes in namespaces of this machine, as in ``sentinel drill``; a client opens a new connection
to the VIP every 10 ms. ``contestants.py`` says who competes, ``trial.py`` what happens, and
``standings.py`` what is compared and aimed at. Every trial has a world of its own. Several worlds
are there at once, since most of their time is spent waiting; but one alone is built or has its
fault at any time, so that the figures do not disturb each other. ``--only sentinel --runs 10`` says
whether each of ten runs of every fault ended with everything as before. It needs root; three runs
take half an hour on two processors, --quick three minutes. Exit 1 when a target was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

from contestants import PAIRS, Contestant, contestants
from lanes import in_lanes
from report import arguments, conclude, need_root
from standings import Samples, conclusion
from trial import FAULTS, Fault, Trial

TRIAL: Final = Path(__file__).parent / "trial.py"
UNSHARE: Final = ("unshare", "-n", "-m", "-p", "-u", "--fork", "--kill-child", "--mount-proc")
PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin"
#: A fault disturbs nobody any more after this long.
STIR_S: Final = 6.0
#: Every wait of a trial has its own, shorter end.
TRIAL_S: Final = 150.0
TRIES: Final = 3
#: So long the checks of a pair have run when its fault comes: from the first, over two seconds.
SETTLE_S: Final = 2.0
PHASES_S: Final = 2.0
#: ``on_crash`` is of these alone.
CRASHES: Final = ("crash", "broken", "hang")
QUICK: Final = ("crash", "broken", "hang", "stepdown", "killed")


class FailedError(Exception):
    """A trial's world did not come about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bout:
    """One trial to be."""

    contestant: Contestant
    pair: str
    fault: Fault
    settle_s: float

    def __str__(self) -> str:
        """Name it as the samples are named."""
        return f"{self.fault.name}/{self.pair}/{self.contestant.name}"


def bouts(options: argparse.Namespace) -> list[Bout]:
    """Return all trials, every run in another order."""
    chance = random.Random(options.runs)  # noqa: S311  (no secret)
    found = []
    for run in range(options.runs):
        round_ = [
            Bout(
                contestant=contestant,
                pair=pair,
                fault=fault,
                settle_s=SETTLE_S + PHASES_S * (run + chance.random()) / options.runs,
            )
            for contestant in contestants()
            for pair in options.pair
            for fault in FAULTS
            if competes(contestant, fault, options)
        ]
        chance.shuffle(round_)
        found += round_
    return found


def competes(contestant: Contestant, fault: Fault, options: argparse.Namespace) -> bool:
    """Tell whether there is something to try."""
    if contestant.unfit or contestant.name not in options.only or fault.name not in options.fault:
        return False
    if contestant.is_variant:
        return fault.name in CRASHES
    return contestant.is_sentinel or fault.name != "stepdown"


class Referee:
    """Lets trials happen, one at a time in what must not be disturbed."""

    def __init__(self) -> None:
        self._quiet: Final = asyncio.Lock()

    async def hold(self, bout: Bout) -> Trial | None:
        """Hold one trial; a world that does not come about is tried again, and then left out."""
        for _ in range(TRIES):
            with TemporaryFile("w+") as errors:
                try:
                    async with asyncio.timeout(TRIAL_S):
                        return await self._try(bout, errors)
                except (FailedError, TimeoutError) as error:
                    errors.seek(0)
                    why = str(error) or "not over in time"
                    print(f"{bout}: failed: {why}\n{errors.read()}", file=sys.stderr)
        return None

    async def _try(self, bout: Bout, errors: IO[str]) -> Trial:
        process = None
        try:
            async with self._quiet:
                process = await start(bout, errors)
                await hear(process, "stage")
            await hear(process, "stage")
            async with self._quiet:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
                settled = asyncio.ensure_future(hear(process, "stage"))
                await asyncio.wait({settled}, timeout=STIR_S)
            await settled
            return Trial(**await hear(process, "trial"))
        finally:
            if process is not None:
                await end(process)


async def start(bout: Bout, errors: IO[str]) -> Process:
    """Start a trial in namespaces of its own, which end with it and with us."""
    return await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", *UNSHARE, sys.executable, str(TRIAL)),
        *(bout.contestant.name, bout.pair, bout.fault.name, str(bout.settle_s)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=errors,
        env={
            **os.environ,
            "PATH": f"{os.environ.get('PATH', '')}:{PATH}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        start_new_session=True,
    )


async def hear(process: Process, kind: str) -> Any:  # noqa: ANN401  (what JSON says)
    """Return what a trial says next; raises FailedError when it says something else."""
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    said = json.loads(line or "{}")
    if kind not in said:
        raise FailedError(said.get("failed", f"ended before its {kind}"))
    return said[kind]


async def end(process: Process) -> None:
    """End a trial and all that is in its namespaces."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)  # process.kill() would reap before asyncio can
    await process.wait()


async def hold_all(trials: list[Bout], lanes: int) -> Samples:
    """Hold all trials, *lanes* at once, and return what was seen, by the trials' names."""
    samples: Samples = defaultdict(list)
    referee = Referee()

    async def hold(bout: Bout) -> str:
        trial = await referee.hold(bout)
        if trial is None:
            return f"{bout}: left out"
        samples[str(bout)].append(trial)
        end = "ended" if trial.ended else "NOT ENDED"
        return f"{bout}: outage {trial.outage_ms:.0f} ms, {trial.failed} failed, {end}"

    await in_lanes(trials, lanes, hold)
    return samples


def options_of() -> argparse.Namespace:
    """Read the command line."""
    names = [contestant.name for contestant in contestants()]
    faults = [fault.name for fault in FAULTS]
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one run, fast pair, five faults")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CONTESTANT")
    parser.add_argument("--pair", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--fault", nargs="+", choices=faults, default=faults, metavar="FAULT")
    parser.add_argument("--lanes", type=int, default=5, help="worlds at once (default: 5)")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.pair, options.fault = 1, ["fast"], list(QUICK)
    return options


def main() -> int:
    """Try, print, judge."""
    options = options_of()
    need_root()
    begun_s = time.monotonic()
    samples = asyncio.run(hold_all(bouts(options), options.lanes))
    minutes = (time.monotonic() - begun_s) / 60
    return conclude(conclusion(samples, options.runs, minutes), options.json)


if __name__ == "__main__":
    sys.exit(main())
