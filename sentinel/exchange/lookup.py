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
from typing import Any, Final, TypeVar

from sentinel.aside import begin

Found = TypeVar("Found")

#: More than anybody has names configured.
LOOKUPS_MAX: Final = 32
_under_way: Final[dict[Hashable, Future[Any]]] = {}


async def look_up(what: Hashable, function: Callable[[], Found]) -> Found:
    """Return what *function* returns, which looks for *what*, or raise what it raises.

    Raises OSError while LOOKUPS_MAX others have not come back.
    """
    lookup: Future[Found] | None = _under_way.get(what)
    if lookup is None:
        if len(_under_way) >= LOOKUPS_MAX:
            raise OSError(errno.EAGAIN, f"{LOOKUPS_MAX} other lookups hang")
        lookup = _under_way[what] = begin(function, f"looking up {what}")
        lookup.add_done_callback(lambda _: _under_way.pop(what))
    return await asyncio.wrap_future(lookup)
