"""What has to be looked up on this node before an exchange, and can only block: names and CA files.

Each has a thread of its own (``aside``), and whoever wants what is looked up already waits for the
same answer. So a name server that is silent costs a thread for each of its names, however often
they are wanted, and holds up nobody who wants something else.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from sentinel.aside import begin

Found = TypeVar("Found")

#: More than anybody has names configured.
LOOKUPS_MAX: Final = 32
#: Beside each what wakes those who wait: of a Future alone who gives up would leave his trace.
_under_way: Final[dict[Hashable, tuple[Future[Any], asyncio.Event]]] = {}


async def look_up(what: Hashable, function: Callable[[], Found]) -> Found:
    """Return what *function* returns, which looks for *what*, or raise what it raises.

    Raises OSError while LOOKUPS_MAX others have not come back, and when no thread can be had.
    """
    known = _under_way.get(what)
    if known is None:
        if len(_under_way) >= LOOKUPS_MAX:
            raise OSError(errno.EAGAIN, f"{LOOKUPS_MAX} other lookups hang")
        known = _begin(what, function)
    lookup, ended = known
    await ended.wait()
    found: Found = lookup.result()
    return found


def _begin(what: Hashable, function: Callable[[], object]) -> tuple[Future[Any], asyncio.Event]:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    lookup = begin(function, f"looking up {what}")
    known = _under_way[what] = lookup, ended

    def end(_: object) -> None:
        del _under_way[what]
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    lookup.add_done_callback(end)
    return known
