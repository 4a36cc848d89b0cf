"""From the user's files to the plan of a world."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel.config import Config, Manager
from sentinel.configfile import load
from sentinel.drill.plan import Cable, Files, Plan, PlanError, make_plan
from sentinel.drill.servers import Place, Target, read_servers

CONTRIB = Path(__file__).parents[2] / "contrib"

HAPROXY = """\
frontend web
    bind :80
    default_backend pool
backend pool
    server a 10.0.0.21:8080 check port 8081
    server b app.example:8080 check
"""


def keepalived(interface: str, body: str) -> str:
    """Return one node's file."""
    return (
        f"vrrp_instance V {{\n interface {interface}\n virtual_router_id 7\n{body}\n"
        " virtual_ipaddress {\n 10.0.0.100\n }\n}\n"
    )


def plan(
    folder: Path,
    *,
    haproxy: str = HAPROXY,
    master: str = keepalived("eth0", ""),
    backup: str = keepalived("eth0", ""),
    sentinel: str = "",
) -> Plan:
    """Make the plan of these texts."""
    texts = {"haproxy.cfg": haproxy, "m.conf": master, "b.conf": backup, "s.toml": sentinel}
    for name, text in texts.items():
        (folder / name).write_text(text)
    files = Files(
        haproxy=folder / "haproxy.cfg",
        master=folder / "m.conf",
        backup=folder / "b.conf",
        sentinel=folder / "s.toml",
        hook=None,
    )
    return make_plan(files)


@pytest.mark.parametrize("pair", ["fast", "classic"])
def test_the_shipped_pairs(pair: str) -> None:
    """Both nodes with their addresses and web servers, and a client that asks the VIP."""
    made = make_plan(
        Files(
            haproxy=CONTRIB / "haproxy" / "haproxy.cfg",
            master=CONTRIB / "keepalived" / pair / "master.conf",
            backup=CONTRIB / "keepalived" / pair / "backup.conf",
            sentinel=None,
            hook=CONTRIB / "keepalived" / "chk_sentinel.sh",
        )
    )
    master, backup = made.machines
    assert master.cables == (Cable(interface="eth0", switch=0, addresses=("192.168.1.189/24",)),)
    assert backup.places == (Place(host="192.168.1.222", port=81),)
    assert made.target == Target(place=Place(host="192.168.1.99", port=80), tls=False)
    assert made.places == ()
    assert {"/run/haproxy", "/run/sentinel", "/usr/libexec/keepalived"} <= set(made.folders)


def test_the_users_files_go_in_as_they_are(tmp_path: Path) -> None:
    """All but who starts and stops the services, which the notes say."""
    made = plan(tmp_path, sentinel='node = "lb"\n[restart]\nbudget = 2\n')
    assert made.haproxy_cfg == HAPROXY
    assert made.machines[0].keepalived_conf == keepalived("eth0", "")
    (tmp_path / "inside.toml").write_text(made.sentinel_toml)
    inside = load(str(tmp_path / "inside.toml"))
    assert inside == made.config
    assert (inside.node, inside.restart.budget) == ("lb", 2)
    assert inside.haproxy.manager is Manager.COMMANDS
    assert inside.haproxy.pidfile == Config().haproxy.pidfile
    assert "no systemd" in made.notes[0]


def test_servers_are_put_where_they_are_named(tmp_path: Path) -> None:
    """Addresses, the ports of checks, and names, which get an address of their own."""
    made = plan(tmp_path)
    assert [str(place) for place in made.places] == [
        "10.0.0.21:8080",
        "10.0.0.21:8081",
        "198.18.1.1:8080",
    ]
    assert made.hosts == (("app.example", "198.18.1.1"),)


def test_loopback_servers_live_on_both_nodes(tmp_path: Path) -> None:
    """Each HAProxy has its own."""
    made = plan(tmp_path, haproxy=HAPROXY.replace("10.0.0.21", "127.0.0.1"))
    assert all(Place(host="127.0.0.1", port=8080) in machine.places for machine in made.machines)
    assert [place.host for place in made.places] == ["198.18.1.1"]


def test_a_node_without_an_address_gets_one_near_the_vip(tmp_path: Path) -> None:
    """Each another, and neither the VIP nor a server."""
    master, backup = plan(tmp_path).machines
    assert master.cables[0].addresses == ("10.0.0.250/24",)
    assert backup.cables[0].addresses == ("10.0.0.249/24",)


def test_a_peer_tells_the_address_of_the_other(tmp_path: Path) -> None:
    """Unicast without unicast_src_ip: the other node names it."""
    made = plan(
        tmp_path,
        master=keepalived("eth0", " unicast_peer {\n 10.0.0.2\n }"),
        backup=keepalived("eth0", " unicast_peer {\n 10.0.0.1\n }"),
    )
    assert [machine.addresses for machine in made.machines] == [("10.0.0.1",), ("10.0.0.2",)]


def test_interfaces_of_one_virtual_router_are_cabled_together(tmp_path: Path) -> None:
    """Two nodes need not call them the same."""
    made = plan(tmp_path, backup=keepalived("ens3", ""))
    assert [machine.cables[0].interface for machine in made.machines] == ["eth0", "ens3"]
    assert [machine.cables[0].switch for machine in made.machines] == [0, 0]


def test_plain_http_is_asked_before_tls(tmp_path: Path) -> None:
    """And what listens on loopback alone is no client's."""
    tls = "frontend tls\n    bind :443 ssl crt /x\nfrontend own\n    bind 127.0.0.1:81\n"
    assert plan(tmp_path, haproxy=tls + HAPROXY).target.place.port == 80
    assert plan(tmp_path, haproxy=tls).target == Target(
        place=Place(host="10.0.0.100", port=443), tls=True
    )


def test_files_of_which_no_world_can_be_made(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(PlanError, match=r"haproxy.cfg: no frontend listens on a VIP"):
        plan(tmp_path, haproxy="frontend x\n    bind 127.0.0.1:80\n")
    with pytest.raises(PlanError, match=r"b.conf: no vrrp_instance has a virtual_ipaddress"):
        plan(tmp_path, backup="")
    with pytest.raises(PlanError, match=r"m.conf: vrrp_instance V has no interface"):
        plan(tmp_path, master=keepalived("", ""))


def test_what_gets_no_stub_is_said() -> None:
    """Templates, sockets and TLS."""
    found = read_servers(
        "server-template w 3 _http._tcp:80\nserver u /run/x.sock\nserver s 10.0.0.1:443 ssl\n"
    )
    assert [str(place) for place in found.places] == ["10.0.0.1:443"]
    assert len(found.notes) == 3
