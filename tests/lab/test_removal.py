"""The commands of docs/operations.md take sentinel out again, and leave nothing of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from lab.image import PROJECT
from lab.installation import START, install_sentinel
from system.shipped import HAPROXY_CFG, haproxy_cfg

if TYPE_CHECKING:
    from lab.node import Node


def removal_steps() -> tuple[str, str]:
    """Return the shell commands of the section: those before keepalived's change, those after."""
    text = (PROJECT / "docs/operations.md").read_text()
    section = text.partition("\n## Take it out\n")[2].partition("\n## ")[0]
    before, after = re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return before, after


@pytest.mark.lab
def test_a_node_that_yielded_is_free_again(node: Node) -> None:
    """The track file no longer says 1, HAProxy runs on, and no file of sentinel's is left."""
    install_sentinel(node)
    node.write(HAPROXY_CFG, haproxy_cfg())
    node.run("systemctl", "restart", "haproxy")
    node.run("sh", "-eu", "-c", START, timeout_s=40.0)
    node.wait_until("grep -q ^OK /run/sentinel/lease")
    node.run("systemctl", "stop", "haproxy")
    node.wait_until("grep -qx 1 /run/sentinel/track")
    before, after = removal_steps()

    node.run("sh", "-eu", stdin=before, timeout_s=40.0)
    assert node.read("/run/sentinel/track") == "0\n"
    node.run("systemctl", "start", "haproxy")
    node.run("sh", "-eu", stdin=after, timeout_s=40.0)

    folders = ("/etc", "/opt", "/run", "/usr/libexec", "/usr/local")
    assert node.run("find", *folders, "-iname", "*sentinel*").stdout == ""
    assert node.unit("haproxy.service")["ActiveState"] == "active"
    assert node.unit("sentinel.service")["LoadState"] == "not-found"
    node.run("systemctl", "restart", "haproxy")
    node.run("rsyslogd", "-N1")
