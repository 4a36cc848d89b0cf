"""The names of sentinel's own checks, which no configured check may have."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from sentinel import checks
from sentinel.configfile.contradictions import RESERVED_NAMES


def test_the_name_of_every_own_check_is_reserved() -> None:
    """Status, logs and the core know a check by its name alone."""
    modules = [
        import_module(f"sentinel.checks.{m.name}") for m in pkgutil.iter_modules(checks.__path__)
    ]
    named = {
        vars(each).get("name")
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type)
    }
    assert {name for name in named if isinstance(name, str)} == RESERVED_NAMES
