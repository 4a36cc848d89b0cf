"""One subcommand a file: ``add_parser`` declares it, ``run`` does it and returns the exit status.

A subcommand imports what it needs inside its functions where that is heavy: ``sentinel check``
must not pay for what ``sentinel run`` needs.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  (no public name)

CONFIG_DEFAULT: Final = "/etc/sentinel/sentinel.toml"
