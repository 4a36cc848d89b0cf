"""Read single words: numbers, times and addresses, as strictly as keepalived does."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_TIMER: Final = re.compile(r"(?=\.?[0-9])[0-9]{0,9}(?:\.[0-9]{0,20})?", re.ASCII)
_MICROSECONDS: Final = 6


def integer(word: str, least: int, most: int) -> int | None:
    """Read a whole number; None when it is none or outside these bounds, which are inclusive."""
    number = int(word) if _INTEGER.fullmatch(word) else None
    return number if number is not None and least <= number <= most else None


def seconds(word: str, least_s: float, most_s: float) -> float | None:
    """Read a time in seconds, to the microsecond; None when it is none or out of bounds."""
    time_s = round(float(word), _MICROSECONDS) if _TIMER.fullmatch(word) else None
    return time_s if time_s is not None and least_s <= time_s <= most_s else None


def address(word: str) -> IPv4Address | IPv6Address | None:
    """Read a numeric address as inet_pton(3) does: without a zone."""
    try:
        return None if "%" in word else ip_address(word)
    except ValueError:
        return None
