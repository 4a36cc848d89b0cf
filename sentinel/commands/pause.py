"""``sentinel pause``: mend nothing until ``sentinel resume``, or for a time.

While it is paused sentinel restarts and kills nothing and leaves keepalived alone; it goes on
looking, and keepalived is still told the truth: a HAProxy that dies meanwhile loses the VIP. With
--drain the VIP is handed to the other node first, as by "sentinel stepdown". A pause outlives a
restart of sentinel, and ends with a reboot.

Exit status: 0 paused, and with --drain handed over, 1 nobody took the VIP within --wait (the pause
stands), 3 sentinel is not running, 4 it did not take the order, or, with --drain, does not know
keepalived's instances (the pause stands).
"""

from __future__ import annotations

import argparse

from sentinel.commands import Subparsers
from sentinel.commands.orders import add_order_parser, give, hand_over, until
from sentinel.events import Verb


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_order_parser(subparsers, "pause", "mend nothing for a time", __doc__)
    parser.add_argument("--drain", action="store_true", help="hand the VIP over as well")
    wait_s = parser.get_default("wait")
    parser.set_defaults(run=run, refuse=parser.error, wait_s=wait_s, wait=None)


def run(args: argparse.Namespace) -> int:
    """Pause; with --drain wait until the other node serves."""
    if args.drain:
        args.wait = args.wait_s if args.wait is None else args.wait
        return hand_over(args, Verb.PAUSE)
    if args.wait is not None:
        args.refuse("--wait is for the hand-over: give --drain with it")
    return give(args, Verb.PAUSE, f"sentinel is paused: it mends nothing {until(args)}")
