"""Find and open what ``include`` names, without ever waiting: no pipe and no device is read."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from glob import iglob
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MATCHES_MAX: Final = 256
_BRACES: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The text of a file; *cut* says that it goes on, *executable* that keepalived skips it."""

    text: str
    cut: bool
    executable: bool


def matches(pattern: str, folder: str) -> list[str]:
    """Return the files that *pattern* names, relative to *folder*, in the order of glob(3)."""
    found: list[str] = []
    for plain in dict.fromkeys(islice(_without_braces(pattern), MATCHES_MAX)):
        if "\0" not in plain:
            names = iglob(plain, root_dir=folder)  # noqa: PTH207  (also takes absolute patterns)
            found += sorted(islice(names, MATCHES_MAX))
    return [str(Path(folder, name)) for name in found[:MATCHES_MAX]]


def _without_braces(pattern: str) -> Iterator[str]:
    """Yield the patterns that a csh-style ``{a,b{c,d}}`` stands for, the innermost brace first."""
    waiting = [pattern]
    while waiting:
        pattern = waiting.pop()
        braces = _BRACES.search(pattern)
        if braces is None:
            yield pattern
            continue
        start, end = braces.span()
        alternatives = braces[1].split(",")
        waiting += [pattern[:start] + word + pattern[end:] for word in reversed(alternatives)]


def opened(path: str, limit_bytes: int) -> Opened:
    """Read a regular file; raises OSError, or ValueError for anything that is not one."""
    with open(path, "rb", opener=_without_waiting) as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("not a regular file")
        data = stream.read(limit_bytes + 1)
    return Opened(
        text=data[:limit_bytes].decode("utf-8", "replace"),
        cut=len(data) > limit_bytes,
        executable=bool(mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)),
    )


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
