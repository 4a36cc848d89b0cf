"""``sentinel drill`` for real: two nodes of the shipped pair, faults, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from drills import DRILL, OWN_HAPROXY, OWN_KEEPALIVED, machine, nobodys_drill, run
from haproxies import wait_until
from nodes import needs_root

from sentinel.drill.catalogue import CATALOGUE
from sentinel.drill.records import Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["nobodys_drill"]  # a fixture

FAULTS = tuple(fault.name for fault in CATALOGUE)
#: So many drills at once: most of a fault is waiting, and each has namespaces of its own.
LANES = 3
in_namespaces = [pytest.mark.lab, needs_root]


def descendants(pid: int) -> set[int]:
    """Return all living processes below *pid*."""
    below: set[int] = set()
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                below |= {int(child), *descendants(int(child))}
    return below


def living(pids: set[int]) -> set[int]:
    """Return those of *pids* that are not gone; a zombie is gone."""
    alive = set()
    for pid in pids:
        with suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            alive |= {pid} if stat.rpartition(")")[2].split()[0] not in "ZX" else set()
    return alive


@contextmanager
def under_way(*command: str) -> Iterator[tuple[subprocess.Popen[bytes], set[int]]]:
    """Start a drill; hand it over with its processes when both HAProxies run."""
    with subprocess.Popen(
        [*command, "--only", "sentinel-hung"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as drill:
        try:
            wait_until(lambda: len(descendants(drill.pid)) > 20, "two nodes are on")
            yield drill, descendants(drill.pid)
        finally:
            drill.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drilled:
    """What one drill of some faults gave: its findings in their order, and its page."""

    faults: tuple[str, ...]
    findings: list[Finding]
    page: str


@pytest.fixture(scope="module")
def drills(tmp_path_factory: pytest.TempPathFactory) -> list[Drilled]:
    """Drill every fault of the catalogue once, for all tests."""
    folder = tmp_path_factory.mktemp("drill")
    before = machine()
    shares = [FAULTS[lane::LANES] for lane in range(LANES)]
    with ThreadPoolExecutor(LANES) as pool:
        drilled = list(pool.map(partial(drill_some, folder), shares))
    assert machine() == before
    return drilled


def drill_some(folder: Path, faults: tuple[str, ...]) -> Drilled:
    """Drill these faults one after the other."""
    page = folder / f"{faults[0]}.html"
    done = run("--json", "--report", str(page), "--only", *faults)
    assert done.stdout, done.stderr
    found = [Finding.from_json(entry) for entry in json.loads(done.stdout)["findings"]]
    reached = all(finding.outcome is Outcome.REACHED for finding in found)
    assert done.returncode == (0 if reached else 1)
    return Drilled(faults=faults, findings=found, page=page.read_text())


@pytest.fixture(scope="module")
def found(drills: list[Drilled]) -> dict[str, Finding]:
    """What was found of each fault."""
    return {finding.fault: finding for drilled in drills for finding in drilled.findings}


class TestRealDrill:
    """Of one drill of the fast pair, all faults."""

    pytestmark = in_namespaces

    @pytest.mark.parametrize("fault", FAULTS)
    def test_it_ends_as_stated(self, found: dict[str, Finding], fault: str) -> None:
        """Every fault of the catalogue, without a person."""
        finding = found[fault]
        story = "\n".join((*finding.reasons, *finding.story()))
        assert finding.outcome is Outcome.REACHED, story

    def test_the_order_is_the_catalogues(self, drills: list[Drilled]) -> None:
        """Of each drill's own faults."""
        for drilled in drills:
            assert tuple(finding.fault for finding in drilled.findings) == drilled.faults

    def test_sentinel_knows_the_pair(self, found: dict[str, Finding]) -> None:
        """It finds keepalived.conf in the nodes, and nothing in it stands in its way."""
        said = [event.name for finding in found.values() for event in finding.events]
        assert "vrrp.changed" in said
        assert "keepalived.advice" not in said

    def test_a_hand_over_moves_the_vip_twice(self, found: dict[str, Finding]) -> None:
        """The backup holds it from the order until it is taken back, and few requests notice."""
        stepdown = found["stepdown"]
        assert stepdown.failed < stepdown.requests / 20
        assert [h.node for h in stepdown.holdings if h.held and h.at_s > 0] == ["backup", "master"]

    def test_all_three_witnesses_were_heard(self, found: dict[str, Finding]) -> None:
        """The client, the nodes' addresses, and sentinel with keepalived."""
        broken = found["configuration-broken"]
        assert broken.requests > 100
        assert 0 < broken.outage_ms < broken.ended_s * 1000
        holders = [h.node for h in broken.holdings if h.held and h.at_s > 0]
        assert holders[0] == "backup"
        assert holders[-1] == "master"
        names = [event.name for event in broken.events if event.node == "master"]
        assert names.index("configuration.invalid") < names.index("haproxy.failed")
        assert "keepalived" in names

    def test_nobody_notices_the_death_of_sentinel(self, found: dict[str, Finding]) -> None:
        """The VIP stays where it is, and every request is answered."""
        assert not [h for h in found["sentinel-killed"].holdings if h.at_s > 0]

    def test_the_page_tells_of_all(self, drills: list[Drilled]) -> None:
        """A drawing for every fault."""
        for drilled in drills:
            assert drilled.page.count("<svg") == len(drilled.faults)
            assert all(f'id="{name}"' in drilled.page for name in drilled.faults)


