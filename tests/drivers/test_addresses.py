"""This node's addresses, asked of a real kernel in a network namespace of the test's own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from privileges import IS_ROOT

from sentinel.drivers import addresses

ASK = """\
import asyncio, json
from sentinel.drivers import addresses
found = asyncio.run(addresses.local())
print(json.dumps(None if found is None else sorted(found)))
"""

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may make a network namespace")


def asked_after(*commands: str) -> list[str] | None:
    """Return what is found in a new network namespace after the *commands* in it."""
    script = " && ".join([*commands, 'exec "$@"'])
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] | None = json.loads(done.stdout)
    return found


def descriptors() -> set[Path]:
    """Return what this process has open."""
    return set(Path("/proc/self/fd").iterdir())


async def test_loopback_is_always_there() -> None:
    """Whatever else this machine has."""
    found = await addresses.local()
    assert found is not None
    assert "127.0.0.1" in found


@needs_root
def test_a_node_without_any_address() -> None:
    """Nothing is found, which is not the same as not knowing."""
    assert asked_after("true") == []


@needs_root
def test_every_family_and_interface_is_seen() -> None:
    """IPv4 and IPv6, second addresses as keepalived adds them, an interface that is down."""
    assert asked_after(
        "ip link set lo up",
        "ip link add v0 type veth peer name v1",
        "ip address add 192.0.2.1/24 dev v0",
        "ip address add 192.0.2.100/32 dev v0",
        "ip address add 2001:db8::1/64 dev v1 nodad",
    ) == ["127.0.0.1", "192.0.2.1", "192.0.2.100", "2001:db8::1", "::1"]


@needs_root
def test_of_a_point_to_point_link_the_near_end_is_ours() -> None:
    """The peer's address is what IFA_ADDRESS names there (linux/if_addr.h)."""
    assert asked_after("ip address add 192.0.2.1 peer 192.0.2.2/32 dev lo") == ["192.0.2.1"]


@needs_root
def test_a_thousand_addresses_are_no_trouble() -> None:
    """A dump of several messages is read to its end."""
    more = (
        "for a in $(seq 0 3); do for b in $(seq 1 250); do"
        ' echo "address add 10.0.$a.$b/32 dev lo"; done; done | ip -batch -'
    )
    found = asked_after(more)
    assert found is not None
    assert len(found) == 1000


async def test_a_kernel_that_cannot_be_asked_is_unknown() -> None:
    """No descriptor is left for a socket: None, not an empty answer, and not an error."""
    await addresses.local()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert await addresses.local() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_nothing_is_left_open() -> None:
    """Asked every few seconds for years."""
    await addresses.local()
    before = descriptors()
    for _ in range(20):
        await addresses.local()
    assert descriptors() == before
