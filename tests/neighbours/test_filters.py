"""The programs of classic BPF, run by this kernel on packets of the test's own.

A filter sees a datagram of a Unix socket as it sees a packet from the wire: its first byte first.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from vrrpadverts import advert

from sentinel.neighbours import filters, packets
from sentinel.neighbours.packets import Advert

if TYPE_CHECKING:
    from sentinel.neighbours.filters import Program

MAC = bytes.fromhex("0200000000ab")
router_ids = st.integers(1, 255)
ipv4 = st.ip_addresses(v=4).filter(int)
ipv6 = st.ip_addresses(v=6)


def passes(program: Program, packet: bytes) -> bool:
    """Tell whether the kernel lets *packet* through, whole."""
    with ExitStack() as stack:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for sock in (ours, theirs):
            stack.enter_context(sock)
            sock.settimeout(0)
        filters.attach(ours, program)
        try:
            theirs.send(packet)
            got = ours.recv(65536)
        except (BlockingIOError, PermissionError):  # EPERM: refused by the filter
            return False
        assert got == packet
        return True


def spoken(source: IPv4Address | IPv6Address, router_id: int) -> bytes:
    """Return an advert."""
    said = Advert(
        source=str(source), version=3, router_id=router_id, priority=100, addresses=(str(source),)
    )
    return advert(said)


@given(st.sets(router_ids), router_ids, st.sampled_from((b"", b"\1\1\1\1", b"\1" * 40)))
def test_only_adverts_of_the_wanted_routers_pass(
    wanted: set[int], router_id: int, options: bytes
) -> None:
    """Of both families, and behind whatever options the IPv4 header has."""
    said = Advert(
        source="192.0.2.1", version=2, router_id=router_id, priority=1, addresses=("192.0.2.9",)
    )
    program = filters.adverts_in_ipv4(wanted)
    assert passes(program, advert(said, options)) is (router_id in wanted)
    program = filters.adverts_in_ipv6(wanted)
    assert passes(program, spoken(IPv6Address("fe80::1"), router_id)) is (router_id in wanted)


def test_all_virtual_routers_that_there_can_be() -> None:
    """The longest program is still one to the kernel."""
    everyone = range(1, 256)
    for router_id in everyone:
        assert passes(
            filters.adverts_in_ipv4(everyone), spoken(IPv4Address("192.0.2.1"), router_id)
        )


@given(st.integers(0, 255), st.binary(min_size=8, max_size=64), st.booleans())
def test_other_protocols_do_not_pass(protocol: int, payload: bytes, old: bool) -> None:  # noqa: FBT001
    """Whatever their payload looks like."""
    if old:
        packet = bytearray(spoken(IPv4Address("192.0.2.1"), 51)[:20] + b"\x31\x33" + payload)
        packet[9] = protocol
        program = filters.adverts_in_ipv4({51})
    else:
        packet = bytearray(spoken(IPv6Address("fe80::1"), 51)[:40] + b"\x31\x33" + payload)
        packet[6] = protocol
        program = filters.adverts_in_ipv6({51})
    assert passes(program, bytes(packet)) is (protocol == packets.IPPROTO_VRRP)


@given(st.integers(1, 0x1FFF))
def test_the_rest_of_a_fragmented_packet_does_not_pass(offset: int) -> None:
    """What stands where the VRID would be is something else."""
    packet = bytearray(spoken(IPv4Address("192.0.2.1"), 51))
    packet[6:8] = offset.to_bytes(2)
    assert not passes(filters.adverts_in_ipv4({51}), bytes(packet))


@given(st.binary(max_size=80))
def test_what_is_too_short_does_not_pass(packet: bytes) -> None:
    """A load beyond the end refuses the packet."""
    assert not passes(filters.NOTHING, packet)
    if len(packet) < 20:
        assert not passes(filters.adverts_in_ipv4({51}), packet)
    if len(packet) < 64:
        assert not passes(filters.advertisements_of((IPv6Address("::1"),)), packet)


@given(st.lists(ipv4, max_size=8), ipv4)
def test_only_arp_of_the_wanted_addresses_passes(
    wanted: list[IPv4Address], vip: IPv4Address
) -> None:
    """Announcements and answers; a probe for it claims nothing."""
    for packet in packets.arp_announcements(MAC, vip):
        assert passes(filters.arp_of(wanted), packet) is (vip in wanted)
        assert passes(filters.arp_of([*wanted, vip]), packet)
    assert not passes(filters.arp_of([*wanted, vip]), packets.arp_probe(MAC, vip))


@given(st.lists(ipv6, max_size=8), ipv6)
def test_only_advertisements_of_the_wanted_addresses_pass(
    wanted: list[IPv6Address], vip: IPv6Address
) -> None:
    """The kernel compares their last quarters; solicitations are none."""
    packet = packets.unsolicited_advertisement(MAC, vip, router=False)
    tails = {address.packed[12:] for address in wanted}
    assert passes(filters.advertisements_of(wanted), packet) is (vip.packed[12:] in tails)
    assert passes(filters.advertisements_of([*wanted, vip]), packet)
    solicitation = packets.neighbour_solicitation(vip)
    assert not passes(filters.advertisements_of([vip]), solicitation)
