"""The rehearsal: one fault after the other, each in a new world. The first process of the worlds.

``python -m sentinel.drill.rehearsal FILES... --fault NAME...`` in namespaces of its own; it writes
one JSON object a line: ``{"begun": NAME}``, then ``{"finding": {...}}``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from sentinel.drill import groups
from sentinel.drill.catalogue import chosen
from sentinel.drill.faults import HEALED, Fault, Situation
from sentinel.drill.node import LackingError, WorldError
from sentinel.drill.plan import Files, Plan, make_plan
from sentinel.drill.records import Finding, Outcome, outage_ms, shifted
from sentinel.drill.world import World

#: What is watched before a fault, and after its end: an end that does not last is none.
BEFORE_S: Final = 1.0
AFTER_S: Final = 1.0
_KERNELS_OWN: Final = re.compile(r"proc|sysfs|cgroup2?|devpts|devtmpfs|mqueue|tmpfs|nsfs|overlay")
_RESTRICTIONS: Final = frozenset({"nosuid", "nodev", "noexec"})


async def rehearse(fault: Fault, plan: Plan) -> Finding:
    """Try one fault in a world made for it."""
    async with asyncio.TaskGroup() as group, World(plan, group) as world:
        begun_s = time.monotonic()
        try:
            if fault.prepare is not None:
                await fault.prepare(world)
            await world.wait_steady()
            await asyncio.sleep(BEFORE_S)
        except WorldError as error:
            return _finding(fault, world, begun_s, [str(error)])
        try:
            begun_s = world.seen.mark(fault.title)
            reasons = [reason async for reason in _play(fault, world, begun_s)]
        except WorldError as error:
            reasons = [str(error)]
        except LackingError as error:
            return Finding.skipped(fault.name, fault.title, str(error))
        return _finding(fault, world, begun_s, [*reasons, *fault.faulty_records(world, begun_s)])


async def _play(fault: Fault, world: World, begun_s: float) -> AsyncIterator[str]:
    """Inject, watch, heal, watch; yield what was not as expected."""
    await fault.inject(world)
    if fault.meanwhile is not None:
        holds = partial(_is, fault.meanwhile, world)
        await world.settles(holds, fault.dwell_s, fault.meanwhile.within_s)
        for reason in fault.meanwhile.missing(world):
            yield f"meanwhile, {reason}"
    if fault.heal is not None:
        world.seen.mark(HEALED)
        await fault.heal(world)

    def over() -> bool:
        """An end that looks well before sentinel has noticed the fault is none."""
        return fault.all_told(world, begun_s) and _is(fault.end, world)

    await world.settles(over, AFTER_S, fault.end.within_s)
    for reason in fault.end.missing(world):
        yield f"in the end, {reason}"


def _is(situation: Situation, world: World) -> bool:
    return not any(situation.missing(world))


def _finding(fault: Fault, world: World, begun_s: float, reasons: list[str]) -> Finding:
    ended_s = time.monotonic()
    since_s = begun_s - BEFORE_S
    before = [answer for answer in world.seen.answers if answer.at_s < begun_s]
    after = [answer for answer in world.seen.answers if answer.at_s >= begun_s]
    return Finding(
        fault=fault.name,
        title=fault.title,
        expected=fault.expected,
        outcome=Outcome.MISSED if reasons else Outcome.REACHED,
        reasons=tuple(reasons),
        begun_s=-BEFORE_S,
        ended_s=round(ended_s - begun_s, 3),
        usual_ms=round(outage_ms(before, begun_s - BEFORE_S, begun_s), 1),
        outage_ms=round(outage_ms(world.seen.answers, begun_s, ended_s), 1),
        requests=len(after),
        failed=sum(not answer.good for answer in after),
        slowest_ms=max((answer.took_ms for answer in after if answer.good), default=0.0),
        answers=shifted(
            [answer for answer in world.seen.answers if answer.at_s >= since_s], begun_s
        ),
        holdings=shifted(world.seen.holdings, begun_s),
        events=shifted([event for event in world.seen.events if event.at_s >= since_s], begun_s),
        marks=shifted(world.seen.marks, begun_s),
    )


def seal() -> None:
    """Make the machine's own file systems read-only for everything in here.

    The nodes write to layers of their own; what this process must not change, it cannot. In a user
    namespace it may not take a mount's other restrictions away, so they are said again.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, source = line.partition(" - ")
        number, _, _, _, point, options, *_ = fields.split()
        folder = point.encode().decode("unicode_escape")
        if not _KERNELS_OWN.fullmatch(source.split()[0]) and _is_reachable(folder, number):
            kept = sorted(_RESTRICTIONS.intersection(options.split(",")))
            argv = ("mount", "-o", ",".join(("remount,bind,ro", *kept)), folder)
            subprocess.run(argv, check=True)


def _is_reachable(folder: str, mount: str) -> bool:
    """Tell whether *folder* leads to that mount: it may be closed to users, or covered by another.

    Such is what systemd mounts below /proc, which is another one in here.
    """
    try:
        opened = os.open(folder, os.O_PATH)
    except OSError:
        return False
    try:
        return f"mnt_id:\t{mount}\n" in Path(f"/proc/self/fdinfo/{opened}").read_text()
    finally:
        os.close(opened)


async def rehearse_all(plan: Plan, faults: tuple[Fault, ...]) -> None:
    """Try all faults and say what was found of each at once."""
    for fault in faults:
        _say("begun", fault.name)
        _say("finding", (await rehearse(fault, plan)).to_json())


def _say(kind: str, what: object) -> None:
    sys.stdout.write(f"{json.dumps({kind: what})}\n")
    sys.stdout.flush()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def arguments(files: Files, names: tuple[str, ...]) -> Iterator[str]:
    """Yield the arguments that ``main`` reads."""
    for name in ("haproxy", "master", "backup", "sentinel", "hook"):
        path = getattr(files, name)
        if path is not None:
            yield f"--{name}={path}"
    yield from (f"--config-id={name}" for name in files.config_ids or ())
    yield from (f"--fault={name}" for name in names)


def main() -> None:
    """Read the command line of ``arguments`` and rehearse."""
    parser = argparse.ArgumentParser()
    for name in ("haproxy", "master", "backup", "sentinel", "hook"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--config-id", action="append")
    parser.add_argument("--fault", action="append", default=[])
    args = parser.parse_args()
    files = Files(
        haproxy=args.haproxy,
        master=args.master,
        backup=args.backup,
        sentinel=args.sentinel,
        hook=args.hook,
        config_ids=args.config_id and tuple(args.config_id),
    )
    plan = make_plan(files)
    seal()
    if groups.are_denied():
        groups.pretend()
    try:
        asyncio.run(rehearse_all(plan, chosen(args.fault)))
    except* WorldError as group:
        _say("failed", str(_first(group)))


if __name__ == "__main__":
    main()
