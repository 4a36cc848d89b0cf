"""File -> TOML document, or why it is not one. A file that others may write is not obeyed."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from typing import Final

from sentinel.configfile.problems import RefusedError, Report

FILE_BYTES_MAX: Final = 1024 * 1024

_SHOWN_CHARACTERS: Final = 60
#: What the commonest mistakes want, by tomllib's words for them.
_CURES: Final = {
    "Invalid value": "put text in quotes, and write true and false",
    "Expected newline or end of document after a statement": 'put text in quotes, such as "30s"',
    "Cannot overwrite a value": "it stands there twice: leave one",
    "Unterminated string": "end the text with a quote",
}
_SYNTAX_ERROR: Final = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)")


def read_document(report: Report, *, may_be_missing: bool) -> Mapping[str, object]:
    """Return what stands in ``report.file``; empty where that is reported to be wrong."""
    return _parsed(_text(report, may_be_missing=may_be_missing), report)


def _text(report: Report, *, may_be_missing: bool) -> str:
    """Read a plain file that only trusted people can write; root runs commands from it."""
    try:
        fd = os.open(report.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if not may_be_missing:
            report.add("", "there is no such file", "name another one, or create it")
        return ""
    except OSError as error:
        report.add("", f"it cannot be read ({error.strerror})", "let sentinel's user read it")
        return ""
    try:
        content = _content(fd)
        return content.decode()
    except RefusedError as error:
        report.refuse("", error)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        report.add(f"line {line}", "it is not UTF-8", "save the file as UTF-8")
    finally:
        os.close(fd)
    return ""


def _content(fd: int) -> bytes:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError("it is no plain file", "name a file")
    _require_trusted(found)
    content = os.read(fd, FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise RefusedError(f"it is longer than {FILE_BYTES_MAX} bytes", "name the right file")
    return content


def _require_trusted(found: os.stat_result) -> None:
    """Refuse what somebody may write who is neither root nor whoever reads it.

    In a user namespace an owner who has no id there is nobody, and so is refused as well.
    """
    who, cure = "", ""
    if found.st_uid not in {0, os.geteuid()}:
        who, cure = f"user {found.st_uid}, its owner,", "chown root it"
    elif found.st_mode & stat.S_IWOTH:
        who, cure = "everyone", "chmod o-w it"
    elif found.st_mode & stat.S_IWGRP and found.st_gid not in {0, os.getegid()}:
        who, cure = f"group {found.st_gid}", "chmod g-w it"
    if who:
        raise RefusedError(f"{who} may write it, and root runs commands from it", cure)


def _parsed(text: str, report: Report) -> Mapping[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _SYNTAX_ERROR.fullmatch(str(error))
        wrong, line = (match[1], match[2]) if match else (str(error), None)
        report.add(
            f"line {line}" if line else "end of file",
            f"it is not TOML ({wrong}){_written(text, int(line)) if line else ''}",
            _CURES.get(wrong, 'see "sentinel config schema" for how it is written'),
        )
        return {}


def _written(text: str, line: int) -> str:
    """Return what stands in a line, to be shown behind what is wrong with it."""
    found = text.split("\n")[line - 1].strip()[:_SHOWN_CHARACTERS]
    return f": {found}" if found.isprintable() else ""
