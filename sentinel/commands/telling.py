"""How what the daemon says is put into a line for people; what it cannot print is left out."""

from __future__ import annotations

from typing import Any, Final

#: What tells most of an event, the best first.
_WHY: Final = ("reason", "last_chk", "vip", "by")
_SECOND_MS: Final = 1000


def told(event: dict[str, Any]) -> str:
    """Return what an event of the history is about, and why it happened."""
    fields = event["fields"]
    why = next((fields[key] for key in _WHY if fields.get(key)), "")
    change = f"{fields['from']} -> {fields['to']}" if "from" in fields else ""
    subject = fields.get("check") or change
    return f"{subject} {why}".strip()


def asked(order: dict[str, Any]) -> str:
    """Return what an administrator has asked for, who he is, until when and why."""
    words = [word for word in ("paused", "stepped_down") if order[word]]
    left = order["ends_in_ms"]
    end = "until HAProxy has been started" if order["until_start"] else "until sentinel resume"
    end = end if left is None else f"for another {age(left)}"
    why = f": {order['reason']}" if order["reason"] else ""
    by = f" by {order['by']}" if order["by"] else ""
    return f"{' and '.join(words).replace('_', ' ')}{by}, {end}{why}"


def age(age_ms: int | None) -> str:
    """Return a duration as people say it: 250ms, 3.1s, 12m, 5h, 3d."""
    if age_ms is None:
        return "-"
    for unit_ms, word in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m")):
        if age_ms >= 2 * unit_ms:
            return f"{age_ms // unit_ms}{word}"
    return f"{age_ms / 1000:.1f}s" if age_ms >= _SECOND_MS else f"{age_ms}ms"


def printable(text: str) -> str:
    """Return *text* without what would break a line, or steer the terminal it is shown on."""
    return "".join(char if char.isprintable() else "?" for char in text)
