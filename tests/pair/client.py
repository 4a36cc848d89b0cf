"""A client of the pair: a new connection to the VIP every 10 ms, and what came of each."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from haproxies import wait_until
from system.shipped import VIP

from sentinel.drill import client as asker
from sentinel.drill.records import Answer, outage_ms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.network import Namespace

#: The client is content when so many answers in a row were good.
CONTENT: Final = 20


class Client:
    """Reads what the drill's client prints into a file, from when it is first content."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._rest = ""
        self._answers: list[Answer] = []
        self._since_s = 0.0

    @property
    def answers(self) -> list[Answer]:
        """All requests that have ended since the beginning."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for at, took, good in map(str.split, lines):
            self._answers.append(Answer(at_s=float(at), took_ms=float(took), good=good == "1"))
        return [answer for answer in self._answers if answer.at_s >= self._since_s]

    @property
    def failed(self) -> list[Answer]:
        """The requests that were not answered well."""
        return [answer for answer in self.answers if not answer.good]

    def begin(self) -> None:
        """Wait until it is content, and count from now on."""
        self.wait_content()
        self._since_s = time.monotonic()

    def wait_content(self, timeout_s: float = 20.0) -> None:
        """Wait until all that was asked for a while from now on has been answered well."""
        asked_s = time.monotonic()

        def content() -> bool:
            asked = [a for a in self.answers if a.at_s - a.took_ms / 1000 > asked_s]
            return len(asked) >= CONTENT and all(answer.good for answer in asked[-CONTENT:])

        wait_until(content, "the client is served", timeout_s)

    def __str__(self) -> str:
        """Say what it has seen, for information: the machine's noise is in it."""
        answers = self.answers
        gap_ms = outage_ms(answers, self._since_s, answers[-1].at_s)
        slowest_ms = max(answer.took_ms for answer in answers)
        words = f"{len(self.failed)} of {len(answers)} requests failed"
        return f"{words}, longest gap {gap_ms:.0f} ms, slowest answer {slowest_ms:.0f} ms"


@contextmanager
def asking(network: Namespace, folder: Path) -> Iterator[Client]:
    """Ask the VIP from *network* until the block ends; it begins when the client is content."""
    file = folder / "answers"
    python = (sys.executable, "-m", asker.__name__, f"{VIP}:80", "plain")
    argv = ("setpriv", "--pdeathsig", "KILL", "--", *network.inside(*python))
    with file.open("w") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output)
    try:
        with file.open() as lines:
            client = Client(lines)
            client.begin()
            yield client
    finally:
        process.kill()
        process.wait()
