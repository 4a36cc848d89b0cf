"""Who took an address away: the kernel's real notices, and garbage."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.removals import Removals

#: In a network namespace of its own: addresses are added and removed, and the notices printed.
WATCH = """
import json, os, socket, subprocess
from sentinel.removals import Removals

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
events.bind((0, 0x10 | 0x100))
events.settimeout(5)
removals, told = Removals(), []

def read():
    told.extend((r.address, r.by) for r in removals.of(events.recv(65536)))

def ip(*words):
    done = subprocess.Popen(["ip", *words])
    read()
    done.wait()
    return done.pid

ip("address", "add", "192.0.2.1/32", "dev", "lo")
ip("address", "add", "2001:db8::1/128", "dev", "lo", "nodad")
pids = [ip("address", "del", "192.0.2.1/32", "dev", "lo")]
pids.append(ip("address", "del", "2001:db8::1/128", "dev", "lo"))
print(json.dumps([told, pids]))
"""


@pytest.mark.real
def test_the_kernel_names_who_removed_an_address() -> None:
    """Another process than the one that added it is named, or its pid; of IPv6 nothing is said."""
    argv = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", WATCH]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.stderr == ""
    told, pids = json.loads(done.stdout)
    [(address, by)] = told
    assert address == "192.0.2.1"
    assert by in {"ip", f"process {pids[0]}, which has ended"}


@given(st.binary(max_size=200))
def test_garbage_yields_nothing_and_ends(datagram: bytes) -> None:
    """Whatever bytes come, nothing is raised."""
    assert all(isinstance(removal.by, str) for removal in Removals().of(datagram))
