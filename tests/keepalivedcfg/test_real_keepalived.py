"""A real keepalived reads the same files, and its JSON dump must say what we read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from haproxies import wait_until
from nodes import Node, needs_root, running_node

from sentinel.keepalivedcfg import KeepalivedConf, read
from sentinel.vrrp import Tracker, Vip, VrrpInstance, VrrpState

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.real, needs_root]

#: The numbers of the states in the dump.
FAULT: Final = 3
STATES: Final = {VrrpState.BACKUP: 1, VrrpState.MASTER: 2}
#: What stands in every track file that may have a weight, so that the weight shows.
VALUE: Final = 3

MAIN: Final = r"""
! every kind of line
$IF=eth0 # the first
$PRIORITY=90
@lb1 $PRIORITY=110
$MINE=@lb1
$MEMBER= \
vrrp_instance S${NUM} { \
    interface ${IF}
    # not the definition's any more: its last line ended it
$CLOSE= \
    virtual_router_id 2${NUM} \
    virtual_ipaddress { \
        10.2.${NUM}.1/24 dev eth1 no_track \
        # nothing \
        10.2.${NUM}.2 label eth1:2 dev eth1 \
    } \
    track_file { \
        one \
        five \
        five weight 9 \
    } \
    track_script { \
        \
        yes weight 7 \
        always \
    } \
}
global_defs
{
    router_id "lb 1"
    enable_script_security
    script_user root
    vrrp_version 2
    vrrp_notify_fifo FOLDER/vrrp.fifo
    notify_fifo FOLDER/all.fifo root
}
include conf.d/*.conf
includer {extra,more}.conf

vrrp_instance D { interface eth0
    virtual_router_id 1
    virtual_ipaddress { 10.1.0.1 }
}
vrrp_instance MASTERLY {
    state MASTER
    state BACKUP
    nopreempt
    preempt_delay 5
    interface ${IF}
    virtual_router_id 2
    priority 120
    advert_int 1.5
    virtual_ipaddress { $VIP }
    track_file { one weight -2 reverse
        five
        five reverse
        undefined
    }
    track_script { yes
        later
    }
}
vrrp_instance OWNER {
    state MASTER
    nopreempt
    interface $IF
    virtual_router_id 3
    virtual_ipaddress
    {
        10.1.0.3/25
        10.1.0.300
        2001:db8::3
        10.1.0.33 dev
    }
    virtual_ipaddress_excluded {
        2001:DB8:0::33/64
        10.1.0.34/8 brd + peer 10.1.0.35
    }
    track_file {
        none
        five
    }
    track_script { yes }
}
vrrp_instance PATIENT { ! a comment { with a brace
    $MINE priority ${PRIORITY}
    @lb2 priority 10
    @^lb1 nopreempt
    @^lb2 nopreempt
    preempt_delay 4
    interface eth1
    virtual_router_id 4
    version 3
    advert_int 0.126
    unicast_src_ip 10.0.1.1
    unicast_peer {
        10.0.1.2
        @lb1 10.0.1.3
        @lb2 10.0.1.4
        nonsense
    }
    ~SEQ(N,7,9) virtual_ipaddress { 10.4.${N}.1 }
    virtual_ipaddress {
        ~LST({A,B},{1,2},{3,4}) ~SEQ(C,2) 10.4.${A}${B}.${C}/28
    }
}
vrrp_instance SIX {
    interface eth0
    virtual_router_id 5
    advert_int .2
    strict_mode off
    virtual_ipaddress {
        fe80::5
        2001:db8:5::/64
        ~SEQx(H,0x9,0xb) 2001:db8:5::${H}
        10.5.0.1
    }
    virtual_ipaddress_excluded { 10.5.0.2/24 dev eth1 }
}
vrrp_instance VMAC {
    use_vmac
    interface eth0
    virtual_router_id 6
    virtual_ipaddress {
        10.6.0.1
        10.6.0.2 dev eth0
        10.6.0.3 dev eth1
        10.6.0.4/24 dev eth1 use_vmac
        10.6.0.5 use_vmac
    }
    virtual_ipaddress_excluded {
        2001:db8:6::1
        2001:db8:6::2 use_vmac
        2001:db8:6::3 use_vmac dev eth1
    }
}
vrrp_instance NAMED {
    use_vmac lb0
    interface eth0
    virtual_router_id 7
    use_vmac_addr
    virtual_ipaddress {
        10.7.0.1
        10.7.0.2 dev eth1
    }
    virtual_ipaddress_excluded { 2001:db8:7::1 }
}
vrrp_instance D {
    interface eth1
    virtual_router_id 9
}
vrrp_sync_group PLAIN {
    group { S1
        S2
    }
    track_file {
        five
        ten weight 2
    }
    track_script { yes weight 20 }
}
vrrp_sync_group WEIGHTED {
    sync_group_tracking_weight
    group
    {
        S3 S4
    }
    track_file { ten }
}
vrrp_sync_group LATE { group { S1 } }
$NUM=1
$MEMBER
$CLOSE
$NUM=2
$MEMBER
$CLOSE
~SEQ(NUM2,3,4) $NUM=${NUM2}
$NUM=3
$MEMBER
priority 77
$CLOSE
$NUM=4
$MEMBER
$CLOSE
vrrp_script later { script "/bin/true" }
"""

TRACKERS: Final = r"""
track_file none { file FOLDER/zero
    weight 0
}
track_file one { file "${_PWD}/../value" }
vrrp_track_file five
{
    file FOLDER/value
    weight 5
    weight 6
}
track_file ten {
    file FOLDER/value
    weight 10
}
vrrp_script yes { script "/bin/true 'a b'"
    interval 1
    weight 4
}
vrrp_script always {
    script /bin/true
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What we read, and what keepalived tells: its dumps by JSON and DATA, and its log."""

    conf: KeepalivedConf
    instances: dict[str, dict[str, Any]]
    data: str
    log: str


def write(folder: Path) -> Path:
    """Write the configuration, its parts and its track files; returns the first file."""
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "1.conf").write_text(TRACKERS.replace("FOLDER", str(folder)))
    (folder / "conf.d" / "2.conf").write_text("include ../vip\n")
    (folder / "conf.d" / "3.conf").write_text("@lb1 $PRIORITY=1\n")
    (folder / "conf.d" / "3.conf").chmod(0o755)
    (folder / "vip").write_text("$VIP=10.1.0.2/24\n")
    (folder / "more.conf").write_text("@lb2 $PRIORITY=2\n")
    (folder / "value").write_text(f"{VALUE}\n")
    (folder / "zero").write_text("0\n")
    file = folder / "keepalived.conf"
    file.write_text(MAIN.replace("FOLDER", str(folder)))
    return file


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Run keepalived in a node of its own until it has judged every tracker."""
    folder = tmp_path_factory.mktemp("keepalived")
    file = write(folder)
    log = folder / "log"
    with running_node() as node:
        for name, address in (("eth0", "10.0.0.1/24"), ("eth1", "10.0.1.1/24")):
            node.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}far")
            node.run("ip", "address", "add", address, "dev", name)
            for end in (name, f"{name}far"):
                node.run("ip", "link", "set", end, "up")
        argv = ("keepalived", "-n", "-l", "-D", "-P", "-G", "-i", "lb1", "-f", str(file))
        pids = ("-p", f"{folder}/pid", "-r", f"{folder}/vrrp.pid")
        with node.running("env", f"TMPDIR={folder}", *argv, *pids, log=log):
            wait_until(lambda: log.read_text().count(") succeeded") == 2, "both scripts have run")
            wait_until(lambda: "Entering MASTER STATE" in log.read_text(), "the owner is MASTER")
            conf = read(str(file), config_id="lb1")
            dump = json.loads(dumped(node, folder, "JSON", complete="]"))
            yield Told(
                conf=conf,
                instances={one["data"]["iname"]: one["data"] for one in dump},
                data=dumped(node, folder, "DATA", complete="NAMED, weight 0"),
                log=log.read_text(),
            )


def dumped(node: Node, folder: Path, signal: str, complete: str) -> str:
    """Ask keepalived for a dump, and return it when it ends in *complete*."""
    number = node.run("keepalived", f"--signum={signal}").stdout.strip()
    file = folder / f"keepalived.{signal.lower()}"
    node.run("kill", f"-{number}", (folder / "pid").read_text().strip())

    def written() -> bool:
        return file.exists() and file.read_text().rstrip().endswith(complete)

    wait_until(written, f"the {signal} dump is written")
    return file.read_text()


def test_the_instances_are_what_keepalived_runs(told: Told) -> None:
    """All of them in their order, with what the dump tells of each."""
    assert [as_dumped(one) for one in told.conf.instances] == [
        {key: one.get(key) for key in as_dumped(told.conf.instances[0])}
        for one in told.instances.values()
    ]


def as_dumped(instance: VrrpInstance) -> dict[str, Any]:
    """Return what the dump should say of an instance."""
    return {
        "iname": instance.name,
        "vrid": instance.router_id,
        "version": instance.version,
        "base_priority": instance.priority,
        "adver_int": instance.advert_int_s,
        "nopreempt": instance.nopreempt,
        "preempt_delay": instance.preempt_delay_s,
    }


def test_the_vips_are_where_keepalived_puts_them(told: Told) -> None:
    """Each address with its prefix and its interface, the macvlans among them."""
    for instance in told.conf.instances:
        data = told.instances[instance.name]
        written = [line.split() for line in (*data.get("vips", ()), *data.get("evips", ()))]
        theirs = [(words[0], words[2].partition("@")[0]) for words in written]
        assert [(shown(vip), vip.interface) for vip in instance.vips] == theirs, instance.name


def shown(vip: Vip) -> str:
    """Write an address as the dump does: without the prefix of a single one."""
    single = vip.prefix == (128 if ":" in vip.address else 32)
    return vip.address if single else f"{vip.address}/{vip.prefix}"


def test_the_weights_come_to_the_same_priority(told: Told) -> None:
    """The track files hold VALUE, and all scripts succeed."""
    for instance in told.conf.instances:
        files = sum(VALUE * signed(tracker) for tracker in instance.track_files)
        scripts = sum(max(0, signed(tracker)) for tracker in instance.track_scripts)
        theirs = told.instances[instance.name]["effective_priority"]
        assert instance.priority + files + scripts == theirs, instance.name


def signed(tracker: Tracker) -> int:
    """Return the weight with its sign turned where it is reversed."""
    return -tracker.weight if tracker.reverse else tracker.weight


def test_a_file_without_weight_leads_to_fault(told: Told) -> None:
    """Where VALUE is tracked without a weight, the instance is in FAULT, else in its state."""
    for instance in told.conf.instances:
        values = [VALUE for t in instance.track_files if not t.weight and "zero" not in t.path]
        state = FAULT if values else STATES[instance.initial]
        assert told.instances[instance.name]["wantstate"] == state, instance.name


def test_peers_sources_and_fifos(told: Told) -> None:
    """The peers it speaks to, the addresses it speaks from, the FIFOs it has made."""
    peers = re.findall(r"^ {5}(\S+) min_ttl", told.data, re.MULTILINE)
    assert [peer for one in told.conf.instances for peer in one.peers] == peers
    sources = re.findall(r"src_ip = (\S+) \(from configuration\)", told.data)
    assert [one.source for one in told.conf.instances if one.source] == sources
    assert [Path(path).name for path in told.conf.fifos] == ["all.fifo", "vrrp.fifo"]
    assert all(Path(path).is_fifo() for path in told.conf.fifos)


def test_what_we_note_keepalived_complains_of(told: Told) -> None:
    """Both name the same lines for what is dropped, ignored or skipped while reading."""
    file = re.escape(told.conf.files[0])
    notes = "\n".join(told.conf.notes)
    ours = re.findall(rf"^{file}:(\d+): .*(?:ignores|which|second)", notes, re.MULTILINE)
    words = "not found|parsed invalid IP|MUST|must match|No dev|already defined"
    theirs = re.findall(rf"\({file}: Line (\d+)\) .*(?:{words})", told.log)
    assert ours
    assert ours == theirs
