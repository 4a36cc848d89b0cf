"""``sentinel drill``: rehearse failures of your pair on this machine, and see what clients see.

Two nodes with haproxy, keepalived and sentinel run your own unmodified configurations in network,
mount and process namespaces, a client opens a new connection to the VIP every 10 ms, and one fault
after the other happens and is healed. The machine's interfaces, services and files are not
touched, and nothing is left behind, however the drill ends.

Without --haproxy and --keepalived it uses the shipped pair. Yours is read where it is, with all
that it includes; other files that it names (certificates, maps, scripts) are those of this machine.
Stubs stand in for the servers; where HAProxy answers in their place (503, for a client that names
no host), its answer counts, and faults of servers are skipped. It needs no root where users may
make namespaces (Linux 5.11 or newer): HAProxy's user and all others are then root by another name,
root of a user namespace, who may do nothing to the machine. The notes at its beginning say what
else differs.

Exit status: 0 every fault ended as stated (what this machine cannot do is skipped, and said), 1 one
did not, 2 usage, 3 not possible on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel.commands import Subparsers

if TYPE_CHECKING:
    from sentinel.drill.faults import Fault
    from sentinel.drill.outside import Drill
    from sentinel.drill.records import Finding

USAGE: Final = 2
IMPOSSIBLE: Final = 3
_SCHEMA_VERSION: Final = 1
_LINE_MAX: Final = 140
_COLOURS: Final = {"reached": "32", "skipped": "33", "missed": "31"}


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "drill",
        help="rehearse failures of your pair in namespaces of this machine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--haproxy", type=Path, metavar="FILE", help="your haproxy.cfg")
    parser.add_argument(
        "--keepalived",
        type=Path,
        nargs=2,
        metavar=("MASTER", "BACKUP"),
        help="your keepalived.conf of both nodes",
    )
    parser.add_argument(
        "--config-id",
        nargs=2,
        metavar=("MASTER", "BACKUP"),
        help="keepalived's --config-id of both nodes, or their host names, for lines with @",
    )
    parser.add_argument("--sentinel", type=Path, metavar="FILE", help="your sentinel.toml")
    parser.add_argument(
        "--pair", choices=("fast", "classic"), default="fast", help="shipped pair (default: fast)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", nargs="+", default=[], metavar="FAULT", help="these faults alone")
    which.add_argument("--quick", action="store_true", help="three faults in half a minute")
    parser.add_argument("--events", action="store_true", help="tell what each node said and did")
    parser.add_argument("--list", action="store_true", help="list the faults and end")
    parser.add_argument("--json", action="store_true", help="one JSON document for programs")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a page to FILE")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Rehearse, tell, and say in the exit status whether all ended as stated."""
    from sentinel.drill.catalogue import CATALOGUE, QUICK, chosen  # noqa: PLC0415

    if args.list:
        for fault in CATALOGUE:
            print(f"{fault.name:28} {fault.title}")
        return 0
    unknown = sorted(set(args.only) - {fault.name for fault in CATALOGUE})
    if unknown:
        return _refuse(f"there is no fault {unknown[0]}: see sentinel drill --list")
    if args.report is not None and not os.access(args.report.absolute().parent, os.W_OK):
        return _refuse(f"{args.report}: its folder cannot be written to")
    return _rehearse(args, chosen(QUICK if args.quick else args.only))


def _rehearse(args: argparse.Namespace, faults: tuple[Fault, ...]) -> int:
    from sentinel.configfile import ConfigError  # noqa: PLC0415
    from sentinel.drill import outside  # noqa: PLC0415
    from sentinel.drill.confs import PlanError  # noqa: PLC0415

    try:
        files = outside.choose_files(
            args.haproxy, args.keepalived, args.sentinel, args.pair, args.config_id
        )
        drill = outside.Drill(files, faults)
    except (PlanError, ConfigError, OSError) as error:
        return _refuse(str(error))
    except outside.NotPossibleError as error:
        print(f"sentinel drill: {error}", file=sys.stderr)
        return IMPOSSIBLE
    findings: list[Finding] = []
    teller = _Teller(total=len(faults), quiet=args.json, events=args.events)
    teller.begin(drill)
    try:
        for finding in drill.findings(teller.begun):
            findings.append(finding)
            teller.found(finding)
    except outside.NotPossibleError as error:
        print(f"sentinel drill: {error}", file=sys.stderr)
        return IMPOSSIBLE
    finally:
        drill.close()
    if args.json:
        print(json.dumps(_document(drill, findings)))
    if args.report is not None:
        _write_page(args.report, drill, findings)
        teller.say(f"\nThe report: {args.report}")
    missed = sum(finding.outcome == "missed" for finding in findings)
    return 1 if missed or len(findings) < len(faults) else 0


def _refuse(why: str) -> int:
    print(f"sentinel drill: {why}", file=sys.stderr)
    return USAGE


def _document(drill: Drill, findings: list[Finding]) -> dict[str, object]:
    return {
        "schema_version": _SCHEMA_VERSION,
        "made": drill.made,
        "notes": drill.plan.notes,
        "findings": [finding.to_json() for finding in findings],
    }


def _write_page(path: Path, drill: Drill, findings: list[Finding]) -> None:
    from sentinel.drill.page import render  # noqa: PLC0415

    title = f"sentinel drill: {drill.name}"
    path.write_text(render(findings, title, drill.made, drill.plan.notes))


class _Teller:
    """Tells on a terminal what happens; a line in the making is replaced by its result."""

    def __init__(self, *, total: int, quiet: bool, events: bool) -> None:
        self._total = total
        self._events = events
        self._quiet = quiet
        self._number = 0
        self._live = sys.stdout.isatty()
        self._colour = self._live and "NO_COLOR" not in os.environ

    def say(self, text: str, end: str = "\n") -> None:
        """Print, unless a program reads along."""
        if not self._quiet:
            print(text, end=end, flush=True)

    def begin(self, drill: Drill) -> None:
        """Say what is rehearsed, and what differs from a real site."""
        self.say(f"{drill.name}, {drill.made}")
        for note in drill.plan.notes:
            self.say(f"  {note}")
        self.say("")

    def begun(self, fault: str) -> None:
        """A fault's world is being built."""
        self._number += 1
        if self._live:
            now = time.strftime("%H:%M:%S")
            self.say(f"\r\x1b[K[{self._number}/{self._total}] {fault} since {now} ...", end="")

    def found(self, finding: Finding) -> None:
        """A fault has ended."""
        from sentinel.drill.page import duration  # noqa: PLC0415

        word = f"{finding.outcome:7}"
        if self._colour:
            word = f"\x1b[1;{_COLOURS[finding.outcome]}m{word}\x1b[0m"
        fresh = "\r\x1b[K" if self._live else ""
        figures = (
            f" outage {duration(finding.outage_ms):>8}  failed {finding.failed:>5}"
            f" of {finding.requests:>5}  slowest {duration(finding.slowest_ms):>7}"
        )
        self.say(f"{fresh}{finding.fault:28} {word}{figures if finding.requests else ''}")
        for reason in finding.reasons:
            self.say(f"    {reason}")
        for line in finding.story() if self._events else ():
            self.say(f"    {line[:_LINE_MAX]}")
