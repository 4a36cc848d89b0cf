"""Ask HTTP again and again, each time over a new connection, and print how every attempt ended.

    python bench/asker.py ADDRESS PORT [EVERY_MS TIMEOUT_MS]

An attempt begins every 10 ms and may take 250 ms. Each is one line, ``BEGUN ENDED HOW``: seconds
of CLOCK_MONOTONIC, and ``good`` for an answer 200, else what came instead: ``late``, ``bad``
(another status), ``closed`` (no answer), or the name of an error (``ECONNREFUSED``). A process of
its own with nothing else to do, so that what it measures is the server's; ``client.py`` starts it
and reads what it prints.
"""

from __future__ import annotations

import errno
import selectors
import socket
import sys
import time
from dataclasses import dataclass
from typing import Final

EVERY_MS: Final = 10.0
TIMEOUT_MS: Final = 250.0
#: What was slept away beyond this is not made up for.
CATCH_UP_S: Final = 0.25
REQUEST: Final = b"GET / HTTP/1.0\r\n\r\n"


@dataclass(slots=True)
class Attempt:
    """One connection on its way."""

    sock: socket.socket
    begun_s: float
    asked: bool = False


class Asker:
    """Begins attempts and follows them to their ends."""

    def __init__(self, address: tuple[str, int], every_s: float, timeout_s: float) -> None:
        self._address = address
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._selector = selectors.DefaultSelector()
        self._attempts: dict[socket.socket, Attempt] = {}  # the oldest first

    def run(self) -> None:
        """Ask for ever."""
        due_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            if now_s >= due_s:
                due_s = max(due_s + self._every_s, now_s - CATCH_UP_S)
                self._begin(now_s)
            self._give_up(time.monotonic() - self._timeout_s)
            for key, _ in self._selector.select(max(0.0, due_s - time.monotonic())):
                self._go_on(key.data)

    def _begin(self, now_s: float) -> None:
        sock = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        attempt = Attempt(sock, now_s)
        self._attempts[sock] = attempt
        self._selector.register(sock, selectors.EVENT_WRITE, attempt)
        error = sock.connect_ex(self._address)
        if error not in {0, errno.EINPROGRESS}:
            self._end(attempt, errno.errorcode[error])

    def _go_on(self, attempt: Attempt) -> None:
        """Ask when the connection stands, judge when the answer has come."""
        try:
            if attempt.asked:
                self._end(attempt, judged(attempt.sock.recv(4096)))
                return
            attempt.sock.send(REQUEST)
        except OSError as error:
            self._end(attempt, errno.errorcode[error.errno or errno.EIO])
            return
        attempt.asked = True
        self._selector.modify(attempt.sock, selectors.EVENT_READ, attempt)

    def _give_up(self, begun_before_s: float) -> None:
        for attempt in list(self._attempts.values()):
            if attempt.begun_s > begun_before_s:
                return
            self._end(attempt, "late")

    def _end(self, attempt: Attempt, how: str) -> None:
        self._selector.unregister(attempt.sock)
        del self._attempts[attempt.sock]
        attempt.sock.close()
        print(f"{attempt.begun_s:.6f} {time.monotonic():.6f} {how}", flush=True)


def judged(answer: bytes) -> str:
    """Name an answer."""
    if not answer:
        return "closed"
    return "good" if b" 200 " in answer.split(b"\r\n")[0] else "bad"


if __name__ == "__main__":
    every_ms, timeout_ms = map(float, sys.argv[3:] or (EVERY_MS, TIMEOUT_MS))
    Asker((sys.argv[1], int(sys.argv[2])), every_ms / 1000, timeout_ms / 1000).run()
