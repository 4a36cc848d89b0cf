"""The command line. Every subcommand lives in ``sentinel.commands`` and imports lazily."""

from __future__ import annotations

import argparse
import sys

from sentinel import __version__
from sentinel.commands import (
    check,
    config,
    drill,
    metrics,
    pause,
    resume,
    run,
    status,
    stepdown,
    why,
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="sentinel",
        description="Health-check and failover supervisor for HAProxy + keepalived pairs.",
        epilog=(
            "Start with: sentinel config check; systemctl start sentinel; sentinel status. Exit"
            " status beside each command's own: 2 wrong usage, 130 interrupted, 141 its reader went"
            " away. What every event and phase means, and what to do: docs/operations.md."
        ),
    )
    top.add_argument("--version", action="version", version=f"sentinel {__version__}")
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")
    for command in (run, check, status, why, metrics, pause, stepdown, resume, config, drill):
        command.add_parser(subparsers)
    for subparser in subparsers.choices.values():
        subparser.description = (subparser.description or "").replace("``", "")
        subparser.set_defaults(refuse=subparser.error)
    return top


def main() -> int:
    """Run one subcommand; the exit status is the subcommand's own."""
    args, unknown = parser().parse_known_args()
    if unknown:  # the subcommand's own usage helps, and not the whole program's
        args.refuse(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader went away (``| head``): nothing is left to say, and nobody to say it to
        sys.stderr.close()
        return 141


if __name__ == "__main__":
    sys.exit(main())
