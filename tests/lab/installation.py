"""Put the project's working tree into a node by the very commands its README gives.

So a node is what a load balancer is after the README, and a README that does not work fails here.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from typing import TYPE_CHECKING, Final

from lab.image import PROJECT, VENV

if TYPE_CHECKING:
    from pathlib import Path

    from lab.node import Node

README: Final = "contrib/README.md"
#: The README's last step; it is left to the test, which has a configuration to write before.
START: Final = "systemctl enable --now sentinel"
#: The project's folder in the node.
_SOURCE: Final = "/usr/src/sentinel"
_SCRIPT: Final = """\
#!{venv}/bin/python
import sys
from {module} import {function}
sys.exit({function}())
"""


def install_sentinel(node: Node) -> None:
    """Do all the README says but START. The node must be switched on."""
    _install_package(node.root)
    for folder in ("contrib", "systemd"):
        target = node.root / _SOURCE.removeprefix("/") / folder
        shutil.copytree(PROJECT / folder, target, dirs_exist_ok=True)
    steps = readme_steps((PROJECT / README).read_text())
    node.run("sh", "-eu", stdin=f"cd {_SOURCE}\n{steps}", timeout_s=60.0)


def readme_steps(readme: str) -> str:
    """Return the README's shell commands without START; raises ValueError when that is missing."""
    commands = "".join(re.findall(r"^```sh\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE))
    steps, start, rest = commands.partition(f"{START}\n")
    if not start:
        raise ValueError(f"{README} does not say: {START}")
    return steps + rest


def _install_package(root: Path) -> None:
    """Do what pip does with a wheel; byte code comes along, its sources keep their times."""
    venv = root / VENV.removeprefix("/")
    (site_packages,) = venv.glob("lib/python3*/site-packages")
    shutil.rmtree(site_packages / "sentinel", ignore_errors=True)
    shutil.copytree(PROJECT / "sentinel", site_packages / "sentinel")
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    for command, entry in project["scripts"].items():
        module, function = entry.split(":")
        script = venv / "bin" / command
        script.write_text(_SCRIPT.format(venv=VENV, module=module, function=function))
        script.chmod(0o755)
