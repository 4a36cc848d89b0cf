"""Put the project's working tree into a node, where the README puts it on a load balancer.

What a part of the project does not ship (yet) is not there; a test that needs it fails by itself.
"""

from __future__ import annotations

import shutil
import tomllib
from typing import TYPE_CHECKING, Final

from lab.image import PROJECT, VENV

if TYPE_CHECKING:
    from pathlib import Path

    from lab.node import Node

#: Files of the project, and the folder each goes to.
SHIPPED: Final = (
    ("systemd/*.service", "etc/systemd/system"),
    ("systemd/*.socket", "etc/systemd/system"),
    ("systemd/*.d", "etc/systemd/system"),
    ("systemd/*tmpfiles*.conf", "etc/tmpfiles.d"),
    ("systemd/*sysusers*.conf", "etc/sysusers.d"),
    ("contrib/keepalived/*.sh", "usr/local/libexec/sentinel"),
    ("contrib/rsyslog/*.conf", "etc/rsyslog.d"),
    ("contrib/logrotate/*", "etc/logrotate.d"),
)
_EXECUTABLES: Final = frozenset({".sh"})
_SCRIPT: Final = """\
#!{venv}/bin/python
import sys
from {module} import {function}
sys.exit({function}())
"""


def install_sentinel(node: Node) -> None:
    """Install package, command and shipped files; tell systemd. The node must be switched on."""
    _install_package(node.root)
    for pattern, folder in SHIPPED:
        for source in sorted(PROJECT.glob(pattern)):
            _copy(source, node.root / folder / source.name)
    node.run("systemd-sysusers")
    node.run("systemctl", "daemon-reload")
    node.run("systemd-tmpfiles", "--create", check=False)  # 73: a line of Debian's own needs more


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


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder of drop-ins, with the modes a careful administrator gives."""
    if source.is_dir():
        for child in source.iterdir():
            _copy(child, target / child.name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.suffix in _EXECUTABLES else 0o644)
