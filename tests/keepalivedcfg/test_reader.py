"""What is read in keepalived.conf."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel.keepalivedcfg import KeepalivedConf, findings, read
from sentinel.vrrp import Tracker, Vip, VrrpInstance, VrrpState

CONTRIB: Final = Path(__file__).parents[2] / "contrib" / "keepalived"
DATA: Final = Path(__file__).parents[1] / "data" / "keepalivedcfg"
HEAD: Final = "interface eth0\nvirtual_router_id 51\n"


def conf(folder: Path, text: str, config_id: str = "lb1") -> KeepalivedConf:
    """Read a text; its folder's name is taken out of the notes."""
    file = folder / "k.conf"
    file.write_text(text)
    found = read(str(file), config_id=config_id)
    return replace(found, notes=tuple(note.replace(f"{folder}/", "") for note in found.notes))


def instance(folder: Path, body: str, around: str = "") -> VrrpInstance:
    """Read one instance with this body, *around* standing above it; nothing must be suspicious."""
    found = conf(folder, f"{around}\nvrrp_instance V {{\n{HEAD}{body}\n}}\n")
    assert found.notes == ()
    return found.instances[0]


def vips(folder: Path, body: str, around: str = "") -> list[str]:
    """Return the VIPs of one instance as words."""
    return [str(vip) for vip in instance(folder, body, around).vips]


def test_the_shipped_fast_pair() -> None:
    """Everything of it."""
    path = str(CONTRIB / "fast" / "master.conf")
    hook = "/usr/libexec/keepalived/chk_sentinel.sh"
    found = read(path, config_id="")
    (one,) = found.instances
    assert (found.error, found.notes, found.files) == ("", (), (path,))
    assert found.interfaces == ("eth0",)
    assert found.places[0].startswith(f"{path}:")
    assert Tracker(name="sentinel", path="/run/sentinel/track") in one.track_files
    assert replace(one, track_files=()) == VrrpInstance(
        name="VI_1",
        interface="eth0",
        router_id=51,
        version=3,
        priority=254,
        advert_int_s=0.1,
        initial=VrrpState.BACKUP,
        source="192.168.1.189",
        vips=(Vip(address="192.168.1.99", prefix=32, interface="eth0"),),
        track_scripts=(Tracker(name="chk_haproxy", path=hook),),
    )


@pytest.mark.parametrize("path", sorted(CONTRIB.glob("*/*.conf")), ids=lambda path: path.name)
def test_all_shipped_files_are_beyond_suspicion(path: Path) -> None:
    """None gives a note, and each has its VIP."""
    found = read(str(path), config_id="")
    assert (found.error, found.notes) == ("", ())
    assert [vip.address for one in found.instances for vip in one.vips] == ["192.168.1.99"]


@pytest.mark.parametrize(
    ("name", "state", "priority"),
    [("master", VrrpState.MASTER, 101), ("backup", VrrpState.BACKUP, 100)],
)
def test_the_article(name: str, state: VrrpState, priority: int) -> None:
    """The pair that chk_haproxy.sh comes from, as it was published."""
    found = read(str(DATA / f"article-{name}.conf"), config_id="")
    (one,) = found.instances
    assert (one.initial, one.priority, one.version, one.advert_int_s) == (state, priority, 2, 1.0)
    assert one.track_scripts == (
        Tracker(name="chk_haproxy", path="/usr/local/keepalived/chk_haproxy.sh", weight=2),
    )
    assert [str(vip) for vip in one.vips] == ["192.168.1.99/32 dev eth0"]
    assert found.notes == ()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """The error says which and why; nothing else is known."""
    os.mkfifo(tmp_path / "fifo")
    for name, why in (
        ("none", "No such file or directory"),
        ("fifo", "not a regular file"),
        ("", "Is a directory"),
        ("nul\0", "embedded null byte"),
    ):
        path = str(tmp_path / name)
        assert read(path, config_id="") == KeepalivedConf(error=f"{path}: {why}")


