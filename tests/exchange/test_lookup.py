"""What this node is asked blocks nobody but those who want it."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from haproxies import DEADLINE_S, wait_until

from sentinel.exchange.lookup import LOOKUPS_MAX, look_up

if TYPE_CHECKING:
    from collections.abc import Iterator


def looking_up() -> int:
    """Return how many lookups are under way."""
    return sum(thread.name.startswith("looking up") for thread in threading.enumerate())


@contextmanager
def hanging(number: int) -> Iterator[list[asyncio.Future[bool]]]:
    """Let *number* lookups hang for the block, and give what waits for them."""
    over = threading.Event()
    try:
        yield [asyncio.ensure_future(look_up(n, over.wait)) for n in range(number)]
    finally:
        over.set()
        wait_until(lambda: not looking_up(), "all have come back")


async def test_what_is_found_is_handed_on() -> None:
    """As well as what the world refuses; it is looked for in another thread."""
    assert await look_up("a", threading.get_ident) != threading.get_ident()

    def refused() -> None:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        await look_up("a", refused)
    assert await look_up("a", lambda: 1) == 1


async def test_who_wants_the_same_waits_for_the_same() -> None:
    """However many want it, and give up: it costs one thread."""
    with hanging(1) as (first,):
        await asyncio.sleep(0)
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await look_up(0, pytest.fail)
        second = asyncio.ensure_future(look_up(0, lambda: False))
        await asyncio.sleep(0)
        assert looking_up() == 1
    async with asyncio.timeout(DEADLINE_S):
        assert (await first, await second) == (True, True)


async def test_who_gives_up_leaves_nothing() -> None:
    """A lookup may hang for days, and is wanted every second."""
    with hanging(1) as (first,):
        await asyncio.sleep(0)
        before = futures()
        for _ in range(50):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await look_up(0, pytest.fail)
        assert futures() < before + 10
    assert await first


def futures() -> int:
    """Return how many futures there are."""
    gc.collect()
    return sum(isinstance(found, asyncio.Future) for found in gc.get_objects())


async def test_one_that_hangs_holds_up_nobody_else() -> None:
    """Not even as many as there may be but one."""
    with hanging(LOOKUPS_MAX - 1):
        await asyncio.sleep(0)
        assert await look_up("another", lambda: 1) == 1


async def test_no_more_than_the_bound_hang() -> None:
    """Whatever else is wanted is refused until one has come back."""
    with hanging(LOOKUPS_MAX):
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="32 other lookups hang"):
            await look_up("another", pytest.fail)
    assert await look_up("another", lambda: 1) == 1
