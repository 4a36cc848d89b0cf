"""What every test of the whole daemon begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from daemons import Node, node_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Give a node whose HAProxy runs and answers."""
    with node_in(tmp_path) as node:
        node.start()
        yield node


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Node]:
    """Give a node whose HAProxy has not been started."""
    with node_in(tmp_path) as node:
        yield node
