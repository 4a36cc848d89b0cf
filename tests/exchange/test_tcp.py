"""Connecting to the first of several addresses that takes it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from haproxies import free_port
from servers import Connection, serving

from sentinel.address import read_address
from sentinel.exchange.endpoint import resolve
from sentinel.exchange.tcp import connect_to_first

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_next_address_is_tried_and_the_first_good_one_taken() -> None:
    """A name that is ::1 and 127.0.0.1 is reached where HAProxy binds only one of them."""
    with serving(Connection.hold) as one, serving(Connection.hold) as other:
        good = (await resolve(read_address(one)))[0]
        spare = (await resolve(read_address(other)))[0]
        refusing = (socket.AF_INET6, ("::1", free_port("::1")))
        with await connect_to_first([refusing, good, spare]) as sock:
            assert sock.getpeername() == good[1]


async def test_the_last_address_tells_why_none_was_good(tmp_path: Path) -> None:
    """When all fail, one reason is told."""
    refusing = (socket.AF_INET, ("127.0.0.1", free_port()))
    missing = (socket.AF_UNIX, str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError):
        await connect_to_first([refusing, missing])
    with pytest.raises(ConnectionRefusedError):
        await connect_to_first([missing, refusing])
