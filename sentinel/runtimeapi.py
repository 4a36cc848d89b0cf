"""Ask HAProxy over its stats socket: one command line a connection, and what the answers mean.

Nothing HAProxy does or fails to do can hold the caller up: a question has a deadline, its answer
a bound, and every ending is a value. An answer is always read to its end, because HAProxy
keeps the slot of a client that leaves unread bytes behind (haproxy/haproxy#2249, #2727).
The texts are read by column and key name, so that any version from 1.8 on will do.
"""

from __future__ import annotations

import asyncio
import csv
import errno
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sentinel.address import read_address
from sentinel.exchange.deadline import HELD_UP, held_up
from sentinel.exchange.endpoint import resolve
from sentinel.exchange.tcp import connect
from sentinel.model import Code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: ``show stat`` of 5,000 servers is 1.5 MB, ten times that is no answer of HAProxy's.
ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
_CHUNK_BYTES: Final = 256 * 1024
#: Everything else that breaks a connect is a fault on our side, and says nothing about HAProxy.
_NOBODY_THERE: Final = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
    }
)
_FAMILY: Final = re.compile(r"^(unix|ipv4|ipv6)@")

Row = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a question ended: with L7OK *text* is HAProxy's answer, else the reason for none.

    UNK: we could not ask, or not listen. L4CON, L4TOUT: nobody there, or nobody who accepts.
    L7TOUT: accepted, then silence or half an answer. L7RSP: ended without a usable answer.
    """

    code: Code
    text: str


_HELD_UP: Final = Answer(code=Code.UNK, text=HELD_UP)


async def ask(address: str, command: str, *, timeout_s: float) -> Answer:
    """Ask *command* at *address*, which is written as after ``stats socket`` in haproxy.cfg.

    That is ``/path``, ``HOST:PORT`` or ``[IPv6]:PORT``, with ``unix@``, ``ipv4@`` or ``ipv6@``
    before it or not. Several commands are joined by ``;`` (management guide, 9.3).
    """
    if not address:
        return Answer(
            code=Code.UNK,
            text="no stats socket: add `stats socket /run/haproxy/admin.sock mode 660"
            " level operator` to global in haproxy.cfg",
        )
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    late = Answer(code=Code.UNK, text=f"{address}: not resolved in {timeout_s:g} s")
    try:
        async with asyncio.timeout_at(deadline_s):
            endpoint, *_ = await resolve(read_address(_FAMILY.sub("", address)))
            late = Answer(code=Code.L4TOUT, text=f"{address}: not accepted in {timeout_s:g} s")
            sock = await connect(endpoint)
    except TimeoutError:
        return _HELD_UP if held_up(deadline_s) else late
    except PermissionError as error:
        cure = "run sentinel as root, or give the stats socket its group and mode 660"
        return Answer(code=Code.UNK, text=f"{address}: {error.strerror}: {cure}")
    except OSError as error:
        code = Code.L4CON if error.errno in _NOBODY_THERE else Code.UNK
        return Answer(code=code, text=f"{address}: {error.strerror or error}")
    except ValueError as error:
        return Answer(code=Code.UNK, text=f"stats socket {error}")
    with sock:
        return await _converse(sock, command, deadline_s)


async def _converse(sock: socket.socket, command: str, deadline_s: float) -> Answer:
    """Send the line, half-close (or a master CLI would stay open) and read to end of file."""
    loop = asyncio.get_running_loop()
    reply = bytearray()
    size_bytes = 0
    try:
        async with asyncio.timeout_at(deadline_s):
            await loop.sock_sendall(sock, f"{command}\n".encode())
            sock.shutdown(socket.SHUT_WR)
            while chunk := await loop.sock_recv(sock, _CHUNK_BYTES):
                size_bytes += len(chunk)
                reply += chunk[: max(0, ANSWER_MAX_BYTES - len(reply))]
    except TimeoutError:
        if held_up(deadline_s):
            return _HELD_UP
        if size_bytes > ANSWER_MAX_BYTES:
            return Answer(code=Code.L7RSP, text="endless answer")
        half = f"stopped after {size_bytes} bytes" if size_bytes else "accepted, no answer"
        return Answer(code=Code.L7TOUT, text=f"{half} within the deadline")
    except OSError as error:
        return Answer(code=Code.L7RSP, text=f"broke off: {error.strerror or error}")
    if size_bytes > ANSWER_MAX_BYTES:
        return Answer(code=Code.L7RSP, text=f"answer of {size_bytes} bytes is too long")
    if not reply.strip():
        return Answer(code=Code.L7RSP, text="closed without an answer")
    return Answer(code=Code.L7OK, text=reply.decode("utf-8", "replace"))


def replies(text: str) -> list[str]:
    """Split the answer to several commands; a blank line ends each (management guide, 9.3)."""
    return [block for block in text.split("\n\n") if block.strip()]


def info(text: str) -> Mapping[str, str]:
    """Read ``show info``: keys may hold spaces, and every version has others."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def stat(text: str, columns: Sequence[str]) -> list[Row]:
    """Read *columns* of ``show stat``, as far as this version has them; the first one it must have.

    There are about a hundred columns, and a thousand servers: what is not wanted is not kept.
    Raises ValueError when *text* is no such table.
    """
    try:
        lines = list(csv.reader(text.split("\n")))
    except csv.Error as error:
        raise ValueError(f"not a `show stat` table: {error}") from error
    return _rows(lines, columns, "show stat")


def servers_state(text: str, columns: Sequence[str]) -> list[Row]:
    """Read *columns* of ``show servers state`` in the same way."""
    lines = [line.removeprefix("# ").split(" ") for line in text.split("\n")]
    return _rows(lines[1:], columns, "show servers state")  # the first is the format's version


def _rows(lines: list[list[str]], columns: Sequence[str], command: str) -> list[Row]:
    names = [name.lstrip("# ").rstrip() for name in lines[0]] if lines else []
    if columns[0] not in names:
        raise ValueError(f"not a `{command}` table: it has no column {columns[0]}")
    places = [(name, names.index(name)) for name in columns if name in names]
    return [
        {name: line[place] for name, place in places if place < len(line)}
        for line in lines[1:]
        if any(line)
    ]


def number(cells: Mapping[str, str], name: str) -> int:
    """Return an integer cell; 0 where it is missing, empty or no number."""
    try:
        return int(cells.get(name) or 0)
    except ValueError:
        return 0
