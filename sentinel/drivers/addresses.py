"""The addresses of this node, as the kernel has them; the only module that imports pyroute2.

A dump on a socket of its own each time: it costs half a millisecond, and neither a socket that
lost events (ENOBUFS) nor the acknowledgements that pyroute2 0.9.7 keeps of single requests can
outlive it. pyroute2 takes 80 ms and 9 MB to import, so only the daemon imports this, at its start:
later it would hold up every check.
"""

from __future__ import annotations

import asyncio
from typing import Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

DUMP_TIMEOUT_S: Final = 2.0


async def local() -> frozenset[str] | None:
    """Return all addresses of this node in this network namespace; None when it cannot be told."""
    try:
        async with asyncio.timeout(DUMP_TIMEOUT_S), AsyncIPRoute() as netlink:
            dump = await netlink.addr("dump")
            # the local end of a point-to-point link is IFA_LOCAL; elsewhere both are the same
            found = [m.get("IFA_LOCAL") or m.get("IFA_ADDRESS") async for m in dump]
    except (OSError, NetlinkError, TimeoutError):
        return None
    return frozenset(address for address in found if address)
