"""Tell the wire that the VIPs are here: gratuitous ARP and unsolicited neighbour advertisements.

What keepalived does when it becomes MASTER, for when a rival has gone of which keepalived knew
nothing: the neighbours still believe what that one said last.
"""

from __future__ import annotations

import select
from contextlib import ExitStack
from functools import partial
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel.aside import Aside
from sentinel.neighbours import filters, packets
from sentinel.neighbours.wire import ETH_P_ARP, ETH_P_IPV6, open_on, own_mac

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection

    from sentinel.vrrp import Vip

#: Each is said so often, since nobody confirms it, and this far apart.
ROUNDS: Final = 3
PAUSE_S: Final = 0.1
TIMEOUT_S: Final = 3.0
VIPS_MAX: Final = 256
_ANY: Final = 0


async def announce(vips: Collection[Vip]) -> None:
    """Say ROUNDS times that these VIPs are at this node, VIPS_MAX of them at the most.

    Only for VIPs that it holds. Where neighbours have no MACs nothing is said.

    Raises OSError: an interface is missing or down, no CAP_NET_RAW, or it takes too long.
    """
    await Aside("announcing").run(partial(_announce, tuple(vips)[:VIPS_MAX]), TIMEOUT_S)


def _announce(vips: tuple[Vip, ...]) -> None:
    with ExitStack() as stack:
        sockets = {
            interface: stack.enter_context(open_on(interface, _ANY, filters.NOTHING))
            for interface in sorted({vip.interface for vip in vips})
        }
        for number in range(ROUNDS):
            if number:
                select.select((), (), (), PAUSE_S)  # see probe
            for vip in vips:
                _say(sockets[vip.interface], vip)


def _say(sock: socket.socket, vip: Vip) -> None:
    mac, address = own_mac(sock), ip_address(vip.address)
    if mac is None:
        return
    if isinstance(address, IPv4Address):
        for packet in packets.arp_announcements(mac, address):
            sock.sendto(packet, (vip.interface, ETH_P_ARP, 0, 0, packets.BROADCAST))
    else:
        router = _forwards(vip.interface)
        packet = packets.unsolicited_advertisement(mac, address, router=router)
        sock.sendto(packet, (vip.interface, ETH_P_IPV6, 0, 0, packets.ALL_NODES_MAC))


def _forwards(interface: str) -> bool:
    """Tell whether this node is a router there; one without such a file has no IPv6."""
    try:
        said = Path(f"/proc/sys/net/ipv6/conf/{interface}/forwarding").read_text(encoding="ascii")
    except OSError:
        return False
    return said.strip() != "0"
