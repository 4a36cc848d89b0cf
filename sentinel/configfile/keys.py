"""Which keys there are, read from the dataclasses of ``sentinel.config`` and from nothing else.

A field that was declared with ``setting`` is a key; a duration is written without its ``_s``. A
nested dataclass is a table of its own, except that the keys of ``pace`` stand in the table of the
check they belong to, as in HAProxy. A tuple of dataclasses is an array of tables. Whatever else a
dataclass holds is not for people to set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Final, get_args, get_type_hints

from sentinel.config import Command, Config, Pace, Probe, Rule

#: Any dataclass of ``sentinel.config``.
Table = Any
#: The field whose keys stand in its parent's table.
FLATTENED: Final = "pace"
#: Keys without which a table means nothing.
REQUIRED: Final = frozenset(
    {(Probe, "name"), (Probe, "address"), (Command, "name"), (Command, "argv")}
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key: its field, its default, which also gives its type, and its Rule."""

    field: str
    default: object
    rule: Rule
    required: bool

    @property
    def name(self) -> str:
        """The key as it is written."""
        return self.field.removesuffix("_s") if self.is_duration else self.field

    @property
    def is_duration(self) -> bool:
        """Whether the value is a time."""
        return self.field.endswith("_s")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table: its name, and the defaults of its keys."""

    name: str
    default: Table


def keys_of(default: Table) -> Iterator[Key]:
    """Yield the keys that a dataclass of ``sentinel.config`` declares itself."""
    for field in dataclasses.fields(default):
        if "rule" in field.metadata:
            yield Key(
                field=field.name,
                default=getattr(default, field.name),
                rule=field.metadata["rule"],
                required=(type(default), field.name) in REQUIRED,
            )


def pace_of(default: Table) -> Pace | None:
    """Return the pace whose keys stand among those of *default*."""
    return getattr(default, FLATTENED, None)


def table_keys(default: Table) -> tuple[Key, ...]:
    """Return all keys that may stand in the table of *default*, in the order to show them in."""
    pace = pace_of(default)
    return (*keys_of(default), *(() if pace is None else keys_of(pace)))


def sections() -> tuple[Section, ...]:
    """Return the tables of a file."""
    config = Config()
    values = ((field.name, getattr(config, field.name)) for field in dataclasses.fields(config))
    return tuple(
        Section(name=name, default=value)
        for name, value in values
        if dataclasses.is_dataclass(value)
    )


def arrays() -> tuple[Section, ...]:
    """Return the arrays of tables of a file; the default is that of one element."""
    hints = get_type_hints(Config)
    items = {name: get_args(hint)[0] for name, hint in hints.items() if get_args(hint)}
    return tuple(Section(name=name, default=item()) for name, item in items.items())
