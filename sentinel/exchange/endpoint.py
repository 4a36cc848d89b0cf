"""From a written address to the socket addresses behind it, and to a Host header.

A plain numeric address is taken as it is; everything else is looked up in a thread, for the C
library can only block.
"""

from __future__ import annotations

import socket
from functools import partial

from sentinel.address import Address, UnixPath
from sentinel.exchange.lookup import look_up

SocketAddress = str | tuple[str | int | bytes, ...]
Endpoint = tuple[socket.AddressFamily, SocketAddress]


async def resolve(address: Address) -> list[Endpoint]:
    """Return what to connect to, in order; raises socket.gaierror (an OSError)."""
    if isinstance(address, UnixPath):
        return [(socket.AF_UNIX, address.path)]
    host, port = address.host, address.port
    if address.numeric and "%" not in host:
        return [(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))]
    # A zone is looked up each time, for its interface may have another index by now.
    flags = socket.AI_NUMERICHOST if address.numeric else 0
    return await look_up(address, partial(_resolve, host, port, flags))


def _resolve(host: str, port: int, flags: int) -> list[Endpoint]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError as error:  # no resolver was asked: a label is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is no host name") from error
    return [(family, place) for family, _, _, _, place in found]


def authority(address: Address, default_port: int) -> str:
    """Return a Host header's value, without the port where it is the scheme's own (RFC 9110, 7.2).

    An IPv6 zone is left out: it means something on this node alone (RFC 6874, section 1).
    """
    if isinstance(address, UnixPath):
        return "localhost"
    host = address.host.partition("%")[0]
    name = f"[{host}]" if ":" in host else host
    return name if address.port == default_port else f"{name}:{address.port}"