@pytest.mark.lab
@needs_root
def test_a_users_own_pair(tmp_path: Path) -> None:
    """Unicast, other interfaces, a frontend on the VIP alone, servers by name and elsewhere.

    A command of theirs that writes a file runs, and writes none here.
    """
    haproxy, sentinel = tmp_path / "haproxy.cfg", tmp_path / "sentinel.toml"
    haproxy.write_text(OWN_HAPROXY)
    written = tmp_path / "written"
    sentinel.write_text(f'[[command]]\nname = "writes"\nargv = ["/bin/touch", "{written}"]\n')
    pair = [tmp_path / "1.conf", tmp_path / "2.conf"]
    for path, own, peer, priority in ((pair[0], 1, 2, 200), (pair[1], 2, 1, 100)):
        path.write_text(OWN_KEEPALIVED.format(own=own, peer=peer, priority=priority))
    own_files = ("--haproxy", haproxy, "--keepalived", *pair, "--sentinel", sentinel)
    done = run(*map(str, own_files), "--only", "haproxy-killed", "--json")
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr}"
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["outcome"] == "reached"
    assert not written.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "1.conf",
        "2.conf",
        "haproxy.cfg",
        "sentinel.toml",
    ]


#: Two families and two VLANs in a sync group, in files that both nodes share, and a proxy that
#: serves nobody without a host name, through another one of its own.
SHARED_HAPROXY = """\
defaults base
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend outer from base
    bind :::80 v4v6
    mode tcp
    default_backend inner
backend inner from base
    mode tcp
    server inner "127.0.0.1:${INNER-8081}" send-proxy-v2
frontend inner from base
    bind 127.0.0.1:8081 accept-proxy
    use_backend app if { hdr(host) -i www.example.org }
backend app from base
    server-template app 2 app.example.org:80 check init-addr none
"""
SHARED_KEEPALIVED = """\
vrrp_sync_group G {
    group {
        V4
        V6
    }
}
@lb1 $PRIORITY=150
@lb2 $PRIORITY=100
include conf.d/*.conf
"""
SHARED_INSTANCE = """\
vrrp_instance V{family} {{
    interface enp0s31f6.100{family}
    virtual_router_id {family}
    priority $PRIORITY
    virtual_ipaddress {{
        {vips}
    }}
}}
"""


