"""``$NAME=VALUE`` and what it does to later lines (keepalived.conf(5), Parameter substitution).

A value is put in where it is used, not where it is defined. A definition of several lines can only
be used at the end of a line; its further lines come after that one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

LINE_MAX: Final = 4096
REPLACEMENTS_MAX: Final = 50_000

_DEFINITION: Final = re.compile(r"\$([A-Za-z_]\w*)=[ \t]*(.*)", re.ASCII)
_USE: Final = re.compile(
    r"\$(?:\{(?P<braced>[A-Za-z_]\w*)[ \d]*\}|(?P<bare>[A-Za-z_]\w*)(?=[ \t,)]|\Z))", re.ASCII
)
_RANDOM: Final = "_RANDOM"


class Definitions:
    """All definitions so far, and the one whose lines are still being read."""

    def __init__(self, config_id: str) -> None:
        """Begin with the predefined ones; *config_id* is ``${_INSTANCE}``."""
        self._values: dict[str, tuple[str, ...]] = {
            "_INSTANCE": (config_id,),
            "_HASH": ("#",),
            "_BANG": ("!",),
        }
        self._left = REPLACEMENTS_MAX
        self._open = ""

    @property
    def open(self) -> bool:
        """Whether the next line belongs to a definition."""
        return bool(self._open)

    def take(self, text: str) -> bool:
        """Take a definition, and say whether *text* was one."""
        found = _DEFINITION.fullmatch(text)
        if found is None:
            return False
        self._open, self._values[found[1]] = found[1], ()
        self.extend(found[2])
        return True

    def extend(self, text: str) -> None:
        r"""Add a line to the open definition; one that does not end in ``\`` is its last."""
        name, goes_on = self._open, text.endswith("\\")
        line = text[:-1].rstrip(" \t") if goes_on else text
        if line:
            self._values[name] += (line,)
        if not goes_on:
            self._open = ""

    def close(self) -> None:
        """End the open definition, as an empty line does."""
        self._open = ""

    def replace(self, text: str, file: str) -> tuple[str, list[tuple[str, ...]]]:
        """Return *text* with the values put in, and the further lines of each, last used last."""
        further: list[tuple[str, ...]] = []
        position = 0
        while self._left and len(text) <= LINE_MAX and (use := _USE.search(text, position)):
            self._left -= 1
            value = self._value(use["braced"] or use["bare"], file)
            if value is None or (len(value) > 1 and use.end() < len(text)):
                position = use.start() + 1
                continue
            first = value[0] if value else ""
            further += [value[1:]] if value[1:] else []
            position = use.start()  # a value may name others
            text = text[:position] + first + text[use.end() :]
            if first.lstrip(" \t").startswith("~"):
                break  # the sequence is repeated first
        return text, further

    def unknowable(self, text: str) -> bool:
        """Say whether a value in *text* differs each time, or has been put in too often."""
        names = {use["braced"] or use["bare"] for use in _USE.finditer(text)}
        return bool(names) and (
            not self._left or (_RANDOM in names and _RANDOM not in self._values)
        )

    def _value(self, name: str, file: str) -> tuple[str, ...] | None:
        if name == "_PWD" and name not in self._values:
            return (str(Path(file).parent),)
        return self._values.get(name)
