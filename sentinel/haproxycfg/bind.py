"""Read what follows ``bind``: addresses and options (configuration manual, 5.1 and 11)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PORT_MAX: Final = 65535
WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  (read, not bound)

_PREFIXED: Final = re.compile(r"(?:(?P<type>stream|dgram)\+)?(?:(?P<family>[a-z0-9]+)@)?")
_PORTS: Final = re.compile(r"(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?", re.ASCII)
_INHERITED: Final = re.compile(r"(?:stream\+)?fd@(?P<descriptor>[0-9]{1,7})", re.ASCII)
_ANY_IP: Final = frozenset({"", "ip", "tcp", "mptcp"})
_IPV4: Final = frozenset({"ipv4", "tcp4", "mptcp4"})
_IPV6: Final = frozenset({"ipv6", "tcp6", "mptcp6"})
_UNIX: Final = frozenset({"unix", "uxst"})

#: Options that are followed by a value; without this list a value might be taken for an option.
_VALUED: Final = frozenset(
    """
    accept-netscaler-cip alpn backlog ca-file ca-ignore-err ca-sign-file ca-sign-pass
    ca-verify-file cc ciphers ciphersuites client-sigalgs crl-file crt crt-ignore-err crt-list
    curves default-crt ecdhe expose-fd gid group guid-prefix id idle-ping interface ktls label
    level maxconn mode mss name namespace nbconn nice npn ocsp-update process proto quic-cc-algo
    quic-socket severity-output shards sigalgs ssl-max-ver ssl-min-ver tcp-md5sig tcp-ss tcp-ut
    thread tls-ticket-keys uid user verify
    """.split()  # noqa: SIM905  (a list of words reads as one)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """One listener: an address of one ``bind`` line, and the options that matter to a probe.

    *address* is as written, wildcards as ``0.0.0.0`` or ``::``, IPv6 without brackets. It is empty
    for a Unix socket, which has a *path*; both are empty for what is no byte stream
    (``quic4@:443``), has no file (``abns@name``) or is inherited as a *descriptor* (``fd@3``), and
    then only the process that has it tells where it is. *port_end* ends a range.
    """

    written: str
    address: str = ""
    port: int = 0
    port_end: int = 0
    path: str = ""
    descriptor: int | None = None
    ssl: bool = False
    accept_proxy: bool = False
    accept_netscaler: bool = False
    transparent: bool = False
    v4v6: bool = False
    v6only: bool = False
    strict_sni: bool = False
    client_certificate: bool = False  # verify required
    interface: str = ""
    namespace: str = ""
    proto: str = ""
    name: str = ""

    def reachable_at(self, port: int) -> str:
        """Return where this node reaches it: ``HOST:PORT``, wildcards on the loopback address."""
        if self.path:
            return self.path
        host = self.address
        if host in WILDCARDS:
            host = "::1" if host == "::" and not self.v4v6 else "127.0.0.1"
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_binds(words: Sequence[str], unix_prefix: str = "") -> Iterator[Bind]:
    """Read the addresses of one line and their common options.

    *unix_prefix* is ``unix-bind prefix`` of the global section.
    """
    addresses, options = words[0].split(","), options_of(words[1:])
    for written in filter(None, addresses):
        address, port, port_end, path = _place(written)
        yield Bind(
            written=written,
            address=address,
            port=port,
            port_end=port_end,
            path=unix_prefix + path if path else "",
            descriptor=_descriptor(written),
            ssl="ssl" in options,
            accept_proxy="accept-proxy" in options,
            accept_netscaler="accept-netscaler-cip" in options,
            transparent="transparent" in options,
            v4v6="v4v6" in options and "v6only" not in options,  # which overrides it
            v6only="v6only" in options,
            strict_sni="strict-sni" in options,
            client_certificate=options.get("verify") == "required",
            interface=options.get("interface", ""),
            namespace=options.get("namespace", ""),
            proto=options.get("proto", ""),
            name=options.get("name", ""),
        )


def _descriptor(written: str) -> int | None:
    """Return the number of an inherited socket."""
    found = _INHERITED.fullmatch(written)
    return int(found["descriptor"]) if found else None


def options_of(words: Sequence[str]) -> dict[str, str]:
    """Return the options after an address with their values, "" for those that have none."""
    options: dict[str, str] = {}
    rest = iter(words)
    for option in rest:
        options[option] = next(rest, "") if option in _VALUED else ""
    return options


def _place(written: str) -> tuple[str, int, int, str]:
    """Return address, first port, last port and path; all empty for what nobody can connect to."""
    nowhere = ("", 0, 0, "")
    prefixed = _PREFIXED.match(written)
    family = (prefixed["family"] or "") if prefixed else ""
    rest = written[prefixed.end() :] if prefixed else written
    if prefixed and prefixed["type"] == "dgram":
        return nowhere
    if family in _UNIX or (not family and rest.startswith("/")):
        return ("", 0, 0, rest) if rest.startswith("/") else nowhere
    host, colon, port = rest.rpartition(":")
    ports = _PORTS.fullmatch(port)
    if family not in _ANY_IP | _IPV4 | _IPV6 or not colon or not ports:
        return nowhere
    first = int(ports["first"])
    last = int(ports["last"] or first)
    if not 0 < first <= last <= PORT_MAX:
        return nowhere
    host = host.strip("[]")
    if host in {"", "*"}:
        host = "::" if family in _IPV6 else "0.0.0.0"  # noqa: S104  (read, not bound)
    return host, first, last, ""
