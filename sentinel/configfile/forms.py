"""What a text must look like beyond being one: a form accepts it, or raises RefusedError.

An empty text is right wherever its key may be empty; ``values`` has seen to that before. Of a list
every text is looked at, of a command its first word, the program.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sentinel.address import read_address, read_listen, read_log_target, read_peer_url
from sentinel.config import Backends, Command, Haproxy, Keepalived, Log, Peer, Probe, Status
from sentinel.configfile.problems import RefusedError

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_HEADER: Final = re.compile(rf"({_TOKEN.pattern}):[ -~]*")
_TARGET: Final = re.compile(r"\*|/[!-~]*")  # RFC 9112, section 3.2: origin-form or asterisk-form
_AUTHORITY: Final = re.compile(r"[!-~]+")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,63}")
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,246}\.service")
_GROUP: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_STATUS: Final = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
_FAMILY: Final = re.compile(r"(unix|ipv4|ipv6)@")

Form = Callable[[str], None]


def refusals(table: type, field: str, value: object) -> Iterator[RefusedError]:
    """Yield what is wrong with the form of *value*, which has the type that *field* asks for."""
    form = _FORMS.get((table, field))
    if form is None:
        return
    texts = value if isinstance(value, tuple) else (value,)
    for text in texts[:1] if form is _program else texts:
        try:
            form(text)
        except RefusedError as error:
            yield error


@contextmanager
def _in_two_parts() -> Iterator[None]:
    """Take a ValueError of ``sentinel.address`` apart: what is wrong, and the cure."""
    try:
        yield
    except ValueError as error:
        wrong, _, cure = str(error).rpartition(": ")
        raise RefusedError(wrong, cure) from None


def _address(text: str) -> None:
    with _in_two_parts():
        read_address(text)


def _stats_socket(text: str) -> None:
    """HAProxy's own spelling, ``unix@/path`` or ``ipv4@HOST:PORT``, is as good as without."""
    if text:
        _address(_FAMILY.sub("", text, count=1))


def _log_target(text: str) -> None:
    with _in_two_parts():
        read_log_target(text)


def _peer_url(text: str) -> None:
    if text:
        with _in_two_parts():
            read_peer_url(text)


def _listen(text: str) -> None:
    if text:
        with _in_two_parts():
            read_listen(text)


def _matches(pattern: re.Pattern[str], wrong: str, cure: str) -> Form:
    def form(text: str) -> None:
        if text and not pattern.fullmatch(text):
            raise RefusedError(f'"{text}" {wrong}', cure)

    return form


def _absolute(text: str) -> None:
    if text and not text.startswith("/"):
        raise RefusedError(f'"{text}" is a relative path', "begin it with /")


def _program(text: str) -> None:
    if not text.startswith("/"):
        raise RefusedError(f'"{text}" is a relative path', "write the program's whole path")


def _status(text: str) -> None:
    match = _STATUS.fullmatch(text)
    if match is None or (match[2] or match[1]) < match[1]:
        raise RefusedError(
            f'"{text}" is no HTTP status', 'write "200" or "200-399", from 100 to 599'
        )


def _header(text: str) -> None:
    match = _HEADER.fullmatch(text)
    if match is None:
        raise RefusedError(f'"{text}" is no header', 'write "Name: value" in ASCII')
    if match[1].lower() in {"content-length", "transfer-encoding"}:
        raise RefusedError(f'"{text}" announces a body', "leave it out: a probe sends none")


def _expression(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise RefusedError(
            f'"{text}" is no regular expression ({error})',
            "put a backslash before special characters",
        ) from None


_name: Final = _matches(_NAME, "is no name", "use letters, digits and _ . : / @ -, at most 64")
_method: Final = _matches(_TOKEN, "is no request method", 'write for example "GET"')
_target: Final = _matches(
    _TARGET, "is no request target", "begin it with / and encode blanks as %20"
)
_authority: Final = _matches(_AUTHORITY, "is no host", "write a host name, with or without a port")
_unit: Final = _matches(
    _UNIT, "is no service unit", 'write it with its ending, as "haproxy.service"'
)
_group: Final = _matches(_GROUP, "is no group", "write a group's name")

_FORMS: Final[dict[tuple[type, str], Form]] = {
    (Haproxy, "unit"): _unit,
    (Haproxy, "start"): _program,
    (Haproxy, "stop"): _program,
    (Haproxy, "restart"): _program,
    (Haproxy, "config"): _absolute,
    (Haproxy, "stats_socket"): _stats_socket,
    (Keepalived, "unit"): _unit,
    (Keepalived, "start"): _program,
    (Keepalived, "stop"): _program,
    (Peer, "url"): _peer_url,
    (Peer, "listen"): _listen,
    (Probe, "name"): _name,
    (Probe, "address"): _address,
    (Probe, "method"): _method,
    (Probe, "path"): _target,
    (Probe, "host"): _authority,
    (Probe, "sni"): _authority,
    (Probe, "headers"): _header,
    (Probe, "expect"): _status,
    (Probe, "body"): _expression,
    (Probe, "ca_file"): _absolute,
    (Backends, "method"): _method,
    (Backends, "path"): _target,
    (Backends, "host"): _authority,
    (Backends, "expect"): _status,
    (Command, "name"): _name,
    (Command, "argv"): _program,
    (Log, "target"): _log_target,
    (Status, "group"): _group,
}
