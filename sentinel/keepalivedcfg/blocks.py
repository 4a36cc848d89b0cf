"""Nest the lines: a statement is a line, and what stands in the braces after it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sentinel.keepalivedcfg.source import Line

#: What is kept; the virtual servers of a large configuration would only cost memory.
KEPT: Final = frozenset(
    {
        *("global_defs", "vrrp_instance", "vrrp_sync_group"),
        *("vrrp_script", "track_file", "vrrp_track_file"),
    }
)
_WORD: Final = re.compile(r'"([^"]*)"|([^\s"]+)')


@dataclass(slots=True)
class Statement:
    """One line, split into words; *text* is the line as it is written."""

    words: tuple[str, ...] = ()
    text: str = ""
    place: str = ""
    inside: list[Statement] = field(default_factory=list)

    @property
    def keyword(self) -> str:
        """The first word."""
        return self.words[0] if self.words else ""

    @property
    def value(self) -> str:
        """The second word, or nothing."""
        return self.words[1] if len(self.words) > 1 else ""

    def every(self, *keywords: str) -> Iterator[Statement]:
        """Yield the statements below this one that begin with one of *keywords*."""
        return (statement for statement in self.inside if statement.keyword in keywords)

    def first(self, keyword: str) -> str:
        """Return the value of the first statement that begins with *keyword*, or nothing."""
        return next((statement.value for statement in self.every(keyword)), "")


def nested(lines: Iterable[Line]) -> Statement:
    """Return all top-level blocks that are kept, below a statement without words."""
    top = Statement()
    path = [top]
    for line in lines:
        if line.text == "{":
            if not path[-1].inside:  # a brace that nothing stands before
                path[-1].inside.append(Statement(place=line.place))
            path.append(path[-1].inside[-1])
        elif line.text == "}":
            if len(path) > 1:
                path.pop()
        else:
            if len(path) == 1 and top.inside and top.inside[-1].keyword not in KEPT:
                top.inside.pop()
            words = tuple(quoted or bare for quoted, bare in _WORD.findall(line.text))
            path[-1].inside.append(Statement(words, line.text, line.place))
    return top
