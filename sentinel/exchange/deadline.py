"""Whose fault a deadline is that was missed: the other side's, or our own.

A deadline passes unseen while this process does not run: a frozen machine, a stopped sentinel. The
answer may have lain there all the time, so that says nothing about who was asked.
"""

from __future__ import annotations

import asyncio
from typing import Final

#: A deadline seen this much too late was missed by us, not by the other side.
HELD_UP_S: Final = 0.5
HELD_UP: Final = "sentinel itself was held up past the deadline"


def held_up(deadline_s: float) -> bool:
    """Tell whether *deadline_s*, of the running loop's time, is seen too late to blame anybody."""
    return asyncio.get_running_loop().time() > deadline_s + HELD_UP_S
