"""``sentinel run``: the supervisor itself, in the foreground, for a service manager to look after.

SIGHUP reads the configuration again and keeps the old one when the new one is wrong. SIGTERM and
SIGINT end sentinel and leave HAProxy, keepalived and the track file as they are; the lease runs
out, and from then on keepalived's hook looks at HAProxy's process for itself. SIGUSR1 runs every
check now.

Exit status: 0 it was told to end, 1 another sentinel runs or the lock cannot be taken, 2 usage, 78
the configuration is wrong (EX_CONFIG of sysexits.h: starting it again is of no use before somebody
has mended the file).
"""

from __future__ import annotations

import argparse
import os
import sys

from sentinel.commands import CONFIG_DEFAULT, Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "run",
        help="supervise HAProxy (what the systemd unit starts)",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", default=CONFIG_DEFAULT, metavar="FILE", help="sentinel.toml (%(default)s)"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="log what would be done and do nothing: no action, no lease, no track file",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Supervise until told to stop; the exit statuses are in the docstring above."""
    from sentinel.configfile import ConfigError, load  # noqa: PLC0415
    from sentinel.daemon import AlreadyRunningError, serve  # noqa: PLC0415

    try:
        config = load(args.config)
        return serve(config, lambda: load(args.config), dry_run=args.dry_run)
    except (ConfigError, AlreadyRunningError) as error:
        print(f"sentinel run: {error}", file=sys.stderr)
        return os.EX_CONFIG if isinstance(error, ConfigError) else 1
