"""The cables of a pair: which interface leads to which switch, and with which addresses. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from sentinel.drill.servers import INVENTED
from sentinel.keepalivedcfg import KeepalivedConf
from sentinel.vrrp import VrrpInstance

#: Every node has it.
_UNCABLED: Final = frozenset({"lo"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cable:
    """One interface of a node, its own addresses (``192.168.1.189/24``) and the switch it is in."""

    interface: str
    switch: int
    addresses: tuple[str, ...]


def cables_of(confs: Sequence[KeepalivedConf], taken: Sequence[str]) -> list[tuple[Cable, ...]]:
    """Lay a cable to every interface; those of one virtual router lead to the same switch."""
    master, backup = confs
    switches = {name: number for number, name in enumerate(_cabled(master))}
    twin = {
        theirs.interface: switches[ours.interface]
        for ours in master.instances
        for theirs in backup.instances
        if ours.router_id == theirs.router_id
        and {ours.interface, theirs.interface}.isdisjoint(_UNCABLED)
    }
    spare = iter(range(250, 1, -1))
    used = {*taken, *(i.source for conf in confs for i in conf.instances)}
    cables = []
    for conf, other, known in ((master, backup, switches), (backup, master, twin)):
        cables.append(
            tuple(
                Cable(
                    interface=name,
                    switch=known.get(name, switches.get(name, 0)),
                    addresses=_addresses(name, conf, other, used, spare),
                )
                for name in _cabled(conf)
            )
        )
    return cables


def _cabled(conf: KeepalivedConf) -> list[str]:
    return [name for name in conf.interfaces if name not in _UNCABLED]


def _addresses(
    name: str, conf: KeepalivedConf, other: KeepalivedConf, used: set[str], spare: Iterator[int]
) -> tuple[str, ...]:
    """Return the addresses that the files give an interface, or one near its VIP."""
    here = [instance for instance in conf.instances if instance.interface == name]
    written = [address for instance in here for address in _sources(instance, other)]
    if not any("." in address for address in written):
        vips = [vip.address for instance in here for vip in instance.vips]
        base = next((vip for vip in vips if "." in vip), f"{INVENTED}0")
        network = ip_network(f"{base}/24", strict=False)
        free = (str(network[number]) for number in spare)
        written.append(next(address for address in free if address not in used))
        used.add(written[-1])
    return tuple(f"{a}/64" if ":" in a else f"{a}/24" for a in dict.fromkeys(written))


def _sources(instance: VrrpInstance, other: KeepalivedConf) -> Iterator[str]:
    """Yield what a node must be known by: its own word, else the only peer its peer names."""
    twins = [i for i in other.instances if i.router_id == instance.router_id]
    if instance.source:
        yield instance.source
    elif len(twins) == 1 and len(twins[0].peers) == 1:
        yield twins[0].peers[0]
