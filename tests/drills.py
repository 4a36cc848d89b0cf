"""Drills for tests, of this user or of one without rights, and what of the machine they leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DRILL = (sys.executable, "-m", "sentinel", "drill")
#: What an ordinary user's interpreter needs when it is not the one of these tests.
IMPORTS = {
    "PYTHONPATH": ":".join(path for path in sys.path if path),
    "PYTHONDONTWRITEBYTECODE": "1",
}
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

#: What a drill would leave if it wrote to the machine instead of its own layers.
TRACES = ("/run/sentinel-drill", "/run/.above", "/etc/sentinel/sentinel.toml", "/run/vrrp.pid")
#: What the nodes have of their own, and the machine must keep.
SETTINGS = ("kernel/hostname", "net/ipv4/ip_nonlocal_bind", "net/ipv4/conf/all/rp_filter")

OWN_HAPROXY = """\
global
    stats socket /run/haproxy/own.sock mode 600 level admin
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend www
    bind 10.20.0.100:8080
    default_backend app
backend app
    server one app1.internal:9000 check
    server two 10.30.0.7:9000 check
"""
OWN_KEEPALIVED = """\
vrrp_instance WEB {{
    state BACKUP
    interface ens1{own}
    virtual_router_id 77
    priority {priority}
    unicast_src_ip 10.20.0.1{own}
    unicast_peer {{
        10.20.0.1{peer}
    }}
    virtual_ipaddress {{
        10.20.0.100/24 dev ens1{own}
    }}
}}
"""


def run(*arguments: str, drill: tuple[str, ...] = DRILL) -> subprocess.CompletedProcess[str]:
    """Run a drill to its end."""
    return subprocess.run(
        [*drill, *arguments], capture_output=True, text=True, timeout=400, check=False
    )


@pytest.fixture(scope="module")
def nobodys_drill() -> tuple[str, ...]:
    """Return the command that drills as a user with no rights at all."""
    settings = (f"{name}={value}" for name, value in IMPORTS.items())
    prefix = (*NOBODY, "env", "-C", "/", *settings)
    for python in (sys.executable, "/usr/bin/python3"):  # the first may be below a closed folder
        program = (*prefix, python, "-m", "sentinel")
        tried = subprocess.run([*program, "--version"], capture_output=True, check=False)
        if tried.returncode == 0:
            return (*program, "drill")
    pytest.skip("no Python that everybody may use has what sentinel needs")


def machine() -> tuple[list[str], list[str], list[str]]:
    """Return the machine's interfaces and settings, and the traces of a drill on its files."""
    interfaces = sorted(path.name for path in Path("/sys/class/net").iterdir())
    settings = [Path("/proc/sys", name).read_text() for name in SETTINGS]
    return interfaces, settings, [trace for trace in TRACES if Path(trace).exists()]
