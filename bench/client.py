"""A client that asks every few ms, and what an outage was to it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, TextIO

ASKER: Final = Path(__file__).parent / "asker.py"
#: So many good answers in a row are the end of an outage: HAProxy may die right after its start.
GOOD_ANSWERS: Final = 50
#: A gap may begin this long before its cause is known to have begun.
MARGIN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt of the asker ended, in seconds of CLOCK_MONOTONIC."""

    begun_s: float
    ended_s: float
    how: str

    @property
    def good(self) -> bool:
        """It was answered well."""
        return self.how == "good"

    @property
    def took_ms(self) -> float:
        """How long it took to its end, whatever that was."""
        return (self.ended_s - self.begun_s) * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """The longest gap between two good answers, and what was lost in it."""

    lasted_ms: float
    ended_s: float
    failed: int


class Client:
    """Reads the attempts that an asker prints into *file*."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._rest = ""
        self._attempts: list[Attempt] = []

    def attempts(self, since_s: float) -> list[Attempt]:
        """Return what has ended after *since_s*."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for begun, ended, how in map(str.split, lines):
            self._attempts.append(Attempt(float(begun), float(ended), how))
        return [attempt for attempt in self._attempts if attempt.ended_s > since_s]

    def wait_served(self, since_s: float, timeout_s: float = 60.0) -> None:
        """Wait until nothing but good answers have come for a while, all asked for after then."""

        def served() -> bool:
            last = self.attempts(since_s)[-GOOD_ANSWERS:]
            return len(last) == GOOD_ANSWERS and all(
                attempt.good and attempt.begun_s > since_s for attempt in last
            )

        wait_until(served, "the client is served", timeout_s)

    def outage(self, since_s: float) -> Outage:
        """Return the outage that a fault at *since_s* made; to be asked when all is well again."""
        attempts = self.attempts(since_s - MARGIN_S)
        good_s = [attempt.ended_s for attempt in attempts if attempt.good]
        lasted_s, ended_s = max((b - a, b) for a, b in pairwise(good_s))
        failed = sum(not attempt.good for attempt in attempts)
        return Outage(lasted_ms=lasted_s * 1000, ended_s=ended_s, failed=failed)


@contextmanager
def asking(
    inside: Callable[..., Sequence[str]], port: int, folder: Path, *pace_ms: str
) -> Iterator[Client]:
    """Ask 127.0.0.1 in the network that *inside* leads a command line to, until the block ends.

    *pace_ms* is the time from one attempt to the next and what one may take, else the asker's own.
    """
    file = folder / "attempts"
    argv = (sys.executable, "-I", "-S", str(ASKER), "127.0.0.1", str(port), *pace_ms)
    with file.open("w") as output:
        process = subprocess.Popen(inside(*argv), stdout=output)
    try:
        with file.open() as lines:
            yield Client(lines)
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait until *condition* is true; raises TimeoutError saying *what* did not happen."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.01)
