"""The lines that keepalived would see: files put in, conditions judged, values in their place.

All that waits to be read lies on one stack: the rest of every open file, and on top of it what a
line has turned into. ``LINES_MAX`` and ``BYTES_MAX`` bound what comes out of it, whatever the
files say; where reading ends before its end, a note says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel.keepalivedcfg.definitions import LINE_MAX, Definitions
from sentinel.keepalivedcfg.files import Opened, matches, opened
from sentinel.keepalivedcfg.sequences import repeated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sentinel.keepalivedcfg.notes import Notes

BYTES_MAX: Final = 4 * 1024 * 1024
FILES_MAX: Final = 256
LINES_MAX: Final = 50_000
NESTED_MAX: Final = 16
RECHECKS_MAX: Final = 100

_MARK: Final = re.compile(r'"|\\.?|[!#]', re.DOTALL)
_INCLUDE: Final = re.compile(r"include[rmwba]?[ \t]+(.*)")
_CONDITION: Final = re.compile(r"@(\^?)([^ \t]*)[ \t]+(.*)")
_BRACE: Final = re.compile(r'((?:[^"{}]++|"[^"]*+")*+)([{}])(.*)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One line, or the part of it before or after a brace, or the brace."""

    text: str
    file: str
    number: int

    @property
    def place(self) -> str:
        """Where it is written: ``FILE:LINE``."""
        return f"{self.file}:{self.number}"


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Lines to come; *file* is empty for those that another line has turned into."""

    lines: Iterator[Line]
    file: str = ""


class Source:
    """Reads one configuration from its first file on."""

    def __init__(self, config_id: str, notes: Notes) -> None:
        """Begin with nothing; *config_id* judges the conditions."""
        self.files: list[str] = []
        self._config_id = config_id
        self._notes = notes
        self._definitions = Definitions(config_id)
        self._stack: list[_Waiting] = []
        self._bytes_left = BYTES_MAX

    def begin(self, path: str) -> str:
        """Open the first file; returns why it cannot be read, or nothing."""
        try:
            first = opened(path, self._bytes_left)
        except (OSError, ValueError) as error:
            return _reason(error)
        if first.executable:
            self._notes.add(path, "is executable, and keepalived refuses it: chmod a-x")
        self._push_file(path, first)
        return ""

    def lines(self) -> Iterator[Line]:
        """Yield the text of statements, and each brace on its own."""
        left = LINES_MAX
        while self._stack:
            line = next(self._stack[-1].lines, None)
            if line is None:
                self._stack.pop()
            elif not left:
                self._notes.add(line.place, f"over {LINES_MAX} lines, the rest is unread: shorten")
                return
            else:
                left -= 1
                yield from self._line(line)

    def _line(self, line: Line) -> Iterator[Line]:
        if self._definitions.open:
            self._define(line)
            return
        text = self._resolved(_uncommented(line.text), line)
        include = _INCLUDE.fullmatch(text)
        if include:
            self._include(include[1], line)
        elif brace := _BRACE.fullmatch(text):
            if brace[1].strip(" \t"):
                yield Line(brace[1].strip(" \t"), line.file, line.number)
            yield Line(brace[2], line.file, line.number)
            if brace[3].strip(" \t"):
                self._push([brace[3]], line)
        elif text:
            yield Line(text, line.file, line.number)

    def _define(self, line: Line) -> None:
        """Take a further line of a definition; an empty one ends it, a comment does not."""
        text = _uncommented(line.text)
        if text:
            self._definitions.extend(text)
        elif not line.text:
            self._definitions.close()

    def _resolved(self, text: str, line: Line) -> str:
        """Return what is left of a line to be understood, with its values in place."""
        for _ in range(RECHECKS_MAX):
            if text.startswith("@"):
                text = self._where_it_holds(text)
            if not text or self._definitions.take(text):
                return ""
            if text.startswith(("~SEQ", "~LST")):
                self._repeat(text, line)
                return ""
            if "$" not in text:
                return text
            replaced, further = self._definitions.replace(text, line.file)
            for lines in further:
                self._push(lines, line)
            if replaced == text:
                break
            text = _uncommented(replaced)
        if self._definitions.unknowable(text):
            self._notes.add(line.place, f'sentinel cannot know the value in "{text}": write it out')
        return text

    def _where_it_holds(self, text: str) -> str:
        """Return the rest of a line that begins with ``@id`` or ``@^id`` where it is for us."""
        found = _CONDITION.fullmatch(text)
        if found is None:
            return ""
        holds = (found[2] == self._config_id) != bool(found[1])
        return found[3] if holds else ""

    def _repeat(self, text: str, line: Line) -> None:
        values, end, rest = text.partition(
            ")"
        )  # of the rest, what it is when it is repeated counts
        lines = repeated(self._definitions.replace(values + end, line.file)[0] + rest)
        if lines is None:
            self._notes.add(
                line.place, f'"{text}" is no sequence that sentinel knows: write it out'
            )
        else:
            self._push(lines, line)

    def _include(self, pattern: str, line: Line) -> None:
        pattern = pattern.strip(" \t")
        open_files = [waiting.file for waiting in self._stack if waiting.file]
        if len(open_files) >= NESTED_MAX or len(self.files) >= FILES_MAX:
            self._notes.add(line.place, f"too many files to include {pattern} as well: put it here")
            return
        found = matches(pattern, str(Path(line.file).parent))
        if not found:
            self._notes.add(line.place, f"no file matches include {pattern}: make it, or remove it")
        for path in reversed(found):  # the first comes to lie on top
            self._include_file(path, line)

    def _include_file(self, path: str, line: Line) -> None:
        if any(waiting.file == path for waiting in self._stack):
            self._notes.add(line.place, f"{path} includes itself: remove the include")
            return
        try:
            file = opened(path, self._bytes_left)
        except (OSError, ValueError) as error:
            self._notes.add(
                line.place, f"cannot include {path}: {_reason(error)}: mend or remove it"
            )
            return
        if file.executable:
            self._notes.add(line.place, f"keepalived skips {path}, an executable file: chmod a-x")
            return
        self._push_file(path, file)

    def _push_file(self, path: str, file: Opened) -> None:
        self.files.append(path)
        self._bytes_left -= min(len(file.text), self._bytes_left)
        if file.cut:
            self._notes.add(path, f"over {BYTES_MAX} bytes in all, the rest is unread: shorten it")
        lines = (
            Line(text.rstrip("\r")[:LINE_MAX], path, number)
            for number, text in enumerate(file.text.split("\n"), 1)
        )
        self._stack.append(_Waiting(lines, path))

    def _push(self, texts: Iterable[str], line: Line) -> None:
        self._stack.append(_Waiting(Line(text, line.file, line.number) for text in texts))


def _uncommented(text: str) -> str:
    r"""Return a line without its comment and its margins; a ``\`` at its end stays its last."""
    quoted, end, goes_on = False, len(text), False
    for mark in _MARK.finditer(text):
        if mark[0] == "\\":
            goes_on, end = True, min(end, mark.start())
        elif end < len(text):
            continue
        elif mark[0] == '"':
            quoted = not quoted
        elif mark[0] in "!#" and not quoted:
            end = mark.start()
    return text[:end].strip(" \t") + ("\\" if goes_on else "")


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
