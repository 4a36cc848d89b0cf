"""How what the daemon says is put into a line for people; what it cannot print is left out."""

from __future__ import annotations

from typing import Any, Final

#: What tells most of an event, the best first.
_WHY: Final = ("reason", "last_chk", "vip", "by")


def told(event: dict[str, Any]) -> str:
    """Return what an event of the history is about, and why it happened."""
    fields = event["fields"]
    why = next((fields[key] for key in _WHY if fields.get(key)), "")
    change = f"{fields['from']} -> {fields['to']}" if "from" in fields else ""
    subject = fields.get("check") or change
    return f"{subject} {why}".strip()


def printable(text: str) -> str:
    """Return *text* without what would break a line, or steer the terminal it is shown on."""
    return "".join(char if char.isprintable() else "?" for char in text)
