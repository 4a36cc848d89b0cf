"""What is suspicious in a file: in words, with its place and its cure, and never too much of it."""

from __future__ import annotations

from typing import Final

NOTES_MAX: Final = 50
WORDS_MAX: Final = 300


class Notes:
    """The notes taken while one configuration is read."""

    def __init__(self) -> None:
        """Begin with none."""
        self._taken: dict[str, None] = {}

    def add(self, place: str, words: str) -> None:
        """Take a note of what stands at *place* (``FILE:LINE``), unless there are too many."""
        if len(self._taken) < NOTES_MAX:
            self._taken[f"{place}: {words[:WORDS_MAX]}"] = None

    def all(self) -> tuple[str, ...]:
        """Return the notes in the order they were taken."""
        return tuple(self._taken)
