"""The lines that lay the cables of a world."""

from __future__ import annotations

from pathlib import Path

from sentinel.drill import laying, outside
from sentinel.drill.plan import make_plan

IFNAMSIZ = 16


def test_every_port_of_a_switch_has_a_name_of_its_own(tmp_path: Path) -> None:
    """However long and alike the interfaces' names are; ``lo`` is there without a cable."""
    tracked = "track_interface {\n enp0s31f6.1002\n lo\n }"
    text = (
        f"vrrp_instance V {{\n interface enp0s31f6.1001\n virtual_router_id 7\n {tracked}\n"
        " virtual_ipaddress {\n 10.0.0.100\n }\n}\n"
    )
    conf = tmp_path / "keepalived.conf"
    conf.write_text(text)
    haproxy = tmp_path / "haproxy.cfg"
    haproxy.write_text("frontend web\n bind :80\n")
    made = make_plan(outside.choose_files(haproxy, [conf, conf], None, "fast"))
    for machine in made.machines:
        assert [c.interface for c in machine.cables] == ["enp0s31f6.1001", "enp0s31f6.1002"]
    ports = [laying.port(node, number) for node in made.machines for number in range(2)]
    assert len(set(ports)) == len(ports)
    assert max(map(len, ports)) < IFNAMSIZ
    master = list(laying.inside(made.machines[0]))
    assert master.count("ip link set enp0s31f6.1002 up") == 1


def test_the_switch_knows_the_way_to_every_address() -> None:
    """To the VIP and to both nodes."""
    lines = list(laying.switches(make_plan(outside.choose_files(None, None, None, "fast"))))
    for host in ("192.168.1.99", "192.168.1.189", "192.168.1.222"):
        assert f"ip route add {host} dev switch0" in lines
