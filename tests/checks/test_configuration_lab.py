"""The configuration check on a node where systemd runs Debian's own haproxy.service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from haproxies import answering_config
from lab.fixtures import lab, lab_image, make_node, node  # noqa: F401  (fixtures of this module)
from lab.image import VENV
from lab.installation import install_sentinel

if TYPE_CHECKING:
    from lab.node import Node

pytestmark = pytest.mark.lab

CONFIG: Final = "/etc/haproxy/haproxy.cfg"
CHECK: Final = """
import asyncio, json, sys
from sentinel.aside import Aside
from sentinel.checks.configuration import ConfigurationCheck
from sentinel.config import CONFIGURATION_PACE, Haproxy

check = ConfigurationCheck(
    Haproxy(config=("/nonexistent",)),
    CONFIGURATION_PACE,
    lambda: int(sys.argv[1]),
    Aside("looking"),
)
seen = asyncio.run(check())
print(json.dumps([seen.verdict.value, seen.detail, check.invocation.argv, check.invocation.cwd]))
"""


def judge(node: Node) -> list[Any]:  # noqa: F811  (the node itself, not its fixture)
    """Return verdict, detail, arguments and folder of a new check of the running unit."""
    pid = node.unit("haproxy")["MainPID"]
    answer: list[Any] = json.loads(node.run(f"{VENV}/bin/python", "-c", CHECK, pid).stdout)
    return answer


def test_debians_unit_through_reloads(node: Node) -> None:  # noqa: F811  (a fixture)
    """The unit's own arguments are found, and a broken file is seen, after a reload as well."""
    install_sentinel(node)
    node.write(CONFIG, answering_config(8080))
    node.run("systemctl", "start", "haproxy", timeout_s=30)
    arguments = [["-f", CONFIG], "/"]
    assert judge(node) == ["PASS", "valid", *arguments]
    node.run("systemctl", "reload", "haproxy", timeout_s=30)
    assert judge(node) == ["PASS", "valid", *arguments]
    node.write(CONFIG, f"nonsense\n{answering_config(8080)}")
    verdict, detail, *same = judge(node)
    assert verdict == "FAIL"
    assert f"[{CONFIG}:1]" in detail
    assert "'nonsense'" in detail
    assert same == arguments
