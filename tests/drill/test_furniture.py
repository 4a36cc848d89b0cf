"""The files of a node, beside those of a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel.drill.furniture import File, files
from sentinel.drill.plan import Files, Plan, make_plan

ROOT = Path(__file__).parents[2]
PAIR = ROOT / "contrib" / "keepalived" / "fast"


@pytest.fixture
def plan() -> Plan:
    """Return the plan of the shipped pair."""
    return make_plan(
        Files(
            haproxy=ROOT / "contrib" / "haproxy" / "haproxy.cfg",
            master=PAIR / "master.conf",
            backup=PAIR / "backup.conf",
            sentinel=None,
            hook=None,
        )
    )


def test_a_node_has_what_tmpfiles_makes(plan: Plan) -> None:
    """Files with their content, folders, and the FIFO in one of them."""
    made = {file.path: file for file in files(plan.machines[0], plan)}
    conf = (ROOT / "systemd" / "sentinel.tmpfiles.conf").read_text()
    for line in (line for line in conf.splitlines() if line and not line.startswith("#")):
        kind, path, mode, _user, _group, _age, *content = line.split()
        match kind:
            case "f":
                assert made[path] == File(path=path, text="".join(content), mode=int(mode, 8))
            case "p":
                assert (path, mode) == (plan.config.fifo, "0600")
            case _:
                assert path in plan.folders


def test_each_node_reads_its_own_keepalived_conf(plan: Plan) -> None:
    """Where it is and under its config id, sentinel too; all folders for files are made first."""
    for name, machine in zip(("master", "backup"), plan.machines, strict=True):
        made = {file.path: file.text for file in files(machine, plan)}
        path = PAIR / f"{name}.conf"
        assert f" -f {path} -i {name} 9>&-" in made["/run/sentinel-drill/keepalived-start"]
        assert f'file = "{path}"' in made["/etc/sentinel/sentinel.toml"]
        assert {str(Path(path).parent) for path in made} <= set(plan.folders)
