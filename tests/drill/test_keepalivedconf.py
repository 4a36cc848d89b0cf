"""What a drill reads in keepalived.conf."""

from __future__ import annotations

from ipaddress import ip_interface
from pathlib import Path

from sentinel.drill.keepalivedconf import KeepalivedConf, Vip, VrrpInstance, read

CONTRIB = Path(__file__).parents[2] / "contrib" / "keepalived"


def conf(text: str) -> KeepalivedConf:
    """Read a text that includes nothing."""
    return read(text, Path("/nonexistent"))


def instance(body: str) -> VrrpInstance:
    """Read one instance with this body."""
    return conf(f"vrrp_instance V {{\ninterface eth0\n{body}\n}}").instances[0]


def test_the_shipped_fast_pair() -> None:
    """Everything of it that a network must have."""
    path = CONTRIB / "fast" / "master.conf"
    assert read(path.read_text(), path.parent) == KeepalivedConf(
        instances=(
            VrrpInstance(
                name="VI_1",
                interface="eth0",
                router_id=51,
                source="192.168.1.189",
                vips=(Vip(address=ip_interface("192.168.1.99"), interface="eth0"),),
            ),
        ),
        interfaces=("eth0",),
        files=("/run/sentinel/track",),
        scripts=("/usr/libexec/keepalived/chk_sentinel.sh",),
    )


def test_unicast_peers() -> None:
    """The address it speaks from and those it speaks to."""
    read_one = instance("unicast_src_ip 10.0.0.1\nunicast_peer {\n10.0.0.2\n10.0.0.3\n}")
    assert (read_one.source, read_one.peers) == ("10.0.0.1", ("10.0.0.2", "10.0.0.3"))


def test_vips_with_options() -> None:
    """Prefix, device and label; what is no address is passed over."""
    vips = instance(
        "virtual_ipaddress {\n10.1.0.9/24 brd + dev eth1 label eth1:1\n2001:db8::9\nnonsense\n}\n"
        "virtual_ipaddress_excluded { 10.1.0.10 }"
    ).vips
    assert [(str(vip.address), vip.interface) for vip in vips] == [
        ("10.1.0.9/24", "eth1"),
        ("2001:db8::9/128", "eth0"),
        ("10.1.0.10/32", "eth0"),
    ]


def test_all_interfaces_are_found() -> None:
    """Those of instances, of VIPs, and those that are only tracked."""
    found = conf(
        "vrrp_sync_group G {\n track_interface {\n eth3\n }\n}\n"
        "vrrp_instance A {\n interface eth0\n track_interface {\n eth2 weight 5\n }\n"
        " virtual_ipaddress {\n 10.0.0.1 dev eth1\n }\n}"
    )
    assert set(found.interfaces) == {"eth0", "eth1", "eth2", "eth3"}


def test_comments_and_braces_of_every_style() -> None:
    """# and ! begin comments; a brace may stand on its own line, or close on the same one."""
    read_one = instance("! nopreempt\n# priority 1\nvirtual_ipaddress\n{\n10.0.0.1 # the VIP\n}")
    assert not read_one.nopreempt
    assert [str(vip.address.ip) for vip in read_one.vips] == ["10.0.0.1"]


def test_variables_and_ids() -> None:
    """A value may name another variable; a line for one @id is taken for ours."""
    found = conf(
        "$IF=eth7\n$VIP=10.0.0.${LAST}\n$LAST=9\n"
        "vrrp_instance A {\n@lb1 interface $IF\n virtual_ipaddress { $VIP }\n}"
    )
    assert found.interfaces == ("eth7",)
    assert str(found.instances[0].vips[0].address.ip) == "10.0.0.9"


def test_nopreempt_that_state_master_undoes() -> None:
    """The two exclude each other (keepalived.conf(5), nopreempt)."""
    assert instance("state BACKUP\nnopreempt").nopreempt
    assert not instance("state MASTER\nnopreempt").nopreempt


def test_includes(tmp_path: Path) -> None:
    """Files are put in their place, by pattern and in order; a file that includes itself ends."""
    (tmp_path / "a.conf").write_text("vrrp_instance A {\n interface eth0\n}\ninclude a.conf\n")
    (tmp_path / "b.conf").write_text("vrrp_script S {\n script \"/bin/x 'y z'\"\n}\n")
    found = read("include *.conf\n", tmp_path)
    assert {instance.name for instance in found.instances} == {"A"}
    assert found.scripts == ("/bin/x",)


def test_garbage_raises_nothing() -> None:
    """Half a file is what keepalived itself must judge."""
    for text in ("", "}", "{", "} } }", 'vrrp_instance "', "vrrp_instance {", "interface"):
        conf(text)
