"""One exchange: connect, shake hands, ask, hear the answer, under one deadline.

Frontend probes and direct probes of servers are the same exchange, so it lives here, beside
``program``: checks use it and do not import each other. Its rules:

- The phase that failed decides the code, as in HAProxy (management guide, ``check_status``):
  connect L4CON or L4TOUT, TLS handshake L6RSP or L6TOUT, answer L7RSP, L7STS or L7TOUT. The last
  layer that was asked for gives L4OK, L6OK or L7OK.
- HAProxy allows min(``timeout connect``, ``inter``) for the connect and then ``timeout check`` for
  the rest. Here one deadline holds for everything, so that a check never takes longer than it says.
- What fails on this node (no local port, no file descriptor, no permission, no such name, an
  unreadable CA file) is SOCKERR: it says nothing about the other side. Nor does a deadline that
  passed unseen because this process itself was held up (UNK).
- The world's faults come back as a Result; only our own mistakes are raised.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from sentinel.config import ProxyProtocol
from sentinel.exchange import proxyprotocol
from sentinel.exchange.deadline import HELD_UP, held_up
from sentinel.exchange.endpoint import authority, resolve
from sentinel.exchange.http import Conversation, Malformed, Request
from sentinel.exchange.tcp import Plain, connect_to_first
from sentinel.exchange.tls import Secure, Tls
from sentinel.model import Code, Verdict

if TYPE_CHECKING:
    from sentinel.address import Address
    from sentinel.exchange.http import Stream

__all__ = ["Request", "Result", "Target", "Tls", "authority", "exchange"]

_DETAIL_CHARS_MAX: Final = 200


class _Phase(Enum):
    """What is under way: the code when it breaks, when it is late, and what is then missing."""

    PREPARE = (Code.SOCKERR, Code.SOCKERR, "name resolved nor CA file read")
    CONNECT = (Code.L4CON, Code.L4TOUT, "connection")
    TLS = (Code.L6RSP, Code.L6TOUT, "end of the TLS handshake")
    RESPONSE = (Code.L7RSP, Code.L7TOUT, "answer")

    def __init__(self, broken: Code, late: Code, missing: str) -> None:
        self.broken = broken
        self.late = late
        self.missing = missing


#: What the other side, or the way to it, can do to us. Everything else is a fault of this node.
_REMOTE: Final = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ENOTCONN,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENOENT,  # the Unix socket's file is gone
    }
)
_PASSED: Final = frozenset({Code.L4OK, Code.L6OK, Code.L7OK})
_UNKNOWN: Final = frozenset({Code.UNK, Code.SOCKERR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to talk to, and how to get through to it."""

    address: Address
    tls: Tls | None = None
    proxy_protocol: ProxyProtocol = ProxyProtocol.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How an exchange ended; what it did not come to is None.

    *body* is kept where the request has something to match in it.
    """

    code: Code
    detail: str
    duration_ms: float
    connect_ms: float | None
    tls_ms: float | None
    response_ms: float | None
    status: int | None
    body: str | None
    certificate_not_after_s: float | None  # Unix time

    @property
    def verdict(self) -> Verdict:
        """What the code says about the other side."""
        if self.code in _PASSED:
            return Verdict.PASS
        return Verdict.UNKNOWN if self.code in _UNKNOWN else Verdict.FAIL


async def exchange(target: Target, request: Request | None, *, timeout_s: float) -> Result:
    """Connect to *target*, send *request* (None: stop at the connection) and judge the answer.

    A host name with several addresses is tried in their order, all within the one deadline.
    """
    course, deadline_s = _Course(), asyncio.get_running_loop().time() + timeout_s
    try:
        async with asyncio.timeout_at(deadline_s):
            code, detail = await _run(target, request, course)
    except TimeoutError:  # the kernel's own ETIMEDOUT is one, too
        code, detail = course.phase.late, f"no {course.phase.missing} within {timeout_s:g} s"
        if held_up(deadline_s):
            code, detail = Code.UNK, HELD_UP
    except Malformed as error:
        code, detail = Code.L7RSP, str(error)
    except ssl.SSLError as error:
        code = Code.SOCKERR if course.phase is _Phase.PREPARE else Code.L6RSP
        detail = _tls_reason(error)
    except OSError as error:
        code = course.phase.broken if error.errno in _REMOTE else Code.SOCKERR
        detail = _system_reason(error)
    return course.result(code, detail)


async def _run(target: Target, request: Request | None, course: _Course) -> tuple[Code, str]:
    """Go through the phases; what breaks one is raised."""
    context = await target.tls.context() if target.tls else None
    endpoints = await resolve(target.address)
    course.enter(_Phase.CONNECT)
    with await connect_to_first(endpoints) as sock:
        stream: Plain | Secure = Plain(sock)
        if header := proxyprotocol.header(target.proxy_protocol, sock):
            await stream.send(header)
        course.connect_ms = course.lap_ms()
        code, detail = Code.L4OK, "connected"
        if target.tls and context:
            course.enter(_Phase.TLS)
            stream = Secure(sock, context, target.tls.server_name)
            await stream.handshake()
            course.tls_ms = course.lap_ms()
            course.certificate_not_after_s = stream.not_after_s()
            code, detail = Code.L6OK, stream.version
        if request:
            course.enter(_Phase.RESPONSE)
            code, detail = await _ask(stream, request, course)
            course.response_ms = course.lap_ms()
        return code, detail


async def _ask(stream: Stream, request: Request, course: _Course) -> tuple[Code, str]:
    """Have the conversation and judge the answer."""
    conversation = Conversation(stream)
    course.status = status = await conversation.status(request)
    if not any(status in expected for expected in request.expect):
        return Code.L7STS, f"status {status}, expected {request.expected}"
    if request.body is None:
        return Code.L7OK, f"status {status}"
    course.body = body = await conversation.body()
    if not request.body.search(body):
        return Code.L7STS, f"status {status}, but the body does not match {request.body.pattern!r}"
    return Code.L7OK, f"status {status}"


def _system_reason(error: OSError) -> str:
    """Return the system's own words for *error*; those of asyncio name an address and no reason."""
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno) + (f": {error.filename}" if error.filename else "")
    return error.strerror or str(error)  # getaddrinfo's codes are not the system's


