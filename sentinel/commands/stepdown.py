"""``sentinel stepdown``: hand the VIP to the other node, and wait until that one serves.

The priority is lowered, so that the other node takes the VIP while this one goes on serving, and no
new connection is refused. The established ones are not drained: what is under way on them when the
VIP moves is lost, because the other node does not know them and resets them. Where keepalived.conf
does not allow a lower priority (sentinel status says why), the instances go to FAULT instead. It
stays so until ``sentinel resume``, or for a time, and ends with a reboot.

Exit status: 0 handed over, also when this node held no VIP, 1 nobody took it within --wait (the
order stands), 3 sentinel is not running, 4 it did not take the order, or does not know
keepalived's instances (the order stands).
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
