"""What a value must look like beyond its type: a form looks at one value, or raises RefusedError.

An empty value is right wherever its key may be empty; ``values`` has seen to that before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sentinel.address import read_address, read_log_target
from sentinel.config import Backends, Command, Haproxy, Keepalived, Log, Probe, Status
from sentinel.configfile.problems import RefusedError

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_HEADER: Final = re.compile(rf"({_TOKEN.pattern}):[ -~]*")
_TARGET: Final = re.compile(r"\*|/[!-~]*")  # RFC 9112, section 3.2: origin-form or asterisk-form
_AUTHORITY: Final = re.compile(r"[!-~]+")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@\[\]-]{0,63}")
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,246}\.service")
_GROUP: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_STATUS: Final = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
_FAMILY: Final = re.compile(r"(unix|ipv4|ipv6)@")

Form = Callable[[Any], None]


def form_of(table: type, field: str) -> Form | None:
    """Return what a value of *field* has to look like; None when its type says it all."""
    return _FORMS.get((table, field))


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


def _matches(pattern: re.Pattern[str], wrong: str, cure: str) -> Form:
    def form(text: str) -> None:
        if text and not pattern.fullmatch(text):
            raise RefusedError(f'"{text}" {wrong}', cure)

    return form


def _absolute(text: str) -> None:
    if text and not text.startswith("/"):
        raise RefusedError(f'"{text}" is a relative path', "begin it with /")


def _all_absolute(texts: tuple[str, ...]) -> None:
    for text in texts:
        _absolute(text)


def _argv(argv: tuple[str, ...]) -> None:
    if not argv[0].startswith("/"):
        raise RefusedError(f'"{argv[0]}" is a relative path', "write the program's whole path")


def _statuses(texts: tuple[str, ...]) -> None:
    for text in texts:
        match = _STATUS.fullmatch(text)
        if match is None or (match[2] or match[1]) < match[1]:
            raise RefusedError(
                f'"{text}" is no HTTP status', 'write "200" or "200-399", from 100 to 599'
            )


def _headers(texts: tuple[str, ...]) -> None:
    for text in texts:
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
_unit: Final = _matches(_UNIT, "is no service unit", 'write for example "haproxy.service"')
_group: Final = _matches(_GROUP, "is no group", "write a group's name")

_FORMS: Final[dict[tuple[type, str], Form]] = {
    (Haproxy, "unit"): _unit,
    (Haproxy, "start"): _argv,
    (Haproxy, "stop"): _argv,
    (Haproxy, "restart"): _argv,
    (Haproxy, "config"): _all_absolute,
    (Haproxy, "stats_socket"): _stats_socket,
    (Keepalived, "unit"): _unit,
    (Keepalived, "start"): _argv,
    (Keepalived, "stop"): _argv,
    (Probe, "name"): _name,
    (Probe, "address"): _address,
    (Probe, "method"): _method,
    (Probe, "path"): _target,
    (Probe, "host"): _authority,
    (Probe, "sni"): _authority,
    (Probe, "headers"): _headers,
    (Probe, "expect"): _statuses,
    (Probe, "body"): _expression,
    (Probe, "ca_file"): _absolute,
    (Backends, "method"): _method,
    (Backends, "path"): _target,
    (Backends, "host"): _authority,
    (Backends, "expect"): _statuses,
    (Command, "name"): _name,
    (Command, "argv"): _argv,
    (Log, "target"): _log_target,
    (Status, "group"): _group,
}
