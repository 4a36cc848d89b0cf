"""Let systemd hold a node's listeners, and take them back, by the very commands of the README."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lab.image import PROJECT

if TYPE_CHECKING:
    from lab.node import Node

_SOURCE: Final = "/usr/src/sentinel"


def hold_listeners(node: Node) -> None:
    """Do what "Held listeners" says first. Sentinel must be installed, HAProxy configured."""
    node.run("sh", "-eu", stdin=f"cd {_SOURCE}\n{held_steps()[0]}", timeout_s=30.0)


def let_listeners_go(node: Node) -> None:
    """Do what it says about going back."""
    node.run("sh", "-eu", stdin=f"cd {_SOURCE}\n{held_steps()[1]}", timeout_s=30.0)


def held_steps() -> tuple[str, str]:
    """Return the shell commands of the README's section: there, and back."""
    readme = (PROJECT / "README.md").read_text()
    section = readme.partition("\n## Held listeners\n")[2].partition("\n## ")[0]
    there, back = re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return there, back