def test_an_executable_file_is_read_with_a_note(tmp_path: Path) -> None:
    """No keepalived would start with it, but one that runs may have read it before."""
    (tmp_path / "k.conf").touch(mode=0o755)
    assert conf(tmp_path, "").notes == (
        "k.conf: is executable, and keepalived refuses it: chmod a-x",
    )


def test_defaults(tmp_path: Path) -> None:
    """What an instance is when it says nothing."""
    assert instance(tmp_path, "") == VrrpInstance(name="V", interface="eth0", router_id=51)


def test_vips_with_options(tmp_path: Path) -> None:
    """Prefix, device and others; the excluded ones count, and may be of the other family."""
    body = (
        "virtual_ipaddress\n{\n10.1.0.9/24 brd + dev eth1 label eth1:1\n10.1.0.8/99 no_track\n"
        "10.1.0.7/24 peer 10.1.0.6\n}\nvirtual_ipaddress_excluded { 2001:DB8:0::9 scope global\n"
        "2001:db8::10/64 preferred_lft forever\n}"
    )
    assert vips(tmp_path, body) == [
        *("10.1.0.9/24 dev eth1", "10.1.0.8/32 dev eth0", "10.1.0.7/32 dev eth0"),
        *("2001:db8::9/128 dev eth0", "2001:db8::10/64 dev eth0"),
    ]


def test_vips_that_keepalived_drops(tmp_path: Path) -> None:
    """Each with a note; the first address decides about the family."""
    body = (
        "10.0.0.300\n$VIP\nfe80::1%eth0\n10.0.0.1 dev\n10.0.0.2\n2001:db8::1\n"
        "10.0.0.3 label averyverylongone\n10.0.0.4 dev a dev b\n"
    )
    found = conf(tmp_path, f"vrrp_instance V {{\n{HEAD}virtual_ipaddress {{\n{body}}}\n}}")
    assert [vip.address for vip in found.instances[0].vips] == ["10.0.0.2"]
    dropped = "vrrp_instance V: keepalived drops"
    assert found.notes == (
        f"k.conf:5: {dropped} 10.0.0.300, which is no address: correct it",
        f"k.conf:6: {dropped} $VIP, which is no address: correct it",
        f"k.conf:7: {dropped} fe80::1%eth0, which is no address: correct it",
        f"k.conf:8: {dropped} 10.0.0.1, which has no single dev: correct it",
        (
            f"k.conf:10: {dropped} 2001:db8::1, which is not IPv4 as the others, exclude it:"
            " correct it"
        ),
        f"k.conf:11: {dropped} 10.0.0.3, which has a label of over 15 characters: correct it",
        f"k.conf:12: {dropped} 10.0.0.4, which has no single dev: correct it",
    )


def test_macvlans(tmp_path: Path) -> None:
    """VIPs lie on the macvlan of their instance, unless they have another family or device."""
    inside = "10.0.0.1\n10.0.0.2 dev eth0\n10.0.0.3 dev eth1\n10.0.0.4 dev eth1 use_vmac\n"
    body = (
        f"virtual_ipaddress {{\n{inside}}}\nvirtual_ipaddress_excluded {{ 2001:db8::1\n"
        "2001:db8::2 dev eth0 use_vmac\n2001:db8::3 dev eth1 use_vmac\n10.0.0.5 use_vmac\n}"
    )
    assert vips(tmp_path, f"use_vmac\n{body}") == [
        *("10.0.0.1/32 dev vrrp.51", "10.0.0.2/32 dev vrrp.51", "10.0.0.3/32 dev eth1"),
        *("10.0.0.4/32 dev vrrp1.51", "2001:db8::1/128 dev eth0", "2001:db8::2/128 dev vrrp6.51"),
        *("2001:db8::3/128 dev vrrp2.51", "10.0.0.5/32 dev vrrp.51"),
    ]


