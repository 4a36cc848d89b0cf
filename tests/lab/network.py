"""Networks of the lab: a namespace for every machine, cables between them and a switch.

All of it lives in namespaces of its own; the host's network is neither used nor changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from lab.command import run
from lab.traces import new_name, remove

if TYPE_CHECKING:
    import subprocess

_BRIDGE: Final = "switch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cable:
    """One end of a cable: a machine's interface and its fixed address (``10.0.0.1/24``)."""

    interface: str
    address: str


class Namespace:
    """The network of one machine, with lo up. To be removed by ``close`` or ``with``."""

    def __init__(self, name: str | None = None) -> None:
        self.name: Final = name or new_name()
        self._cables: list[Cable] = []
        run(("ip", "netns", "add", self.name))
        self.ip("link", "set", "lo", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the namespace; its ends of cables vanish, and with them the other ends."""
        remove(self.name)

    def inside(self, *argv: str) -> tuple[str, ...]:
        """Return the command line that runs *argv* in this network, on the host's files."""
        return ("nsenter", f"--net=/run/netns/{self.name}", "--", *argv)

    def run(
        self, *argv: str, timeout_s: float = 10.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the host in this network; see ``command.run``."""
        return run(self.inside(*argv), timeout_s=timeout_s, check=check)

    def ip(self, *arguments: str) -> str:
        """Run iproute2 on this network and return what it prints."""
        return run(("ip", "-n", self.name, *arguments)).stdout

    def attach(self, cable: Cable) -> None:
        """Give an interface that has just come into being its address, and use it."""
        self._cables.append(cable)
        self._set_up(cable)

    def lose_power(self) -> None:
        """Let every link go dark and forget its addresses, the VIPs too.

        A network namespace alone would go on answering ARP for a dead machine.
        """
        for cable in self._cables:
            self.ip("link", "set", cable.interface, "down")
            self.ip("address", "flush", "dev", cable.interface)

    def regain_power(self) -> None:
        """Bring every link up with its fixed address alone."""
        for cable in self._cables:
            self._set_up(cable)

    def _set_up(self, cable: Cable) -> None:
        # replace: a node that is switched on for the first time has its addresses already
        self.ip("address", "replace", cable.address, "dev", cable.interface)
        self.ip("link", "set", cable.interface, "up")


class Switch:
    """An Ethernet switch that floods multicast (VRRP): a bridge in a namespace of its own."""

    def __init__(self) -> None:
        self._namespace: Final = Namespace()
        self._ports: dict[tuple[str, str], str] = {}
        bridge = ("type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        self._namespace.ip("link", "add", _BRIDGE, *bridge)
        self._namespace.ip("link", "set", _BRIDGE, "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the switch and all its cables."""
        self._namespace.close()

    def connect(self, machine: Namespace, address: str, interface: str = "eth0") -> None:
        """Lay a cable to *machine*, whose *interface* comes up with *address* (``10.0.0.1/24``)."""
        port = f"port{len(self._ports) + 1}"
        peer = ("peer", "name", interface, "netns", machine.name)
        self._namespace.ip("link", "add", port, "type", "veth", *peer)
        self._namespace.ip("link", "set", port, "master", _BRIDGE, "up")
        self._ports[machine.name, interface] = port
        machine.attach(Cable(interface=interface, address=address))

    def pull(self, machine: Namespace, interface: str = "eth0") -> None:
        """Pull the cable: the machine's interface stays up and loses its carrier."""
        self._namespace.ip("link", "set", self._ports[machine.name, interface], "down")

    def keep_multicast(self, machine: Namespace, *, kept: bool, interface: str = "eth0") -> None:
        """Keep multicast (VRRP) from *machine*, or no longer; all else passes: a one-way loss."""
        port = self._ports[machine.name, interface]
        flood = "off" if kept else "on"
        self._namespace.ip("link", "set", port, "type", "bridge_slave", "mcast_flood", flood)

    def plug(self, machine: Namespace, interface: str = "eth0") -> None:
        """Plug the cable in again."""
        self._namespace.ip("link", "set", self._ports[machine.name, interface], "up")
