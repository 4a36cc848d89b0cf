"""Which pairs the tests run on: every Debian release, and both of the shipped configurations."""

from __future__ import annotations

from itertools import product
from typing import Final

import pytest
from system.boot import SUITES

#: What a test runs on that asks for nothing else.
FAST: Final = (SUITES[0], "fast")
on_every_pair: Final = pytest.mark.parametrize(
    "setup", tuple(product(SUITES, ("fast", "classic"))), ids="-".join, indirect=True
)
