"""Hold up what is done aside, as a file system that hangs does."""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from haproxies import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sentinel.aside import Aside


@asynccontextmanager
async def hanging(aside: Aside, pipe: Path) -> AsyncIterator[None]:
    """Let *aside* wait for a writer of *pipe*, which is made; in the end there is one."""
    os.mkfifo(pipe)
    with pytest.raises(TimeoutError):
        await aside.run(pipe.read_text, 0.01)
    try:
        yield
    finally:
        pipe.write_text("")  # noqa: ASYNC240  (its reader waits)
        await _back(aside)


async def _back(aside: Aside) -> None:
    """Wait until *aside* takes something again."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        try:
            return await aside.run(lambda: None, DEADLINE_S)
        except TimeoutError:
            time.sleep(0.001)  # noqa: ASYNC251  (for the thread, which nothing tells of)
    raise AssertionError("it still hangs")
