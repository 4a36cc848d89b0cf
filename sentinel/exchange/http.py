"""One HTTP/1.1 request and as much of the answer as is asked for, over h11.

Everything that is read is bounded: the headers of an answer by HEADERS_MAX_BYTES, the body by
BODY_MAX_BYTES, all of it with interim answers and chunk framing by RECEIVED_MAX_BYTES. The body is
read only when there is something to match in it. What has come is read without a wait, so others
get their turn between any two parts of an answer.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import h11

from sentinel import __version__
from sentinel.exchange.tcp import RECEIVED_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADERS_MAX_BYTES: Final = 16 * 1024
BODY_MAX_BYTES: Final = 64 * 1024
#: After this nobody speaks HTTP any more: no answer follows (RFC 9110, section 15.2.2).
_SWITCHING_PROTOCOLS: Final = 101
_STATUSES: Final = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?", re.ASCII)


class Stream(Protocol):
    """What a request needs of its connection."""

    async def send(self, data: bytes) -> None:
        """Send all of *data*."""
        ...

    async def receive(self) -> bytes:
        """Return what has come; empty at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One request and the answer that is expected to it; built once, sent many times."""

    head: h11.Request
    expect: tuple[range, ...]
    expected: str
    body: re.Pattern[str] | None

    @classmethod
    def build(
        cls,
        *,
        host: str,
        method: str = "HEAD",
        path: str = "/",
        headers: Sequence[str] = (),
        expect: Sequence[str] = ("100-599",),
        body: str = "",
    ) -> Request:
        """Check and prepare a request; raises ValueError naming the part that is wrong.

        *headers* are more headers, each ``Name: value``; one of them may replace Host, User-Agent
        or Connection.
        """
        lines = {
            "host": ("Host", host),
            "user-agent": ("User-Agent", f"sentinel/{__version__}"),
            "connection": ("Connection", "close"),
        }
        more = []
        for line in headers:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f'{line!r} is no header: write "Name: value"')
            lines.pop(name.lower(), None)
            more.append((name, value.strip()))
        try:
            head = h11.Request(method=method, target=path, headers=[*lines.values(), *more])
            pattern = re.compile(body) if body else None
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise ValueError(f"request {method} {path}: {error}") from error
        except re.error as error:
            raise ValueError(f"body {body!r} is no regular expression: {error}") from error
        return cls(head, tuple(map(statuses, expect)), ", ".join(expect), pattern)


def statuses(text: str) -> range:
    """Read ``200`` or ``200-399``; raises ValueError."""
    found = _STATUSES.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is no status: write "200" or "200-399"')
    low, high = int(found[1]), int(found[2] or found[1])
    if high < low:
        raise ValueError(f"{text!r} is empty: the lower status comes first")
    return range(low, high + 1)


class Malformed(Exception):  # noqa: N818  (what was received, not an error of ours)
    """The answer is not what HTTP allows, or more than we read."""


class Conversation:
    """One request under way on one connection."""

    __slots__ = ("_parser", "_received_bytes", "_stream")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADERS_MAX_BYTES)
        self._received_bytes = 0

    async def status(self, request: Request) -> int:
        """Send *request* and return the status of the final answer.

        Raises Malformed, and OSError from the connection.
        """
        data = self._parser.send(request.head)
        assert data is not None  # noqa: S101  (only ConnectionClosed has no bytes)
        self._parser.send(h11.EndOfMessage())
        with suppress(ConnectionError):  # who stopped listening may have answered all the same
            await self._stream.send(data)
        while isinstance(event := await self._next_event(), h11.InformationalResponse):
            if event.status_code == _SWITCHING_PROTOCOLS:
                return event.status_code
            await asyncio.sleep(0)
        if not isinstance(event, h11.Response):
            raise Malformed("no answer where one belongs")
        return event.status_code

    async def body(self) -> str:
        """Return the body's first BODY_MAX_BYTES as text; raises Malformed and OSError."""
        body = bytearray()
        while len(body) < BODY_MAX_BYTES and isinstance(
            event := await self._next_event(), h11.Data
        ):
            body += event.data
            await asyncio.sleep(0)
        return body[:BODY_MAX_BYTES].decode("utf-8", "replace")

    async def _next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """Return the next whole event; h11 bounds what one event may take, this what all may."""
        try:
            while (event := self._parser.next_event()) is h11.NEED_DATA:
                data = await self._stream.receive()
                if not data and self._parser.their_state is h11.SEND_RESPONSE:
                    raise Malformed(f"closed after {self._received_bytes} bytes, before an answer")
                self._received_bytes += len(data)
                if self._received_bytes > RECEIVED_MAX_BYTES:
                    raise Malformed(f"more than {RECEIVED_MAX_BYTES} bytes")
                self._parser.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise Malformed(str(error)) from error
        return event
