"""Times as HAProxy writes them: a whole number and a unit (configuration manual, section 2.5)."""

from __future__ import annotations

import re
from typing import Final

from sentinel.configfile.problems import RefusedError

_UNITS_US: Final = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_DURATION: Final = re.compile(r"([0-9]{1,15})(us|ms|s|m|h|d)")


def read_duration(text: str) -> float:
    """Return the seconds that *text* means."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise RefusedError(
            f'"{text}" is no time', 'write a whole number and a unit, as "500ms", "2s", "1m", "14d"'
        )
    return int(match[1]) * _UNITS_US[match[2]] / 1e6


def write_duration(seconds: float) -> str:
    """Write *seconds* with the largest unit that needs no fraction, to the microsecond."""
    time_us = round(seconds * 1e6)
    if time_us == 0:
        return "0s"
    unit = next(unit for unit, unit_us in _UNITS_US.items() if time_us % unit_us == 0)
    return f"{time_us // _UNITS_US[unit]}{unit}"
