"""Listen for the VRRP adverts of other machines, where this node is MASTER.

A MASTER alone on its wire hears none: the kernel refuses everything else, so that to listen costs
nothing until something is wrong. What this node's firewall drops is heard all the same.

Adverts in an IPsec authentication header (``auth_type AH``, gone from RFC 3768 on) are not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sentinel.aside import begin
from sentinel.neighbours import filters, packets
from sentinel.neighbours.packets import Advert
from sentinel.neighbours.wire import ETH_P_IP, ETH_P_IPV6, open_on, own_macs

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

#: An interface and a version of IP, 4 or 6.
Place = tuple[str, int]
#: Called with the interface, the advert, and the MAC it came from.
Hear = Callable[[str, Advert, str], None]

#: Whoever floods us with adverts is read this many at a time, and then not for a while.
BURST_MAX: Final = 32
REST_S: Final = 0.1
#: An advert has at most 255 addresses; then there are the headers.
_PACKET_BYTES: Final = 40 + 60 + 255 * 16
_FAMILIES: Final = {
    4: (ETH_P_IP, filters.adverts_in_ipv4),
    6: (ETH_P_IPV6, filters.adverts_in_ipv6),
}
#: The MACs that all routers of a VRID may share (RFC 9568, 7.3): such a one is nobody's own.
_VIRTUAL_MACS: Final = ("00:00:5e:00:01:", "00:00:5e:00:02:")


class Adverts:
    """Ears on the interfaces of the instances, on the running loop, until ``close``."""

    def __init__(self, hear: Hear) -> None:
        """Begin with none; *hear* is called from the loop for every foreign advert."""
        self._hear = hear
        self._ears: dict[tuple[str, int], _Ear] = {}

    def follow(self, wanted: Mapping[Place, frozenset[int]]) -> str:
        """Listen for exactly these VRIDs at these places; return what hinders it, or empty.

        Where the interface was down or has been replaced it begins anew.
        """
        for place in [
            place for place, ear in self._ears.items() if ear.deaf or place not in wanted
        ]:
            self._ears.pop(place).close()
        hindered = {}
        for place, router_ids in wanted.items():
            try:
                if place not in self._ears:
                    self._ears[place] = _Ear(place, self._hear)
                self._ears[place].listen_for(router_ids)
            except OSError as error:
                hindered[place[0]] = f"cannot listen on {place[0]}: {error.strerror}"
        return ", ".join(hindered.values())

    def close(self) -> None:
        """Hear nothing more."""
        self.follow({})


class _Ear:
    """One place where we listen; *deaf* once its interface has failed it."""

    def __init__(self, place: Place, hear: Hear) -> None:
        """Hear nothing before ``listen_for``; raises OSError."""
        self.deaf = False
        self._interface, version = place
        protocol, self._program = _FAMILIES[version]
        self._hear = hear
        self._router_ids: frozenset[int] = frozenset()
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._sock: socket.socket = open_on(self._interface, protocol, filters.NOTHING)
        self._loop.add_reader(self._sock, self._read)

    def listen_for(self, router_ids: frozenset[int]) -> None:
        """Let the adverts of these through; raises OSError."""
        if router_ids != self._router_ids:
            filters.attach(self._sock, self._program(router_ids))
            self._router_ids = router_ids

    def close(self) -> None:
        """Stop at once; the socket is closed in a thread, since that takes milliseconds."""
        self._pause()
        if self._rest is not None:
            self._rest.cancel()
        try:
            begin(self._sock.close, "closing what adverts were heard on")
        except OSError:  # then it takes the milliseconds here
            self._sock.close()

    def _read(self) -> None:
        try:
            own = own_macs()
            for _ in range(BURST_MAX):
                packet, (_, _, _, _, mac) = self._sock.recvfrom(_PACKET_BYTES)
                self._take(packet, packets.mac_text(mac), own)
        except BlockingIOError:  # that was all
            return
        except OSError:  # ENETDOWN: the interface is down, or has gone for ever
            self.deaf = True
            self._pause()
            return
        self._pause()
        self._rest = self._loop.call_later(REST_S, self._resume)

    def _take(self, packet: bytes, mac: str, own: frozenset[str]) -> None:
        advert = packets.parse_advert(packet)
        if advert is not None and (mac not in own or mac.startswith(_VIRTUAL_MACS)):
            self._hear(self._interface, advert, mac)

    def _pause(self) -> None:
        self._loop.remove_reader(self._sock)

    def _resume(self) -> None:
        self._loop.add_reader(self._sock, self._read)