def test_named_macvlans(tmp_path: Path) -> None:
    """By name, with a prefix of one's own, cut to what an interface's name may have."""
    vip = "virtual_ipaddress { 10.0.0.1 }"
    assert vips(tmp_path, f"use_vmac 00:11:22:33:44:55 lb\n{vip}") == ["10.0.0.1/32 dev lb"]
    prefix = "global_defs { vmac_prefix averyverylongone }"
    assert vips(tmp_path, f"use_vmac\n{vip}", prefix) == ["10.0.0.1/32 dev averyverylon.51"]
    others = "virtual_ipaddress { 10.0.0.1 dev eth1\n}"
    prefix = "global_defs { vmac_addr_prefix a }"
    assert vips(tmp_path, f"use_vmac_addr\n{others}", prefix) == ["10.0.0.1/32 dev a.51"]
    found = instance(tmp_path, f"use_vmac\nuse_vmac_addr\n{others}")
    assert [str(vip) for vip in found.vips] == ["10.0.0.1/32 dev vrrp1.51"]


def test_interfaces_that_must_be_there_first(tmp_path: Path) -> None:
    """Those of instances, of VIPs, and those that are only tracked, but no macvlan."""
    found = conf(
        tmp_path,
        "vrrp_sync_group G {\n track_interface {\n eth3\n }\n}\n"
        f"vrrp_instance A {{\n{HEAD} track_interface {{\n eth2 weight 5\n }}\n use_vmac\n"
        " virtual_ipaddress {\n 10.0.0.1 dev eth1\n 10.0.0.2\n }\n}",
    )
    assert found.interfaces == ("eth0", "eth1", "eth3", "eth2")


@pytest.mark.parametrize(
    ("around", "body", "version", "advert_int_s"),
    [
        ("", "advert_int 0.2", 2, 1.0),
        ("", "advert_int 1.5", 2, 2.0),
        ("", "advert_int 2.4999999", 2, 3.0),  # first to the microsecond: 2.5
        ("", "advert_int 0", 2, 1.0),
        ("", "advert_int none", 2, 1.0),
        ("", "version 3\nadvert_int 0.125", 3, 0.13),
        ("", "version 3\nadvert_int 0.1", 3, 0.1),
        ("", "version 3\nadvert_int 99", 3, 40.95),
        ("global_defs { vrrp_version 3 }", "advert_int .5", 3, 0.5),
        ("global_defs { vrrp_version 3 }", "version 2", 2, 1.0),
        ("global_defs { vrrp_version 4 }", "", 2, 1.0),
        ("", "virtual_ipaddress { fe80::1 }\nversion 2\nadvert_int 0.1", 3, 0.1),
        ("", "unicast_peer { fe80::1 }", 3, 1.0),
        ("", "version 2\nvirtual_ipaddress { fe80::1 }", 2, 1.0),
        ("global_defs { vrrp_strict }", "version 2\nvirtual_ipaddress { fe80::1 }", 3, 1.0),
    ],
)
def test_versions_and_intervals(
    tmp_path: Path, around: str, body: str, version: int, advert_int_s: float
) -> None:
    """IPv6 speaks version 3; the interval is rounded to what the version can say."""
    found = instance(tmp_path, body, around)
    assert (found.version, found.advert_int_s) == (version, advert_int_s)


@pytest.mark.parametrize(
    ("body", "initial", "priority"),
    [
        ("", "BACKUP", 100),
        ("priority 255", "MASTER", 255),
        ("priority 256", "BACKUP", 100),
        ("state MASTER\npriority 7", "MASTER", 7),
        ("state MASTER\nstate BACKUP\npriority 7", "MASTER", 7),
        ("state MASTER\nstate OTHER\npriority 7", "BACKUP", 7),
        ("state MASTER\npriority 7\nstrict_mode", "BACKUP", 7),
        ("state MASTER\npriority 7\nstrict_mode off", "MASTER", 7),
    ],
)
def test_state_and_priority(tmp_path: Path, body: str, initial: str, priority: int) -> None:
    """Each stands in for the other where it is not written."""
    found = instance(tmp_path, body)
    assert (found.initial.value, found.priority) == (initial, priority)


