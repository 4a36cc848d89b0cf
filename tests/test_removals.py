"""Who took an address away: the kernel's real notices, and garbage."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from haproxies import wait_until
from hypothesis import given
from hypothesis import strategies as st

from sentinel.removals import Removal, Removals
from sentinel.vrrpstate.dump import waits_for

#: linux/rtnetlink.h, linux/if_addr.h
RTM_DELADDR = 21
IFA_LOCAL = 2

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


def test_a_name_that_is_no_text_is_a_name() -> None:
    """The kernel cuts one after 15 bytes, in the middle of a character if need be."""
    renamed = (
        "import ctypes, signal; signal.signal(signal.SIGUSR1, print);"
        " ctypes.CDLL(None).prctl(15, 'keepalived_ver\u00fc'.encode()); input()"
    )
    argv = [sys.executable, "-c", renamed]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        comm = Path(f"/proc/{process.pid}/comm")
        wait_until(lambda: comm.read_bytes() == b"keepalived_ver\xc3\n", "it has its name")
        assert waits_for(process.pid, signal.SIGUSR1), "it handles it"
        [found] = Removals().of(notice("192.0.2.1", port=process.pid))
        assert found == Removal(address="192.0.2.1", by="keepalived_ver\udcc3")
        process.communicate(b"\n")


def notice(address: str, port: int) -> bytes:
    """Return the kernel's notice that the process of *port* has removed *address*."""
    attribute = struct.pack("=HH", 8, IFA_LOCAL) + socket.inet_aton(address)
    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 1) + attribute
    return struct.pack("=IHHII", 16 + len(body), RTM_DELADDR, 0, 0, port) + body


@given(st.binary(max_size=200))
def test_garbage_yields_nothing_and_ends(datagram: bytes) -> None:
    """Whatever bytes come, nothing is raised."""
    assert all(isinstance(removal.by, str) for removal in Removals().of(datagram))
