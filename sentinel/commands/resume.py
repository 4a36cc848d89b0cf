"""``sentinel resume``: end a pause and a hand-over; the VIP comes back as keepalived decides.

Exit status: 0 done, also when there was nothing to end, 3 sentinel is not running, 4 it did not
take the order.
"""

from __future__ import annotations

import argparse

from sentinel.commands import Subparsers
from sentinel.commands.orders import add_order_parser, give
from sentinel.events import Verb


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_order_parser(subparsers, "resume", "end a pause and a hand-over", __doc__)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Resume."""
    return give(args, Verb.RESUME, "sentinel goes on as configured")
