"""TOML values -> the values of keys: the type, the bounds, the words, the paths."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import Final

from sentinel.config import Rule
from sentinel.configfile.duration import read_duration, write_duration
from sentinel.configfile.keys import Key
from sentinel.configfile.problems import RefusedError

_SHOWN_MAX: Final = 40


def read_value(key: Key, raw: object) -> object:
    """Return the value of *key*; raises RefusedError."""
    if key.is_duration:
        return _duration(key.rule, raw)
    match key.default:
        case bool():
            return _boolean(raw)
        case int():
            return _integer(key.rule, raw)
        case StrEnum() as default:
            return _word(type(default), raw)
        case tuple() as default:
            return _texts(raw, may_be_empty=not default and not key.required)
        case _:
            return _text(key, raw)


def write_value(key: Key) -> str:
    """Write what *key* holds as TOML, so that ``read_value`` gives it back."""
    match key.default:
        case int() | float() as seconds if key.is_duration:
            return f'"{write_duration(seconds)}"'
        case bool() as truth:
            return "true" if truth else "false"
        case tuple() as texts:
            return f"[{', '.join(map(_quoted, texts))}]"
        case str() as text:
            return _quoted(text)
        case number:
            return str(number)


def bounds(key: Key) -> str:
    """Say in words what *key* accepts; empty when that goes without saying."""
    if isinstance(key.default, StrEnum):
        return _listed(type(key.default))
    if key.rule.minimum is None and key.rule.maximum is None:
        return "an absolute path" if key.rule.absolute_path else ""
    return _range(key.rule, is_duration=key.is_duration)


def shown(raw: object) -> str:
    """Show a TOML value as it was written, short."""
    match raw:
        case bool():
            return "true" if raw else "false"
        case str():
            text = json.dumps(raw, ensure_ascii=not raw.isprintable())
            return text if len(text) <= _SHOWN_MAX else f'{text[: _SHOWN_MAX - 1]}…"'
        case dict():
            return "a table"
        case list():
            return "a list"
        case int() | float():
            return str(raw)
        case _:
            return "a date or time"


def _boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise RefusedError(f"{shown(raw)} is no truth value", "write true or false")
    return raw


def _integer(rule: Rule, raw: object) -> int:
    wanted = _range(rule, is_duration=False)
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise RefusedError(f"{shown(raw)} is no whole number", f"write {wanted}")
    if not _within(rule, raw):
        raise RefusedError(f"{shown(raw)} is out of bounds", f"write {wanted}")
    return raw


def _duration(rule: Rule, raw: object) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raise RefusedError(
            f"{raw} has no unit",
            f'write "{raw}s" or "{raw}ms"' if str(raw).isdecimal() else 'write for example "500ms"',
        )
    if not isinstance(raw, str):
        raise RefusedError(f"{shown(raw)} is no time", 'write for example "500ms" or "2s"')
    seconds = read_duration(raw)
    if not _within(rule, seconds):
        wanted = _range(rule, is_duration=True)
        raise RefusedError(f"{shown(raw)} is out of bounds", f"write {wanted}")
    return seconds


def _word(words: type[StrEnum], raw: object) -> StrEnum:
    if isinstance(raw, str) and raw in set(words):
        return words(raw)
    raise RefusedError(f"{shown(raw)} is not known here", f"write {_listed(words)}")


def _texts(raw: object, *, may_be_empty: bool) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise RefusedError(f"{shown(raw)} is no list", 'write ["one", "two"]')
    for item in raw:
        if not isinstance(item, str):
            raise RefusedError(f"{shown(item)} in the list is no string", 'write ["one", "two"]')
    if not raw and not may_be_empty:
        raise RefusedError("the list is empty", "name at least one, or leave the key out")
    return tuple(map(_printable, raw))


def _text(key: Key, raw: object) -> str:
    if not isinstance(raw, str):
        raise RefusedError(
            f"{shown(raw)} is no string", f'write "{raw}"' if _plain(raw) else "quote it"
        )
    if not raw and (key.default or key.required):
        raise RefusedError("it is empty", "write a value, or leave the key out")
    if key.rule.absolute_path and raw and not raw.startswith("/"):
        raise RefusedError(f"{shown(raw)} is a relative path", "begin it with /")
    return _printable(raw)


def _plain(raw: object) -> bool:
    return isinstance(raw, int | float) and not isinstance(raw, bool)


def _printable(text: str) -> str:
    """Keep control characters out of status, logs and command lines."""
    if not text.isprintable():
        raise RefusedError(f"{shown(text)} holds a control character", "leave it out")
    return text


def _within(rule: Rule, value: float) -> bool:
    minimum = -math.inf if rule.minimum is None else rule.minimum
    maximum = math.inf if rule.maximum is None else rule.maximum
    return minimum <= value <= maximum


def _range(rule: Rule, *, is_duration: bool) -> str:
    """Write the bounds; every number and duration of ``sentinel.config`` has both."""
    assert rule.minimum is not None  # noqa: S101  (a promise of our own)
    assert rule.maximum is not None  # noqa: S101
    write = write_duration if is_duration else str
    return f"{write(rule.minimum)} to {write(rule.maximum)}"


def _listed(words: type[StrEnum]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # for printable text JSON's escapes are TOML's
