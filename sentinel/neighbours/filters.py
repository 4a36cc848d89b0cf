"""Which packets wake us: programs of classic BPF, run by the kernel for each packet it receives.

On a busy load balancer there are a hundred thousand packets a second and none of them is for us.
Each program is a handful of instructions that the kernel compiles; what it refuses costs neither a
copy nor a wake-up. Offsets count from the network header, since the sockets are without the link's
own (``wire``).

The instructions: linux/filter.h, linux/bpf_common.h, and Documentation/networking/filter.rst.
"""

from __future__ import annotations

import socket
from array import array
from struct import Struct
from typing import TYPE_CHECKING, Final

from sentinel.neighbours.packets import IPPROTO_VRRP

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv6Address

#: How many values one program tells from all others: a jump is a byte. There are as many VRIDs.
VALUES_MAX: Final = 255
#: One instruction: what to do, how far to jump when it is true and when not, and its operand.
Instruction = tuple[int, int, int, int]
Program = tuple[Instruction, ...]

_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_INSTRUCTION: Final = Struct("=HBBI")
_SOCK_FPROG: Final = Struct("@HP")
#: What linux/filter.h calls LD, LDX, JMP and RET, with the modes and sizes that are used here.
_WORD: Final = 0x20  # A = the word at K
_HALF: Final = 0x28  # A = the half-word at K
_BYTE: Final = 0x30  # A = the byte at K
_BYTE_AT_X: Final = 0x50  # A = the byte at X + K
_HEADER_LENGTH: Final = 0xB1  # X = 4 * (the low four bits of the byte at K)
_EQUAL: Final = 0x15  # is A = K?
_AT_LEAST: Final = 0x35  # is A >= K?
_HAS_BITS: Final = 0x45  # is A & K not 0?
_RETURN: Final = 0x06

_ACCEPT: Final = (_RETURN, 0, 0, 0xFFFFFFFF)  # the whole packet
_REFUSE: Final = (_RETURN, 0, 0, 0)
#: A load from here is not of the packet but of what the kernel knows of it (SKF_AD_OFF).
_PACKET_TYPE: Final = 0xFFFFF000 + 4
#: HOST, BROADCAST and MULTICAST are below; for another host, as are packets of a VLAN that this
#: interface is not, outgoing and looped ones are above (linux/if_packet.h).
_OTHERHOST: Final = 3
_FRAGMENT_OFFSET: Final = 0x1FFF
_WORD_MASK: Final = 0xFFFFFFFF
_ICMPV6: Final = 58
_NEIGHBOUR_ADVERTISEMENT: Final = 136

#: Lets nothing through: for a socket that only sends.
NOTHING: Final = (_REFUSE,)
_FOREIGN: Final = (
    (_WORD, 0, 0, _PACKET_TYPE),  # A = how the packet came here
    (_AT_LEAST, 0, 1, _OTHERHOST),  # not to us, or from us:
    _REFUSE,
)


def arp_of(addresses: Iterable[IPv4Address | IPv6Address]) -> Program:
    """Let others' ARP packets through that say where one of *addresses* is."""
    return (
        *_FOREIGN,
        (_WORD, 0, 0, 14),  # A = the sender's address
        *_one_of(int(address) & _WORD_MASK for address in addresses),
    )


def advertisements_of(addresses: Iterable[IPv4Address | IPv6Address]) -> Program:
    """Let others' neighbour advertisements of *addresses* through, and of a few that look alike.

    Only the last quarter of an address is compared.
    """
    return (
        *_FOREIGN,
        (_BYTE, 0, 0, 6),  # A = the next header
        (_EQUAL, 1, 0, _ICMPV6),  # not ICMPv6:
        _REFUSE,
        (_BYTE, 0, 0, 40),  # A = the type of the message behind the IPv6 header
        (_EQUAL, 1, 0, _NEIGHBOUR_ADVERTISEMENT),  # another type:
        _REFUSE,
        (_WORD, 0, 0, 60),  # A = the last quarter of its target
        *_one_of(int(address) & _WORD_MASK for address in addresses),
    )


def adverts_in_ipv4(router_ids: Iterable[int]) -> Program:
    """Let others' VRRP adverts of these virtual routers through."""
    return (
        *_FOREIGN,
        (_BYTE, 0, 0, 9),  # A = the protocol
        (_EQUAL, 1, 0, IPPROTO_VRRP),  # not VRRP:
        _REFUSE,
        (_HALF, 0, 0, 6),  # A = flags and fragment offset
        (_HAS_BITS, 0, 1, _FRAGMENT_OFFSET),  # not the packet's beginning:
        _REFUSE,
        (_HEADER_LENGTH, 0, 0, 0),  # X = the length of the IPv4 header
        (_BYTE_AT_X, 0, 0, 1),  # A = the VRID, the second byte behind it
        *_one_of(router_ids),
    )


def adverts_in_ipv6(router_ids: Iterable[int]) -> Program:
    """Let others' VRRP adverts of these virtual routers through."""
    return (
        *_FOREIGN,
        (_BYTE, 0, 0, 6),  # A = the next header
        (_EQUAL, 1, 0, IPPROTO_VRRP),  # not VRRP:
        _REFUSE,
        (_BYTE, 0, 0, 41),  # A = the VRID, the second byte behind the IPv6 header
        *_one_of(router_ids),
    )


def _one_of(values: Iterable[int]) -> Program:
    """Accept if A is one of *values*, of which the first VALUES_MAX count."""
    wanted = sorted(set(values))[:VALUES_MAX]
    left = len(wanted)
    return (
        # it is this one: over the others and the refusal behind them
        *((_EQUAL, left - number, 0, wanted[number]) for number in range(left)),
        _REFUSE,
        _ACCEPT,
    )


def attach(sock: socket.socket, program: Program) -> None:
    """Let the kernel run *program* for every packet to *sock*, instead of what it ran until now.

    Raises OSError when it is no program.
    """
    code = array("B", b"".join(_INSTRUCTION.pack(*instruction) for instruction in program))
    address, _ = code.buffer_info()
    # struct sock_fprog: how many instructions, and where they are; the kernel copies them
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _SOCK_FPROG.pack(len(program), address))
