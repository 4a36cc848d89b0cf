"""How an administrator's order travels to the daemon: both sides of the control socket's line.

The longest order fits into the longest line that the daemon reads (localsocket.LINE_BYTES_MAX).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from sentinel.events import Order, Ordered, Verb

_WORD_CHARS_MAX: Final = 500
FOR_MAX_S: Final = 365 * 86400.0
FOR_REFUSED: Final = "the time of an order is more than nothing and at most a year"
TAKEN: Final = json.dumps({"ok": True})


def write(order: Order) -> str:
    """Return the line that means *order*."""
    return json.dumps(asdict(order), ensure_ascii=False)


def read(line: str) -> Order:
    """Return the order of a line; raises ValueError, in words, for what is none."""
    try:
        raw = json.loads(line)
        verb, for_s, reason = Verb(raw["verb"]), raw.get("for_s"), raw.get("reason", "")
        by, drain = raw.get("by", ""), raw.get("drain", False)
        until_start = raw.get("until_start", False)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"that is no order: {error}") from error
    if not all(isinstance(flag, bool) for flag in (drain, until_start)):
        raise ValueError("that is no order: drain and until_start are true or false")
    if not all(isinstance(text, str) and len(text) <= _WORD_CHARS_MAX for text in (reason, by)):
        raise ValueError(f"a reason is a text of at most {_WORD_CHARS_MAX} characters")
    number = isinstance(for_s, int | float) and not isinstance(for_s, bool)
    if for_s is not None and not (number and 0 < for_s <= FOR_MAX_S):
        raise ValueError(FOR_REFUSED)
    return Order(verb=verb, for_s=for_s, reason=reason, by=by, drain=drain, until_start=until_start)


def take(line: str, tell: Callable[[Ordered], None]) -> str:
    """Tell the daemon of the order in a line; return the answer, also to what is none."""
    try:
        order = read(line)
    except ValueError as error:
        return refused(error)
    tell(Ordered(order=order))
    return TAKEN


def refused(error: ValueError) -> str:
    """Return the answer to what is no order."""
    return json.dumps({"ok": False, "error": str(error)})
