"""The README's commands make a node that has all of sentinel in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lab.installation import install_sentinel, readme_steps

if TYPE_CHECKING:
    from lab.node import Node


def test_steps_are_the_shell_blocks_without_the_start() -> None:
    """Commands of all shell blocks are taken in their order, prose and other blocks are not."""
    readme = (
        "Text\n```sh\none\nsystemctl enable --now sentinel\n```\n"
        "```toml\nkey = 1\n```\n```sh\ntwo\n```\n"
    )

    assert readme_steps(readme) == "one\ntwo\n"


def test_readme_without_the_start_is_refused() -> None:
    """A README whose last step was renamed must not start sentinel behind a test's back."""
    with pytest.raises(ValueError, match="does not say: systemctl enable"):
        readme_steps("```sh\nsystemctl start sentinel\n```\n")


@pytest.mark.lab
def test_readme_installs_sentinel(node: Node) -> None:
    """The command runs on the node's own Python; the units are known to systemd and well-formed."""
    install_sentinel(node)

    assert node.run("/opt/sentinel/bin/sentinel", "--version").stdout.startswith("sentinel ")
    node.run("systemd-analyze", "verify", "--man=no", "sentinel.service", timeout_s=30.0)
    assert "sentinel.conf" in node.unit("haproxy.service")["DropInPaths"]
    assert node.unit("sentinel.service")["ActiveState"] == "inactive"
    assert node.read("/run/sentinel/track") == "0"
    node.run("rsyslogd", "-N1")
