"""From the user's files to the plan of a world."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel.config import Config, Manager
from sentinel.configfile import load
from sentinel.drill.cables import Cable
from sentinel.drill.confs import PlanError
from sentinel.drill.plan import Files, Plan, make_plan
from sentinel.drill.servers import Place, Target, read_servers
from sentinel.haproxycfg import statements

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
    config_ids: tuple[str, str] | None = None,
    **others: str,
) -> Plan:
    """Make the plan of these texts; *others* are further files of keepalived, by their stem."""
    texts = {"haproxy.cfg": haproxy, "m.conf": master, "b.conf": backup, "s.toml": sentinel}
    texts |= {f"{name}.conf": text for name, text in others.items()}
    for name, text in texts.items():
        (folder / name).write_text(text)
    files = Files(
        haproxy=folder / "haproxy.cfg",
        master=folder / "m.conf",
        backup=folder / "b.conf",
        sentinel=folder / "s.toml",
        hook=None,
        config_ids=config_ids,
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
    assert made.machines[0].keepalived_conf == str(tmp_path / "m.conf")
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
    with pytest.raises(PlanError, match=r"m.conf:1: vrrp_instance V has no interface"):
        plan(tmp_path, master=keepalived("", ""))
    with pytest.raises(PlanError, match=r"m.conf:1: no file matches include nowhere.conf"):
        plan(tmp_path, master="include nowhere.conf\n")
    with pytest.raises(PlanError, match=r"bind :80, wants the PROXY protocol"):
        plan(tmp_path, haproxy=HAPROXY.replace("bind :80", "bind :80 accept-proxy"))
    with pytest.raises(PlanError, match=r"m.conf:1: vrrp_track_process sees no process"):
        plan(tmp_path, master="vrrp_track_process x {\n}\n" + keepalived("eth0", ""))
    same = keepalived("eth0", " unicast_src_ip 10.0.0.1")
    with pytest.raises(PlanError, match=r"b.conf:1: vrrp_instance V speaks from 10.0.0.1, as"):
        plan(tmp_path, master=same, backup=same)
    with pytest.raises(PlanError, match=r"^/proc/version: a node has its own /proc: copy"):
        make_plan(
            Files(
                haproxy=tmp_path / "haproxy.cfg",
                master=Path("/proc/version"),
                backup=tmp_path / "b.conf",
                sentinel=None,
                hook=None,
            )
        )


def test_what_gets_no_stub_is_said() -> None:
    """Templates, sockets and TLS."""
    text = (
        "backend p\nserver-template w 3 _http._tcp:80\nserver u /run/x.sock\n"
        "server s 10.0.0.1:443 ssl\nserver any 0.0.0.0:80\n"
    )
    found = read_servers(statements([text], {}))
    assert [str(place) for place in found.places] == ["10.0.0.1:443"]
    assert len(found.notes) == 4


def test_the_servers_are_those_of_proxies() -> None:
    """A stub on a peer's port would keep HAProxy from it; variables are HAProxy's own."""
    text = (
        "global\nsetenv APP 10.0.0.2\npeers x\nserver lb1 10.0.0.1:1024\n"
        "backend p\nserver a $APP:80\nserver b localhost:81\nserver c [2001:DB8::0:1]:82\n"
    )
    found = read_servers(statements([text], {}))
    assert [str(place) for place in found.places] == [
        "10.0.0.2:80",
        "127.0.0.1:81",
        "[2001:db8::1]:82",
    ]


def test_where_haproxy_listens_itself_is_no_stub(tmp_path: Path) -> None:
    """One frontend is the server of another; what else is on the VIP lives on both nodes."""
    chained = (
        "backend tls\n server own 127.0.0.1:8443\n server vip 10.0.0.100:9000\n"
        "frontend inner\n bind 127.0.0.1:8443 ssl crt /x accept-proxy\n"
    )
    made = plan(tmp_path, haproxy=HAPROXY + chained)
    vip = Place(host="10.0.0.100", port=9000)
    assert [machine.places for machine in made.machines] == [(vip,), (vip,)]
    assert vip not in made.places


@pytest.mark.parametrize(
    ("bind", "asked"),
    [
        (":::80 v4v6", "10.0.0.100"),
        ("[::]:80", "10.0.0.100"),
        (":::80", "10.0.0.100"),
        (":::80 v6only", "2001:db8::64"),
        ("[::]:80 v4v6 v6only", "2001:db8::64"),
        ("2001:DB8::64:80", "2001:db8::64"),
    ],
)
def test_two_families_in_one_bind(tmp_path: Path, bind: str, asked: str) -> None:
    """The wildcard of IPv6 is that of IPv4 too, unless ``v6only`` forbids it."""
    both = keepalived("eth0", " virtual_ipaddress_excluded {\n 2001:db8::64\n }")
    made = plan(tmp_path, haproxy=HAPROXY.replace(":80\n", f"{bind}\n", 1), master=both)
    assert made.target.place.host == asked


SHARED = "@lb1 $OWN=eth0\n@lb2 $OWN=ens3\n" + keepalived("$OWN", " @lb1 priority 150")


def test_one_file_for_both_nodes(tmp_path: Path) -> None:
    """Each node reads it under its own config id, sentinel and keepalived alike."""
    made = plan(tmp_path, master=SHARED, backup=SHARED, config_ids=("lb1", "lb2"))
    assert [machine.cables[0].interface for machine in made.machines] == ["eth0", "ens3"]
    for machine, own, path in zip(made.machines, ("lb1", "lb2"), "mb", strict=True):
        (tmp_path / "inside.toml").write_text(made.sentinel_toml_of(machine))
        inside = load(str(tmp_path / "inside.toml"))
        assert (inside.vrrp.config_id, inside.vrrp.file) == (own, f"{tmp_path}/{path}.conf")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (SHARED, "m.conf:1: @lb1 depends"),
        (keepalived("eth0", " @^lb2 nopreempt"), "m.conf:4: @^lb2 depends"),
        (keepalived("eth0", "") + "include ${_INSTANCE}.conf\n", "_INSTANCE depends"),
        ("include inst.conf\n", "inst.conf:4: @lb1 depends"),
    ],
)
def test_nobody_guesses_what_the_nodes_are_called(tmp_path: Path, text: str, what: str) -> None:
    """Not by this machine's host name either: the message names the line and the option."""
    included = keepalived("eth0", "@lb1 priority 150")
    with pytest.raises(PlanError) as error:
        plan(tmp_path, master=text, inst=included)
    assert what in str(error.value)
    assert "--config-id MASTER BACKUP" in str(error.value)


