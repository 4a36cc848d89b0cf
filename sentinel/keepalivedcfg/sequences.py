"""``~SEQ(...)`` and ``~LST(...)``: one line written many times (keepalived.conf(5)).

Each repetition is given as the definitions of its values and the rest of the line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SEQ: Final = re.compile(r"~SEQ(x?)[ \t]*\([ \t]*(\w+)[ \t]*,([^)]*)\)[ \t]*(.*)", re.ASCII)
_LST: Final = re.compile(r"~LST[ \t]*\(([^)]*)\)[ \t]*(.*)")
_ITEM: Final = re.compile(r"\{([^}]*)\}|([^,{}]+)")


def repeated(text: str) -> Iterator[str] | None:
    """Return the lines that *text* stands for, as many as there are; None when it is wrong."""
    if found := _SEQ.fullmatch(text):
        values = _range(found[3])
        spell = "{:x}" if found[1] else "{}"
        return None if values is None else _counted(found[2], spell, values, found[4])
    if found := _LST.fullmatch(text):
        items = [_split(braced or bare) for braced, bare in _ITEM.findall(found[1])]
        items = [item for item in items if item]
        if len(items) > 1 and all(len(item) == len(items[0]) for item in items):
            return _listed(items[0], items[1:], found[2])
    return None


def _range(written: str) -> range | None:
    """Return the values of ``start, step, end``, of which only the end must be there."""
    try:
        numbers = [int(word, 0) for word in written.split(",")]
    except ValueError:
        return None
    match numbers:
        case [end]:
            start, step = (-1 if end < 0 else 1), (-1 if end < 1 else 1)
        case [start, end]:
            step = 1 if start <= end else -1
        case [start, step, end] if step and (end - start) * step >= 0:
            pass
        case _:
            return None
    return range(start, end + (1 if step > 0 else -1), step)


def _counted(name: str, spell: str, values: range, rest: str) -> Iterator[str]:
    for value in values:
        yield f"${name}={spell.format(value)}"
        yield rest


def _listed(names: Sequence[str], rows: Sequence[Sequence[str]], rest: str) -> Iterator[str]:
    for row in rows:
        yield from (f"${name}={value}" for name, value in zip(names, row, strict=True))
        yield rest


def _split(written: str) -> list[str]:
    return [word for word in (word.strip(" \t") for word in written.split(",")) if word]
