"""One subcommand a file: ``add_parser`` declares it, ``run`` does it and returns the exit status.

A subcommand imports what it needs inside its functions where that is heavy: ``sentinel check``
must not pay for what ``sentinel run`` needs.
"""

from __future__ import annotations

import argparse
from typing import Final, TypeAlias

#: argparse publishes no name for it, and takes its parameter in stubs alone.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  (see above)
CONFIG_DEFAULT: Final = "/etc/sentinel/sentinel.toml"
