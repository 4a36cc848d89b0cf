"""Ask HTTP again and again, each time over a new connection, and print how every attempt ended.

    python bench/asker.py ADDRESS PORT

An attempt begins every 10 ms and may take 250 ms. Each is one line, ``BEGUN ENDED GOOD``: seconds
of CLOCK_MONOTONIC, and 1 for an answer 200. A process of its own with nothing else to do, so that
what it measures is the server's; ``client.py`` starts it and reads what it prints.
"""

from __future__ import annotations

import errno
import selectors
import socket
import sys
import time
from dataclasses import dataclass
from typing import Final

EVERY_S: Final = 0.01
TIMEOUT_S: Final = 0.25
REQUEST: Final = b"GET / HTTP/1.0\r\n\r\n"


@dataclass(slots=True)
class Attempt:
    """One connection on its way."""

    sock: socket.socket
    begun_s: float
    asked: bool = False


class Asker:
    """Begins attempts and follows them to their ends."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._selector = selectors.DefaultSelector()
        self._attempts: dict[socket.socket, Attempt] = {}  # the oldest first

    def run(self) -> None:
        """Ask for ever."""
        due_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            if now_s >= due_s:
                due_s = max(due_s + EVERY_S, now_s - TIMEOUT_S)  # what was slept away stays away
                self._begin(now_s)
            self._give_up(time.monotonic() - TIMEOUT_S)
            for key, _ in self._selector.select(max(0.0, due_s - time.monotonic())):
                self._go_on(key.data)

    def _begin(self, now_s: float) -> None:
        sock = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        attempt = Attempt(sock, now_s)
        self._attempts[sock] = attempt
        self._selector.register(sock, selectors.EVENT_WRITE, attempt)
        if sock.connect_ex(self._address) not in {0, errno.EINPROGRESS}:
            self._end(attempt, good=False)

    def _go_on(self, attempt: Attempt) -> None:
        """Ask when the connection stands, judge when the answer has come."""
        try:
            if attempt.asked:
                self._end(attempt, good=b" 200 " in attempt.sock.recv(4096).split(b"\r\n")[0])
                return
            attempt.sock.send(REQUEST)
        except OSError:
            self._end(attempt, good=False)
            return
        attempt.asked = True
        self._selector.modify(attempt.sock, selectors.EVENT_READ, attempt)

    def _give_up(self, begun_before_s: float) -> None:
        for attempt in list(self._attempts.values()):
            if attempt.begun_s > begun_before_s:
                return
            self._end(attempt, good=False)

    def _end(self, attempt: Attempt, *, good: bool) -> None:
        self._selector.unregister(attempt.sock)
        del self._attempts[attempt.sock]
        attempt.sock.close()
        print(f"{attempt.begun_s:.6f} {time.monotonic():.6f} {good:d}", flush=True)


if __name__ == "__main__":
    Asker((sys.argv[1], int(sys.argv[2]))).run()
