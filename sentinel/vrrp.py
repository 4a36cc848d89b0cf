"""The nouns of VRRP: what keepalived is configured to do, and what is seen of it.

The words are keepalived's own (keepalived.conf(5)) and RFC 9568's. Beside ``model`` this is the
other module that everyone may import; it imports nothing of ours. Addresses are numeric, without
their prefix length, in the one spelling that ``ipaddress`` gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class VrrpState(StrEnum):
    """The states that keepalived prints, and STOP for an instance that it has shut down."""

    INIT = "INIT"
    BACKUP = "BACKUP"
    MASTER = "MASTER"
    FAULT = "FAULT"
    STOP = "STOP"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Vip:
    """One virtual address, and the interface that keepalived puts it on."""

    address: str
    prefix: int
    interface: str

    def __str__(self) -> str:
        """Name it as ``ip address`` takes it."""
        return f"{self.address}/{self.prefix} dev {self.interface}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracker:
    """A track file or script that an instance (or its sync group) tracks.

    *path* is the file watched or the program called; *weight* 0 means that it leads to FAULT.
    """

    name: str
    path: str
    weight: int = 0
    reverse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VrrpInstance:
    """One ``vrrp_instance`` as it is configured; *vips* are the excluded ones as well.

    *priority* is the base, 255 for the owner of the address. *group* is its sync group or empty;
    *source* the address it speaks from, empty when it is not written.
    """

    name: str
    interface: str = ""
    router_id: int = 0
    version: int = 2
    priority: int = 100
    advert_int_s: float = 1.0
    initial: VrrpState = VrrpState.BACKUP
    nopreempt: bool = False
    preempt_delay_s: float = 0.0
    source: str = ""
    peers: tuple[str, ...] = ()
    group: str = ""
    vips: tuple[Vip, ...] = ()
    track_files: tuple[Tracker, ...] = ()
    track_scripts: tuple[Tracker, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What keepalived itself says of one instance, and who said it: its FIFO or its JSON dump.

    *since_s* is when it was first heard; *priority* is the effective one, None while not known.
    """

    state: VrrpState
    since_s: float
    priority: int | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another machine that holds a VIP, or speaks for its instance, while this node is MASTER.

    *how* says what gave it away: ``ARP``, ``ND`` or ``VRRP``.
    """

    how: str
    address: str
    mac: str
    priority: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RivalsView:
    """The rivals of each instance, by its name, while this node is MASTER of it.

    An instance without any is not in it.
    """

    rivals: Mapping[str, tuple[Rival, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """One instance as it is seen now: *claim* is keepalived's word, *present* the kernel's."""

    instance: VrrpInstance
    claim: Claim | None = None
    present: tuple[Vip, ...] = ()

    @property
    def absent(self) -> tuple[Vip, ...]:
        """The VIPs that are not on this node."""
        return tuple(vip for vip in self.instance.vips if vip not in self.present)


@dataclass(frozen=True, slots=True, kw_only=True)
class VrrpView:
    """All instances, and keepalived's living processes; both are empty where there are none."""

    instances: tuple[InstanceView, ...] = ()
    pids: tuple[int, ...] = ()

    @property
    def held(self) -> tuple[InstanceView, ...]:
        """The instances whose VIPs are here because this node is MASTER, or was until it died."""
        return tuple(
            seen
            for seen in self.instances
            if seen.present
            and (not self.pids or (seen.claim and seen.claim.state is VrrpState.MASTER))
        )