def test_state_master_without_a_priority_owns_the_address(tmp_path: Path) -> None:
    """Which is seldom meant."""
    found = conf(tmp_path, f"vrrp_instance V {{\n{HEAD}state MASTER\n}}")
    assert found.instances[0].priority == 255
    assert found.notes == (
        (
            "k.conf:1: vrrp_instance V: state MASTER without a priority means 255, no node can take"
            " over by priority: write priority 254 or less"
        ),
    )


def test_nopreempt_and_its_delay(tmp_path: Path) -> None:
    """The delay counts only where it preempts."""
    found = instance(tmp_path, "nopreempt\npreempt_delay 4.5")
    assert (found.nopreempt, found.preempt_delay_s) == (True, 0.0)
    found = instance(tmp_path, "nopreempt\npreempt\npreempt_delay 4.5")
    assert (found.nopreempt, found.preempt_delay_s) == (False, 4.5)
    found = instance(tmp_path, "state MASTER\npriority 9\npreempt_delay 4.5")
    assert found.preempt_delay_s == 0.0


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("state MASTER\npriority 9", ("state MASTER makes keepalived ignore nopreempt: write state"
         " BACKUP on both nodes")),
        ("priority 255", ("priority 255 makes keepalived ignore nopreempt: write priority 254 or"
         " less")),
    ],
)  # fmt: skip
def test_what_undoes_nopreempt(tmp_path: Path, body: str, why: str) -> None:
    """It is read as undone, and said."""
    found = conf(tmp_path, f"vrrp_instance V {{\n{HEAD}nopreempt\n{body}\n}}")
    assert not found.instances[0].nopreempt
    assert found.notes == (f"k.conf:1: vrrp_instance V: {why}",)


def test_sources_and_peers(tmp_path: Path) -> None:
    """The address it speaks from and those it speaks to, of one family."""
    found = instance(
        tmp_path,
        "unicast_src_ip 10.0.0.1\nunicast_peer {\n@^lb1 10.0.0.1\n10.0.0.2 min_ttl 255\n"
        "nonsense\n2001:db8::2\n10.0.0.3\n}",
    )
    assert (found.source, found.peers) == ("10.0.0.1", ("10.0.0.2", "10.0.0.3"))
    assert instance(tmp_path, "mcast_src_ip 2001:DB8::1").source == "2001:db8::1"


TRACKERS: Final = """
track_file a { file "/run/a" }
vrrp_track_file b
{
    file /run/b
    weight 0
    init_file 0
}
track_file c { file /run/c
 weight -3 reverse
}
track_file none { weight 1 }
vrrp_script s { script "/bin/s 'y z'" }
vrrp_script t {
    script '/bin/t x'
    weight 2 reverse
}
vrrp_script u {
    script /bin/u
}
"""


def test_trackers_with_their_weights(tmp_path: Path) -> None:
    """A file's weight is 1 and a script's 0 by default; both may be overridden at the tracker."""
    found = instance(
        tmp_path,
        "track_file {\na weight 5\nb\nc noreverse\na\nb weight 9\n}\n"
        "track_script {\ns weight -254 reverse\nt\nu weight x\n}",
        TRACKERS,
    )
    assert found.track_files == (
        Tracker(name="a", path="/run/a", weight=5),
        Tracker(name="b", path="/run/b", weight=0),
        Tracker(name="c", path="/run/c", weight=-3, reverse=True),
    )
    assert found.track_scripts == (
        Tracker(name="s", path="/bin/s", weight=-253, reverse=True),
        Tracker(name="t", path="/bin/t", weight=2, reverse=True),
        Tracker(name="u", path="/bin/u"),
    )


def test_all_trackers_that_are_defined(tmp_path: Path) -> None:
    """Tracked or not; those without a file or program are none."""
    found = conf(tmp_path, TRACKERS)
    assert [tracker.weight for tracker in found.track_files] == [1, 0, -3]
    assert [tracker.path for tracker in found.scripts] == ["/bin/s", "/bin/t", "/bin/u"]


