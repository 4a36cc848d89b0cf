"""Configurations of HAProxy that people really have."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "data" / "haproxycfg"

#: The configuration that the old script came with, in today's syntax.
ARTICLE: Final = (_FOLDER / "article.cfg").read_text()
#: What Debian 12 installs.
DEBIAN: Final = (_FOLDER / "debian.cfg").read_text()
