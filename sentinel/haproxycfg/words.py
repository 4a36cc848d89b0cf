"""Split a line of haproxy.cfg into words (configuration manual, sections 2.2 and 2.3).

Single quotes keep everything as it is; double quotes keep spaces, but expand variables, and
``${NAME[*]}`` into as many words as its value has; a backslash escapes the characters that would
mean something, and stays before any other.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\v\f]+) | (?P<comment>\#.*)
      | '(?P<strong>[^']*)'? | "(?P<weak>(?:\\.|[^"\\])*)"?
      | (?P<escape>\\(?:x[0-9a-fA-F]{2}|.|\Z)) | (?P<plain>[^ \t\r\v\f\#'"\\]+)""",
    re.VERBOSE | re.DOTALL,
)
_IN_WEAK: Final = re.compile(
    r"""(?P<escape>\\(?:x[0-9a-fA-F]{2}|.|\Z))
      | \$\{(?P<braced>\w+)(?P<words>\[\*\])?(?:-(?P<default>[^}]*))?\}
      | \$(?P<bare>[A-Za-z_]\w*)""",
    re.VERBOSE | re.DOTALL,
)
_UNQUOTED: Final = re.compile(r"\$(?:\{(?P<braced>\w*)\}?|(?P<bare>\w*))", re.ASCII)
_SPACE: Final = re.compile(r"[ \t\n\v\f\r]+")
#: Ends a word inside double quotes; no variable can hold it.
_BREAK: Final = "\0"
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"} | {char: char for char in " \\#\"'"}


def split(line: str, environment: Mapping[str, str]) -> list[str]:
    """Return the words of one line, without its comment; an unset variable is empty."""
    words: list[str] = []
    word: str | None = None
    for token in _TOKEN.finditer(line):
        if token["comment"] is not None:
            break
        if token["space"] is not None:
            words += [] if word is None else [word]
            word = None
            continue
        if token["weak"] is not None:
            expanded = _IN_WEAK.sub(lambda found: _expand(found, environment), token["weak"])
            *ended, piece = f"{word or ''}{expanded}".split(_BREAK)
            words, word = [*words, *ended], ""
        elif token["escape"] is not None:
            piece = _unescape(token["escape"])
        else:
            piece = token["strong"] or token["plain"] or ""
        word = (word or "") + piece
    return words if word is None else [*words, word]


def expand_address(text: str, environment: Mapping[str, str]) -> str:
    """Expand ``$NAME`` and ``${NAME}`` as HAProxy does in addresses, even without quotes."""
    return _UNQUOTED.sub(
        lambda found: environment.get(found["braced"] or found["bare"] or "", ""), text
    )


def _expand(found: re.Match[str], environment: Mapping[str, str]) -> str:
    if found["escape"] == r"\$":
        return "$"
    if found["escape"] is not None:
        return _unescape(found["escape"])
    value = environment.get(found["braced"] or found["bare"], found["default"] or "")
    return _SPACE.sub(_BREAK, value) if found["words"] else value


def _unescape(text: str) -> str:
    if len(text) == len(r"\xHH"):
        return bytes.fromhex(text[2:]).decode("latin-1")
    return _ESCAPES.get(text[1:], text)
