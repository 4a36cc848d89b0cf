"""How switches and cables are laid: the lines that a shell is given. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sentinel.drill.plan import CLIENT, Machine, Plan

#: As shell lines, since /proc/sys shows the namespaces of whoever opens a file. A kernel may lack
#: IPv6.
_SYSCTLS: Final = tuple(
    f"if [ -e /proc/sys/{name} ]; then echo {value} >/proc/sys/{name}; fi"
    for name, value in (
        ("net/ipv4/conf/all/rp_filter", 0),
        ("net/ipv4/conf/default/rp_filter", 0),
        ("net/ipv4/ip_nonlocal_bind", 1),
        ("net/ipv6/ip_nonlocal_bind", 1),
        ("net/ipv6/conf/default/accept_dad", 0),
    )
)


def switches(plan: Plan) -> Iterator[str]:
    """Build them with addresses that last, the client's and the servers' own, and the ways there.

    A bridge left alone has the lowest of its ports' addresses, and another one when that port
    goes with its node: the other node would lose sight of client and servers.
    """
    yield from (*_SYSCTLS, "ip link set lo up")
    for number in range(plan.switches):
        name = f"switch{number} address 02:00:00:00:00:{number:02x}"
        yield f"ip link add {name} type bridge stp_state 0 mcast_snooping 0"
        yield f"ip link set switch{number} up"
    for host in dict.fromkeys([CLIENT, *(place.host for place in plan.places)]):
        yield f"ip address add {host} dev switch0"
    routes = dict(plan.vips)
    for machine in plan.machines:
        for cable in machine.cables:
            for address in cable.addresses:
                routes[address.partition("/")[0]] = cable.switch
    yield from (f"ip route add {host} dev switch{number}" for host, number in routes.items())


def inside(machine: Machine) -> Iterator[str]:
    """Set up a node whose cables are plugged in."""
    yield from (*_SYSCTLS, f"hostname {machine.name}")
    for number, cable in enumerate(machine.cables):
        yield from (f"ip address add {a} dev {cable.interface}" for a in cable.addresses)
        yield f"ip link set {cable.interface} up"
        if number == 0:  # everybody is a neighbour: no gateway has to be invented
            yield f"ip route add default dev {cable.interface} scope link"
            yield f"ip -6 route add default dev {cable.interface} || true"


def port(machine: Machine, number: int) -> str:
    """Name the switch's end of a cable; an interface's name may have 15 characters (IFNAMSIZ)."""
    return f"{machine.name}{number}"
