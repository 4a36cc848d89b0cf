"""What neighbours say, built and read back, and garbage of every kind."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vrrpadverts import advert

from sentinel.neighbours import packets
from sentinel.neighbours.packets import Advert, Advertisement, Arp

if TYPE_CHECKING:
    from collections.abc import Callable

MAC = bytes.fromhex("0200000000ab")
macs = st.binary(min_size=6, max_size=6)
ipv4 = st.ip_addresses(v=4)
ipv6 = st.ip_addresses(v=6)
PARSERS = (packets.parse_arp, packets.parse_advertisement, packets.parse_advert)


def test_an_arp_probe_is_what_the_rfc_says() -> None:
    """A request from 0.0.0.0, to nobody's MAC: RFC 5227, 2.1.1."""
    probe = packets.arp_probe(MAC, IPv4Address("192.0.2.1"))
    assert probe.hex() == "00010800060400010200000000ab00000000000000000000c0000201"


def test_announcements_are_a_request_and_a_reply() -> None:
    """Sender and target are the VIP in both: RFC 5227, 3."""
    request, reply = packets.arp_announcements(MAC, IPv4Address("192.0.2.1"))
    assert request.hex() == "00010800060400010200000000abc0000201000000000000c0000201"
    assert reply.hex() == "00010800060400020200000000abc0000201ffffffffffffc0000201"


def test_a_solicitation_goes_from_nowhere_to_the_holders_group() -> None:
    """RFC 4862, 5.4.2."""
    vip = IPv6Address("2001:db8::12:3456")
    packet = packets.neighbour_solicitation(vip)
    assert packet[8:24] == bytes(16)
    assert IPv6Address(packet[24:40]) == IPv6Address("ff02::1:ff12:3456")
    assert packets.solicited_node_mac(vip).hex(":") == "33:33:ff:12:34:56"
    assert packet[40:42] == b"\x87\0"
    assert packet[48:] == vip.packed


@pytest.mark.parametrize(("router", "flags"), [(False, 0x20), (True, 0xA0)])
def test_an_unsolicited_advertisement_overrides(router: bool, flags: int) -> None:  # noqa: FBT001
    """And it says of a router that it is one: RFC 4861, 4.4."""
    packet = packets.unsolicited_advertisement(MAC, IPv6Address("2001:db8::1"), router=router)
    assert packet[44] == flags
    assert packet[24:40] == packets.ALL_NODES.packed
    assert packet[64:] == b"\2\1" + MAC


@given(macs, ipv6, st.booleans())
def test_the_checksum_holds(mac: bytes, vip: IPv6Address, router: bool) -> None:  # noqa: FBT001
    """Summed with its pseudo-header and its checksum, a message gives nothing (RFC 1071)."""
    for packet in (
        packets.neighbour_solicitation(vip),
        packets.unsolicited_advertisement(mac, vip, router=router),
    ):
        length = (len(packet) - 40).to_bytes(4)
        assert packets.checksum(packet[8:40] + length + b"\0\0\0\x3a" + packet[40:]) == 0


@given(macs, ipv4.filter(int))
def test_what_is_announced_by_arp_is_read_back(mac: bytes, vip: IPv4Address) -> None:
    """In both forms."""
    for packet in packets.arp_announcements(mac, vip):
        assert packets.parse_arp(packet) == Arp(mac=mac.hex(":"), address=str(vip))


@given(macs, ipv4)
def test_who_only_asks_claims_nothing(mac: bytes, vip: IPv4Address) -> None:
    """Another machine's probe is no sign of a rival."""
    assert packets.parse_arp(packets.arp_probe(mac, vip)) is None


@given(macs, ipv6, st.booleans())
def test_what_is_advertised_is_read_back(
    mac: bytes,
    vip: IPv6Address,
    router: bool,  # noqa: FBT001
) -> None:
    """Behind whatever other options there are."""
    packet = packets.unsolicited_advertisement(mac, vip, router=router)
    said = Advertisement(mac=mac.hex(":"), address=str(vip))
    assert packets.parse_advertisement(packet) == said
    nonce = b"\x0e\1abcdef"
    assert packets.parse_advertisement(packet[:64] + nonce + packet[64:]) == said
    assert packets.parse_advertisement(packet[:64]) == Advertisement(mac="", address=str(vip))


def test_an_option_of_no_length_ends_the_search() -> None:
    """It must not be searched for ever: RFC 4861, 4.6."""
    packet = packets.unsolicited_advertisement(MAC, IPv6Address("2001:db8::1"), router=False)
    found = packets.parse_advertisement(packet[:64] + b"\x0e\0abcdef" + packet[64:])
    assert found == Advertisement(mac="", address="2001:db8::1")


@given(
    st.sampled_from((2, 3)),
    st.integers(1, 255),
    st.integers(0, 255),
    st.one_of(
        st.tuples(ipv4, st.lists(ipv4, max_size=20)), st.tuples(ipv6, st.lists(ipv6, max_size=20))
    ),
    st.binary(max_size=40).map(lambda raw: raw[: len(raw) // 4 * 4]),
)
def test_adverts_of_both_versions_and_families_are_read(
    version: int,
    router_id: int,
    priority: int,
    addresses: tuple[IPv4Address, list[IPv4Address]] | tuple[IPv6Address, list[IPv6Address]],
    options: bytes,
) -> None:
    """Whatever options the IPv4 header has; a password behind the addresses does not matter."""
    source, vips = addresses
    said = Advert(
        source=str(source),
        version=version,
        router_id=router_id,
        priority=priority,
        addresses=tuple(map(str, vips)),
    )
    packet = advert(said, options=options if source.version == 4 else b"")
    assert packets.parse_advert(packet) == said
    assert packets.parse_advert(packet + b"password") == said
    for end in range(len(packet)):
        assert packets.parse_advert(packet[:end]) is None


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@given(st.binary(max_size=120))
@example(b"")
def test_garbage_is_nothing(parse: Callable[[bytes], object], packet: bytes) -> None:
    """It comes from anybody on the wire: nothing raises."""
    parse(packet)


@given(st.data())
def test_a_packet_with_a_flipped_bit_raises_nothing(data: st.DataObject) -> None:
    """The likes of what is looked for, in which any one byte is another."""
    vips = ("192.0.2.1", "192.0.2.2")
    said = Advert(source="192.0.2.9", version=3, router_id=51, priority=100, addresses=vips)
    packet = bytearray(
        data.draw(
            st.sampled_from(
                (
                    advert(said),
                    packets.arp_announcements(MAC, IPv4Address("192.0.2.1"))[0],
                    packets.unsolicited_advertisement(MAC, IPv6Address("fe80::1"), router=True),
                )
            )
        )
    )
    packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    for parse in PARSERS:
        parse(bytes(packet))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 0x46),  # an IPv4 header that pretends to be one of IPv6, and so on
        (6, 6),  # TCP
        (7, 254),  # a router has forwarded it
        (40, 135),  # a solicitation
        (41, 1),  # a code that nobody has defined
    ],
)
def test_what_is_no_advertisement_of_this_link_is_not_believed(at: int, value: int) -> None:
    """RFC 4861, 7.1.2."""
    whole = packets.unsolicited_advertisement(MAC, IPv6Address("2001:db8::1"), router=False)
    packet = bytearray(whole)
    packet[at] = value
    assert packets.parse_advertisement(bytes(packet)) is None