def test_trackers_that_are_not_known_yet(tmp_path: Path) -> None:
    """The file is read from top to bottom, once."""
    text = f"vrrp_instance V {{\n{HEAD}track_file {{ a }}\ntrack_script {{ x }}\n}}\n{TRACKERS}"
    found = conf(tmp_path, text)
    assert (found.instances[0].track_files, found.instances[0].track_scripts) == ((), ())
    ignores = "vrrp_instance V: keepalived ignores"
    assert found.notes == (
        f"k.conf:4: {ignores} track_file a, not known yet: move its block above",
        f"k.conf:5: {ignores} track_script x, not known yet: define it by vrrp_script",
    )


def test_the_owner_of_the_address_has_no_weights(tmp_path: Path) -> None:
    """A weight of 1 becomes 0, others are dropped."""
    text = (
        f"{TRACKERS}vrrp_instance V {{\n{HEAD}priority 255\n"
        "track_file {\na\nb\nc\n}\ntrack_script { s\nt\n}\n}"
    )
    found = conf(tmp_path, text)
    tracked = (*found.instances[0].track_files, *found.instances[0].track_scripts)
    assert [(t.name, t.weight) for t in tracked] == [("a", 0), ("b", 0), ("s", 0)]
    drops = "vrrp_instance V: keepalived drops"
    why = "weights do not count with priority 255: write priority 254 or less"
    assert [note.partition(": ")[2] for note in found.notes] == [
        f"{drops} track_file c, {why}",
        f"{drops} track_script t, {why}",
    ]


GROUP: Final = """
vrrp_sync_group G {
    group {
        V
        W
        nobody
    }
    track_file { c }
    track_script { u weight 4 }
    %s
}
vrrp_sync_group H { group { V } }
vrrp_instance V { interface eth0
    virtual_router_id 1
    track_file { a weight 7
        c weight 0
    }
    track_script { t }
}
vrrp_instance W {
    interface eth0
    virtual_router_id 2
    track_file { a }
    %s
}
"""


def weights(found: KeepalivedConf) -> list[list[tuple[str, int]]]:
    """Return the names and weights of what each instance tracks."""
    return [
        [(t.name, t.weight) for t in (*i.track_files, *i.track_scripts)] for i in found.instances
    ]


def test_a_sync_group_and_its_members(tmp_path: Path) -> None:
    """The group's own weights count, those of its members do not; the first group wins."""
    found = conf(tmp_path, TRACKERS + GROUP % ("", ""))
    assert [one.group for one in found.instances] == ["G", "G"]
    assert weights(found) == [[("c", 0), ("u", 4)], [("a", 0), ("c", -3), ("u", 4)]]
    why = "weights do not count in vrrp_sync_group G: let the group track it"
    drops = "vrrp_instance V: keepalived drops"
    assert [note.partition(": ")[2] for note in found.notes] == [
        f"{drops} track_file a, {why}",
        f"{drops} track_script t, {why}",
    ]
    assert found.weighted_groups == frozenset()


def test_a_weighted_sync_group(tmp_path: Path) -> None:
    """With sync_group_tracking_weight, the members' own weights count."""
    found = conf(tmp_path, TRACKERS + GROUP % ("sync_group_tracking_weight", ""))
    assert weights(found) == [
        [("a", 7), ("c", 0), ("t", 2), ("u", 4)],
        [("a", 1), ("c", -3), ("u", 4)],
    ]
    assert found.weighted_groups == frozenset({"G"})
    assert found.notes == ()


def test_a_sync_group_with_an_owner(tmp_path: Path) -> None:
    """One owner of its address takes the weights from the group."""
    found = conf(tmp_path, TRACKERS + GROUP % ("sync_group_tracking_weight", "priority 255"))
    assert weights(found)[0] == [("a", 7), ("c", 0), ("t", 2), ("u", 0)]
    assert weights(found)[1] == [("a", 0), ("c", 0), ("u", 0)]


