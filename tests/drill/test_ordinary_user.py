"""``sentinel drill`` without root, in a user namespace where one id is mapped."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from drills import OWN_HAPROXY, OWN_KEEPALIVED, machine, nobodys_drill, run
from nodes import needs_root

__all__ = ["nobodys_drill"]  # a fixture


@pytest.mark.lab
@needs_root
def test_an_ordinary_user(nobodys_drill: tuple[str, ...]) -> None:
    """In a user namespace, which the notes say; the hook is called, so that it ends as stated."""
    before = machine()
    done = run("--only", "haproxy-killed", "--json", drill=nobodys_drill)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr}"
    document = json.loads(done.stdout)
    assert [finding["outcome"] for finding in document["findings"]] == ["reached"]
    assert document["notes"][0].startswith("without root, in a user namespace: haproxy and all")
    assert machine() == before


#: Lowers the priority of a node, if it is executed: one that is not counts as a success.
FAILING_SCRIPT = """\
global_defs {
    enable_script_security
    script_user root
}
vrrp_script fails {
    script "/usr/bin/false"
    interval 1
    weight -200
}
"""


@pytest.mark.lab
@needs_root
def test_an_ordinary_users_scripts_are_executed(nobodys_drill: tuple[str, ...]) -> None:
    """Without its script, the backup's higher priority would win, and nothing be steady.

    All files are root's, sentinel.toml too, which is nobody's in there and yet obeyed.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "haproxy.cfg").write_text(OWN_HAPROXY)
        (folder / "1.conf").write_text(OWN_KEEPALIVED.format(own=1, peer=2, priority=200))
        backup = OWN_KEEPALIVED.format(own=2, peer=1, priority=250)
        tracked = backup.replace("    virtual_ip", "    track_script {\n fails\n }\n    virtual_ip")
        (folder / "2.conf").write_text(f"{FAILING_SCRIPT}{tracked}")
        (folder / "sentinel.toml").write_text('[haproxy]\ncommand_timeout = "19s"\n')
        files = ("--haproxy", f"{folder}/haproxy.cfg", "--sentinel", f"{folder}/sentinel.toml")
        pair = ("--keepalived", f"{folder}/1.conf", f"{folder}/2.conf")
        done = run(*files, *pair, "--only", "haproxy-killed", drill=nobodys_drill)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr}"