def test_a_comment_depends_on_nobody(tmp_path: Path) -> None:
    """Nor does an address with an at sign in it."""
    harmless = "# @lb1 ${_INSTANCE}\nglobal_defs {\n notification_email {\n a@example.org\n }\n}\n"
    machines = plan(tmp_path, master=harmless + keepalived("eth0", "")).machines
    assert [machine.config_id for machine in machines] == ["master", "backup"]


def test_included_files(tmp_path: Path) -> None:
    """They are found beside the file, where the node's keepalived finds them as well."""
    made = plan(
        tmp_path,
        master="include inst.conf\n",
        backup=f"include {tmp_path}/inst.conf\n",
        inst=keepalived("ens3", ""),
    )
    assert [machine.cables[0].interface for machine in made.machines] == ["ens3", "ens3"]


def test_further_files_of_haproxy(tmp_path: Path) -> None:
    """What ``haproxy.config`` names after the first is read from this machine."""
    more = tmp_path / "more.cfg"
    more.write_text("backend more\n server m 10.0.0.30:80\n")
    files = f'[haproxy]\nconfig = ["/etc/haproxy/haproxy.cfg", "{more}"]\n'
    assert Place(host="10.0.0.30", port=80) in plan(tmp_path, sentinel=files).places
    with pytest.raises(PlanError, match="is a folder: name its files"):
        plan(tmp_path, sentinel=files.replace(str(more), str(tmp_path)))
