"""Several trials at once: most of a trial's time is spent waiting."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def in_lanes(trials: list[T], lanes: int, hold: Callable[[T], Awaitable[str]]) -> None:
    """Hold the trials in their order, *lanes* at once, and tell of each what *hold* says of it."""
    waiting = trials[::-1]
    held = 0

    async def lane() -> None:
        nonlocal held
        while waiting:
            told = await hold(waiting.pop())
            held += 1
            at = f"[{held}/{len(trials)}] {time.strftime('%H:%M:%S')}"
            print(f"{at} {told}", file=sys.stderr, flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(lanes):
            group.create_task(lane())