@pytest.mark.lab
@needs_root
def test_a_shared_pair_of_two_families(tmp_path: Path) -> None:
    """Included files, config ids, names of 15 characters, and HAProxy's own answers will do."""
    folder = tmp_path / "conf.d"
    folder.mkdir()
    for family, vips in ((4, "10.0.0.100/24"), (6, "fe80::1:1\n2001:db8::100/64")):
        instance = SHARED_INSTANCE.format(family=family, vips=vips)
        (folder / f"{family}.conf").write_text(instance)
    (tmp_path / "keepalived.conf").write_text(SHARED_KEEPALIVED)
    (tmp_path / "haproxy.cfg").write_text(SHARED_HAPROXY)
    both = [f"{tmp_path}/keepalived.conf"] * 2
    files = ("--haproxy", f"{tmp_path}/haproxy.cfg", "--keepalived", *both)
    ids = ("--config-id", "lb1", "lb2")
    done = run(*files, *ids, "--only", "haproxy-killed", "backends-down", "--json")
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr}"
    killed, backends = json.loads(done.stdout)["findings"]
    assert killed["outcome"] == "reached"
    assert backends["outcome"] == "skipped"
    assert "(503)" in backends["reasons"][0]


@pytest.mark.lab
@needs_root
def test_a_haproxy_that_lacks_a_file_here(tmp_path: Path) -> None:
    """HAProxy says which, and in which line; exit status 3."""
    haproxy, pair = tmp_path / "haproxy.cfg", [tmp_path / "1.conf", tmp_path / "2.conf"]
    haproxy.write_text(f"{OWN_HAPROXY}listen tls\n    bind :443 ssl crt /nonexistent/x.pem\n")
    for path, own, peer in ((pair[0], 1, 2), (pair[1], 2, 1)):
        path.write_text(OWN_KEEPALIVED.format(own=own, peer=peer, priority=100))
    done = run("--haproxy", str(haproxy), "--keepalived", *map(str, pair), "--quick")
    assert done.returncode == 3
    assert "HAProxy does not start: put on this machine what it misses" in done.stderr
    assert "haproxy.cfg:15]" in done.stderr
    assert "/nonexistent/x.pem" in done.stderr


@pytest.mark.lab
@needs_root
@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_drill(
    number: signal.Signals, user: str, nobodys_drill: tuple[str, ...]
) -> None:
    """Whatever ends it, the kernel takes everything down with it."""
    before = machine()
    with under_way(*(DRILL if user == "root" else nobodys_drill)) as (drill, processes):
        os.kill(drill.pid, number)
        drill.wait(20)
        wait_until(lambda: not living(processes), "every process ends")
    assert machine() == before


def test_the_faults_are_listed() -> None:
    """One a line, its name first."""
    done = run("--list")
    assert done.returncode == 0
    assert {"haproxy-killed", "split-brain"} <= {
        line.split()[0] for line in done.stdout.split("\n") if line
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "earthquake"), "there is no fault earthquake: see sentinel drill --list"),
        (("--report", "/nonexistent/x.html"), "/nonexistent/x.html: its folder cannot be written"),
        (("--haproxy", "x"), "--haproxy and --keepalived belong together"),
        (("--sentinel", "/nonexistent/x.toml"), "there is no such file"),
    ],
)
def test_usage(arguments: tuple[str, ...], message: str) -> None:
    """Exit status 2 and what is wrong, before anything is begun."""
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


@needs_root
def test_a_machine_that_permits_no_namespaces() -> None:
    """Exit status 3, which is no failed drill, and the cure."""
    script = 'echo 0 >/proc/sys/user/max_mnt_namespaces; exec "$@"'
    forbid = ("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh")
    done = run("--quick", drill=(*forbid, *DRILL))
    assert done.returncode == 3
    assert "namespaces are not permitted here: run it as root" in done.stderr
    assert "user.max_user_namespaces" in done.stderr
