"""Virtual addresses, and the interfaces that keepalived puts them on.

With ``use_vmac`` that is a macvlan interface of keepalived's own making, named after the virtual
router (keepalived.conf(5), use_vmac, use_vmac_addr, vmac_prefix and vmac_addr_prefix).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from sentinel.keepalivedcfg.words import address, integer

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERFACE_CHARACTERS_MAX: Final = 15
IPV6: Final = 6
_VALUED: Final = frozenset({"dev", "scope", "broadcast", "brd", "label", "peer", "preferred_lft"})


class DroppedError(ValueError):
    """keepalived drops this address; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One virtual address as it is written; *device* is empty where ``dev`` is not given."""

    address: IPv4Address | IPv6Address
    prefix: int
    device: str = ""
    use_vmac: bool = False


def read_address(words: Sequence[str]) -> Address:
    """Read one line of ``virtual_ipaddress``; raises DroppedError."""
    written, _, length = words[0].partition("/")
    found = address(written)
    if found is None:
        raise DroppedError("is no address")
    options, use_vmac = _options(words[1:])
    if (options.keys() & {"brd", "broadcast"}) and found.version == IPV6:
        raise DroppedError("is IPv6, which has no broadcast")
    if len(options.get("label", "")) > INTERFACE_CHARACTERS_MAX:
        raise DroppedError(f"has a label of over {INTERFACE_CHARACTERS_MAX} characters")
    prefix = integer(length, 0, found.max_prefixlen) if "peer" not in options else None
    return Address(
        address=found,
        prefix=found.max_prefixlen if prefix is None else prefix,
        device=options.get("dev", ""),
        use_vmac=use_vmac,
    )


def _options(words: Sequence[str]) -> tuple[dict[str, str], bool]:
    """Return the options that have a value, and whether there is ``use_vmac``."""
    options: dict[str, str] = {}
    use_vmac = False
    rest = iter(words)
    for option in rest:
        if option in _VALUED:
            value = next(rest, "")
            if not value or (option == "dev" and "dev" in options):
                raise DroppedError(f"has no single {option}")
            options[option] = value
        use_vmac = use_vmac or option == "use_vmac"
    return options, use_vmac


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a macvlan interface is made for: one virtual router on one interface, of one family."""

    router_id: int
    family: int
    interface: str


@dataclass(slots=True, kw_only=True)
class Macvlans:
    """The macvlan interfaces that keepalived makes where none of them exists yet."""

    names: dict[Base, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def name(self, base: Base, prefix: str, wanted: str = "") -> str:
        """Return the name of the one for *base*: *wanted* if given, else the first that is free."""
        if base not in self.names:
            self.names[base] = wanted or self._free(base, prefix)
            self.taken.add(self.names[base])
        return self.names[base]

    def _free(self, base: Base, prefix: str) -> str:
        number, name = 0, _numbered(prefix, "", base.router_id)
        while name in self.taken:
            number = _following(number, base.family)
            name = _numbered(prefix, str(number), base.router_id)
        return name


def _following(number: int, family: int) -> int:
    """Return the next number to try: ``vrrp6`` comes second for IPv6, and is not tried again."""
    if family != IPV6:
        return number + 1
    if number in {0, IPV6}:
        return IPV6 if number == 0 else 1
    return number + 1 if number + 1 != IPV6 else number + 2


def _numbered(prefix: str, number: str, router_id: int) -> str:
    """Name an interface, in no more characters than one may have."""
    full = f"{prefix}{number}.{router_id}"
    over = max(0, len(full) - INTERFACE_CHARACTERS_MAX)
    return f"{prefix[: len(prefix) - over]}{number}.{router_id}"
