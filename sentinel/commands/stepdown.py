"""``sentinel stepdown``: hand the VIP to the other node without loss, and wait until it serves.

The priority is lowered, so that the other node takes the VIP while this one goes on serving. Where
keepalived.conf does not allow that (sentinel status says why), the instances go to FAULT instead.
It stays so until ``sentinel resume``, or for a time. Exit status: 0 handed over, 1 not (nobody took
it), 3 sentinel is not running, 4 it did not take the order.
"""

from __future__ import annotations

import argparse

from sentinel.commands import Subparsers
from sentinel.commands.orders import add_order_parser, hand_over
from sentinel.events import Verb


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_order_parser(subparsers, "stepdown", "hand the VIP to the other node", __doc__)
    parser.add_argument(
        "--until-start",
        action="store_true",
        help="end it when HAProxy has been started anew (for ExecStop= of haproxy.service)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Hand the VIP over."""
    return hand_over(args, Verb.STEPDOWN)