def _tls_reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason in words, without its file names and line numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    reason = getattr(error, "reason", None)  # only OpenSSL's own errors have one
    return reason.replace("_", " ").lower() if reason else str(error)


@dataclass(slots=True)
class _Course:
    """How far an exchange has come; kept while it runs, so that a broken one is told in full."""

    phase: _Phase = _Phase.PREPARE
    begun_s: float = field(default_factory=time.monotonic)
    phase_begun_s: float = 0.0
    connect_ms: float | None = None
    tls_ms: float | None = None
    response_ms: float | None = None
    status: int | None = None
    body: str | None = None
    certificate_not_after_s: float | None = None

    def enter(self, phase: _Phase) -> None:
        self.phase = phase
        self.phase_begun_s = time.monotonic()

    def lap_ms(self) -> float:
        """Return how long the phase has taken."""
        return (time.monotonic() - self.phase_begun_s) * 1000

    def elapsed_s(self) -> float:
        """Return how long the whole exchange has taken."""
        return time.monotonic() - self.begun_s

    def result(self, code: Code, detail: str) -> Result:
        """Close the account."""
        return Result(
            code=code,
            detail=detail[:_DETAIL_CHARS_MAX],
            duration_ms=self.elapsed_s() * 1000,
            connect_ms=self.connect_ms,
            tls_ms=self.tls_ms,
            response_ms=self.response_ms,
            status=self.status,
            body=self.body,
            certificate_not_after_s=self.certificate_not_after_s,
        )
