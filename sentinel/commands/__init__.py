"""One subcommand a file: ``add_parser`` declares it, ``run`` does it and returns the exit status.

A subcommand imports what it needs inside its functions where that is heavy: ``sentinel check``
must not pay for what ``sentinel run`` needs.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from sentinel.config import Config

#: argparse publishes no name for it, and takes its parameter in stubs alone.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  (see above)
CONFIG_DEFAULT: Final = "/etc/sentinel/sentinel.toml"


def configuration(command: str, path: str) -> Config:
    """Return the configuration; what *command* must answer without it, it answers by the defaults.

    That the file cannot be used is said on stderr, why is what ``sentinel config check`` says.
    """
    from sentinel.config import Config  # noqa: PLC0415  (not every command needs one)
    from sentinel.configfile import ConfigError, load  # noqa: PLC0415

    try:
        return load(path)
    except ConfigError:
        cure = f"sentinel config check {path}"
        print(f"sentinel {command}: going by the defaults, see {cure}", file=sys.stderr)
        return Config()
