"""``sentinel why``: why a VIP came to this node or left it, as sentinel saw it.

Of each of the last moves: what keepalived was told and why, and every event that led to it. The
daemon remembers its last 200 events; what is older is in the log. The other node's sentinel knows
the other half: ask it there.

Exit status: 0 told, also when no VIP has moved; 3 sentinel is not running, 4 unknown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sentinel.commands import CONFIG_DEFAULT, Subparsers, configuration
from sentinel.commands.client import NoAnswerError, ask
from sentinel.commands.telling import printable, told

MOVES: Final = {"vip.arrived": "came to this node", "vip.left": "left this node"}
#: What happened longer before than this, with nothing in between, has led to nothing.
QUIET_MS: Final = 60_000
#: These end a tenure of keepalived's, or of an address, whatever sentinel had told.
_ENDS: Final = ("vip.fenced", "vip.taken", "keepalived.stopped", "keepalived.ended")
_FOLLOWED: Final = {
    "vip.left": (
        "nothing was wrong here: keepalived gave way to its peer, to one of its own scripts or to"
        " its network; the other node's sentinel and keepalived's log know more"
    ),
    "vip.arrived": (
        "this node was well all the time: the peer gave way or fell silent; ask sentinel why there"
    ),
}

Event = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One VIP that came or left, why in a sentence, and what led to it, the move itself last."""

    time: str
    event: str
    instance: str
    vip: str
    why: str
    story: tuple[Event, ...]


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "why",
        help="tell why a VIP came to this node or left it",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--last", type=_number, default=2, metavar="N", help="so many moves (default: 2)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document for programs")
    parser.add_argument("--socket", metavar="PATH", help="status socket (the configured one)")
    parser.add_argument(
        "--config", default=CONFIG_DEFAULT, metavar="FILE", help="sentinel.toml (%(default)s)"
    )
    parser.set_defaults(run=run)


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of moves: write 1 or more')
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Ask and tell."""
    path = args.socket or configuration("why", args.config).status_socket
    try:
        document = ask(path)
    except NoAnswerError as error:
        print(f"sentinel why: {error}", file=sys.stderr)
        return error.exit_code
    found = moves(document["history"])[-args.last :]
    if args.json:
        print(json.dumps([asdict(move) for move in found]))
    elif found:
        print("\n\n".join(_page(move) for move in found))
    else:
        print(f"no VIP has come or left, as far as sentinel on {document['node']} remembers")
    return 0


def moves(history: Sequence[Event]) -> list[Move]:
    """Return every move of a VIP in *history*, oldest first.

    The VIPs of an instance, or of a sync group, come and leave together, and share their story.
    Another one begins with what happens after it, or after a long quiet, or with the way back.
    """
    found: list[Move] = []
    begun, last = 0, -1  # of the present story: its first event, and its last move
    for number, event in enumerate(history):
        name = event["event"]
        quiet = number > 0 and history[number - 1]["age_ms"] - event["age_ms"] > QUIET_MS
        if quiet or (last >= begun and name not in {*MOVES, "vrrp.changed"}):
            begun = number
        if name not in MOVES:
            continue
        if last >= begun and history[last]["event"] != name:
            begun = last + 1
        last = number
        found.append(_move(history[begun : number + 1]))
    return found


def _move(story: Sequence[Event]) -> Move:
    event = story[-1]
    fields = event["fields"]
    return Move(
        time=event["time"],
        event=event["event"],
        instance=fields["instance"],
        vip=fields["vip"],
        why=_why(event["event"], story),
        story=tuple(story),
    )


def _why(move: str, story: Sequence[Event]) -> str:
    """Return the last thing in *story* that explains the move: what was told, or what was done."""
    wanted = move == "vip.arrived"
    for event in reversed(story):
        fields = event["fields"]
        if event["event"] == "verdict.changed" and (fields["to"] == "serving") == wanted:
            does = fields["to"].replace("yielding", "yields").replace("serving", "serves")
            return f"this node {does}: {fields['reason']}"
        if event["event"] in _ENDS and not wanted:
            return f"{event['event']}: {told(event)}"
    return _FOLLOWED[move]


def _page(move: Move) -> str:
    """Lay one move out for people, in this machine's time."""
    width = max(len(event["event"]) for event in move.story)
    lines = [f"{_local(move.time)}  {move.instance}: {move.vip} {MOVES[move.event]}", move.why, ""]
    lines += [
        f"  {_local(event['time'])[11:]}  {event['event']:<{width}}  {told(event)}".rstrip()
        for event in move.story
    ]
    return "\n".join(map(printable, lines))


def _local(time: str) -> str:
    at = datetime.fromisoformat(time).astimezone()
    return at.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")
