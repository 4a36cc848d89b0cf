"""``sentinel config``: check a configuration, show the effective one, list all that can be set.

Exit status: 0 the configuration can be used, 1 it cannot (all that is wrong is printed, one line a
mistake), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from sentinel.commands import CONFIG_DEFAULT

if TYPE_CHECKING:
    from sentinel.commands import Subparsers

_HELP: Final = {
    "check": "say all that is wrong with a configuration",
    "show": "print the effective configuration, defaults included",
    "schema": "print every key with its default, meaning and bounds",
}


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "config",
        help="check, show or explain the configuration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="check|show|schema")
    for verb, text in _HELP.items():
        verb_parser = verbs.add_parser(verb, help=text, description=text)
        if verb != "schema":
            verb_parser.add_argument("file", nargs="?", metavar="FILE", help=f"({CONFIG_DEFAULT})")
            verb_parser.add_argument("--config", metavar="FILE", help="the same, as elsewhere")
        verb_parser.set_defaults(run=run, refuse=verb_parser.error)


def run(args: argparse.Namespace) -> int:
    """Do what *args* ask for."""
    from sentinel.configfile import ConfigError, dump, load, schema  # noqa: PLC0415  (see package)

    if args.verb == "schema":
        print(schema(), end="")
        return 0
    path = args.file or args.config or CONFIG_DEFAULT
    try:
        config = load(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    if args.verb == "show":
        print(dump(config), end="")
    elif os.path.exists(path):  # noqa: PTH110  (pathlib costs its import)
        print(f"{path}: valid")
    else:
        print(f"{path}: there is no such file, so the defaults apply")
    return 0
