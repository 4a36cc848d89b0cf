"""Where something listens, as a person writes it: ``HOST:PORT``, ``[IPv6]:PORT`` or ``/a/path``.

Pure reading, no resolver: whoever connects decides whether a name is good enough. A refusal is a
ValueError that says what is wrong and, after a colon, the cure.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

PORT_MAX: Final = 65535
#: sun_path holds 108 bytes, the last of them NUL (unix(7)).
UNIX_PATH_BYTES_MAX: Final = 107

_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_.-]{1,253}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """An Internet address; *host* is a name or a numeric address without brackets."""

    host: str
    port: int

    @property
    def numeric(self) -> bool:
        """No resolver has to be asked."""
        return _is_ip(self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixPath:
    """A Unix socket in the file system."""

    path: str


Address = HostPort | UnixPath


class Protocol(Enum):
    """The transports of syslog over a network."""

    UDP = "udp"
    TCP = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A syslog receiver that is reached over a network."""

    protocol: Protocol
    address: HostPort


#: Where events go; None for nowhere but stderr.
LogTarget = UnixPath | Remote | None


def read_address(text: str) -> Address:
    """Read ``HOST:PORT``, ``[IPv6]:PORT`` or an absolute path; ValueError says what is wrong."""
    if text.startswith("/"):
        return read_unix_path(text)
    return read_host_port(text, "HOST:PORT, [IPv6]:PORT or an absolute path")


def read_host_port(text: str, forms: str = "HOST:PORT or [IPv6]:PORT") -> HostPort:
    """Read ``HOST:PORT`` or ``[IPv6]:PORT``; *forms* are those that a refusal recommends."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f'"{text}" has no port: write {forms}')
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= PORT_MAX):
        raise ValueError(f'"{port}" is no port: write a number from 1 to {PORT_MAX}')
    if host.startswith("[") and host.endswith("]"):
        return HostPort(host=_ipv6(host[1:-1]), port=int(port))
    if ":" in host:
        raise ValueError(f'"{text}" is ambiguous: write an IPv6 address in brackets, [::1]:80')
    if not _HOST_NAME.fullmatch(host) or _looks_like_bad_ipv4(host):
        raise ValueError(f'"{host}" is no host: write a name or a numeric address')
    return HostPort(host=host, port=int(port))


def read_unix_path(text: str) -> UnixPath:
    """Read the absolute path of a Unix socket."""
    if len(text.encode()) > UNIX_PATH_BYTES_MAX:
        raise ValueError(
            f"a socket's path has at most {UNIX_PATH_BYTES_MAX} bytes: use a shorter one"
        )
    return UnixPath(path=text)


def read_log_target(text: str) -> LogTarget:
    """Read ``/path``, ``udp://HOST:PORT``, ``tcp://HOST:PORT`` or ``none``.

    A host must be numeric: the log is written from the event loop, where a resolver that does not
    answer would stop everything; and a name server is rarely alive when a log matters most.
    """
    if text == "none":
        return None
    if text.startswith("/"):
        return read_unix_path(text)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in {"udp", "tcp"}:
        raise ValueError(
            f'"{text}" is no log target: write /dev/log, udp://HOST:PORT, tcp://HOST:PORT or none'
        )
    address = read_host_port(rest)
    if not address.numeric:
        raise ValueError(
            f'"{address.host}" is a name, and a log must not wait for a resolver: '
            f"write its numeric address"
        )
    return Remote(protocol=Protocol(scheme), address=address)


def read_listen(text: str) -> HostPort:
    """Read ``HOST:PORT`` or ``[IPv6]:PORT`` to listen on; a host must be numeric.

    A name would be looked up on the event loop, and may mean another node tomorrow.
    """
    address = read_host_port(text)
    if not address.numeric:
        raise ValueError(
            f'"{address.host}" is a name, and a listener needs an address of this node: '
            f"write its numeric address"
        )
    return address


def read_peer_url(text: str) -> HostPort:
    """Read ``http://HOST:PORT/``: a peer answers in plain HTTP, and at / alone."""
    scheme, separator, rest = text.partition("://")
    place, _, path = rest.partition("/")
    if not separator or scheme != "http":
        raise ValueError(f'"{text}" is no URL of a peer: write http://HOST:PORT/')
    address = read_host_port(place, "http://HOST:PORT/")
    if path:
        raise ValueError(f'a peer does not answer at "/{path}": write http://{place}/')
    return address


def _ipv6(host: str) -> str:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise ValueError(f'"{host}" is no IPv6 address: write for example [::1]:80') from None
    return host


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _looks_like_bad_ipv4(host: str) -> bool:
    """All digits and dots, yet no IPv4 address: 10.0.0 or 10.0.0.256."""
    return not host.strip("0123456789.") and not _is_ip(host)