def test_fifos(tmp_path: Path) -> None:
    """Both kinds; the first of a kind counts, and none of the virtual servers."""
    text = (
        "global_defs {\n vrrp_notify_fifo /run/v root\n vrrp_notify_fifo /run/x\n"
        " lvs_notify_fifo /run/l\n}\nglobal_defs { notify_fifo /run/n }\n"
    )
    assert conf(tmp_path, text).fifos == ("/run/n", "/run/v")


def test_instances_that_keepalived_skips_or_refuses(tmp_path: Path) -> None:
    """A second of a name, one without a name, and one without what it needs."""
    text = (
        f"vrrp_instance V {{\n{HEAD}}}\nvrrp_instance V {{ }}\n"
        "vrrp_instance {\n}\nvrrp_instance W\n"
    )
    found = conf(tmp_path, text)
    assert [one.name for one in found.instances] == ["V", "W"]
    assert found.places == (f"{tmp_path}/k.conf:1", f"{tmp_path}/k.conf:8")
    assert found.notes == (
        "k.conf:5: keepalived skips a second vrrp_instance V: rename or remove it",
        "k.conf:6: keepalived skips a vrrp_instance without a name: name it",
        "k.conf:8: keepalived refuses a vrrp_instance W with no interface: add it",
        "k.conf:8: keepalived refuses a vrrp_instance W with no virtual_router_id: add it",
    )


def test_other_blocks_do_not_matter(tmp_path: Path) -> None:
    """Words of theirs may be as ours."""
    text = "virtual_server 10.0.0.1 80 {\n real_server x 80 {\n }\n vrrp_instance X {\n }\n}\n"
    assert instance(tmp_path, "", text).name == "V"


def test_the_default_id_is_the_host_name_without_its_domain(tmp_path: Path) -> None:
    """keepalived(8), --config-id."""
    host = os.uname().nodename.partition(".")[0]
    text = f"vrrp_instance V {{\n{HEAD}@{host} priority 7\n@^{host} priority 8\n}}"
    assert conf(tmp_path, text, config_id="").instances[0].priority == 7


@pytest.mark.parametrize(
    "text",
    ["", "}", "{", "} } }", 'vrrp_instance "', "vrrp_instance {", "interface", "a{b{c", '""{'],
)
def test_garbage_raises_nothing(tmp_path: Path, text: str) -> None:
    """Half a file is what keepalived itself must judge."""
    assert conf(tmp_path, text).instances == ()


WORDS: Final = (
    *(
        "vrrp_instance V",
        "vrrp_sync_group G",
        "track_file",
        "track_script",
        "vrrp_script s",
        "group",
    ),
    *(
        "virtual_ipaddress",
        "unicast_peer",
        "use_vmac",
        "use_vmac_addr",
        "global_defs",
        "interface e",
    ),
    *(
        "10.0.0.1/24 dev",
        "2001:db8::1",
        "weight 2",
        "weight",
        "script '",
        'script ""',
        "file /f",
        "V",
    ),
    *("state MASTER", "priority 255", "advert_int .", "nopreempt", "version 3", "s", "vmac_prefix"),
    *("{", "{", "{", "}", "}", "\n", "\n", "\n", "\n", '"'),
)


@given(st.lists(st.sampled_from(WORDS)).map(" ".join))
@settings(max_examples=200, deadline=None)
def test_no_order_of_words_raises(text: str) -> None:
    """What can be said wrongly is said wrongly, and findings can still be made of it."""
    memory = os.memfd_create("k.conf")
    try:
        os.fchmod(memory, 0o600)
        os.write(memory, text.encode())
        found = read(f"/proc/self/fd/{memory}", config_id="lb1")
    finally:
        os.close(memory)
    assert found.error == ""
    assert findings(found, track_file="/f", weighted_file="/g", fifo="/h")


def test_hardly_more_notes_than_can_be_read(tmp_path: Path) -> None:
    """A file full of mistakes does not fill the log, nor does a long line."""
    found = conf(tmp_path, "include none\n" * 999 + f"include {'x' * 9999}")
    assert len(found.notes) == 50
    long = conf(tmp_path, f"include {'x' * 9999}")
    assert len(long.notes[0]) < 400
