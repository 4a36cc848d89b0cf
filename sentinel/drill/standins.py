"""What stands in for the rest of the site: web servers, rsyslogd, a stranger on the port, a crowd.

``python -m sentinel.drill.standins KIND ARGUMENT...``, each a process of its own that says
``ready`` and then lives until it is killed.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Answered only when the crowd goes home: it holds a connection through HAProxy.
HOLD_PATH: Final = "/sentinel-drill-hold"
SLOW_S: Final = 2.0
#: Longer than any watchdog waits.
SPIN_MS: Final = 600_000
_DATAGRAM_BYTES_MAX: Final = 65536
_CROWD_AT_ONCE: Final = 100


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class Web:
    """Small web servers; SIGUSR1 makes those of this process slow.

    SIGUSR2 makes them quick again and answers all that is held.
    """

    def __init__(self) -> None:
        self._delay_s = 0.0
        self._let_go = asyncio.Event()

    async def serve(self, places: Sequence[str]) -> None:
        """Answer on all *places* until killed."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._be_slow)
        loop.add_signal_handler(signal.SIGUSR2, self._be_quick)
        for place in places:
            host, port = _place(place)
            await asyncio.start_server(self._answer, host, port, backlog=4096)
        _say("ready")
        await asyncio.Event().wait()

    def _be_slow(self) -> None:
        self._delay_s = SLOW_S

    def _be_quick(self) -> None:
        self._delay_s = 0.0
        self._let_go.set()
        self._let_go = asyncio.Event()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close, so that every request is a connection of its own."""
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            if HOLD_PATH.encode() in head:
                await self._let_go.wait()
            else:
                await asyncio.sleep(self._delay_s)
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n")
            if not head.startswith(b"HEAD "):
                writer.write(b"ok\n")
            await writer.drain()
        writer.close()


def take_logs() -> None:
    """Take what is logged, as rsyslogd would; print what keepalived says."""
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    Path("/dev/log").unlink(missing_ok=True)
    unix.bind("/dev/log")
    Path("/dev/log").chmod(0o666)
    _say("ready")
    while True:
        line = unix.recv(_DATAGRAM_BYTES_MAX)
        if b"Keepalived" in line:
            _say(line.decode("utf-8", "replace").strip("\0\n"))


def occupy(place: str) -> None:
    """Try to listen on *place* until it is free, then hold it alone."""
    host, port = _place(place)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _say("ready")
    while True:
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError:
            time.sleep(0.0005)  # quicker than any start of HAProxy, without starving it
        else:
            break
    _say("taken")
    signal.pause()


async def crowd(place: str, count: str) -> None:
    """Hold *count* connections that each wait for an answer; say ``gathered`` when all are made.

    Where not all find room, it never says so.
    """
    missing = int(count)
    host, port = _place(place)
    gate = asyncio.Semaphore(_CROWD_AT_ONCE)
    request = f"GET {HOLD_PATH} HTTP/1.1\r\nHost: drill\r\n\r\n".encode()

    async def visit() -> None:
        with suppress(OSError):
            async with gate:
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(request)
            nonlocal missing
            missing -= 1
            if missing == 0:
                _say("gathered")
            await reader.read(1)
            writer.close()

    _say("ready")
    async with asyncio.TaskGroup() as group:
        for _ in range(int(count)):
            group.create_task(visit())


def spin(path: str, count: str) -> None:
    """Let a HAProxy spin: *count* commands that loop, through its master CLI.

    A thread that loops takes no other command, so twice as many as there are threads get them all.
    """
    sessions = []
    for _ in range(int(count)):
        session = socket.socket(socket.AF_UNIX)
        session.connect(path)
        session.sendall(f"expert-mode on; @1 debug dev loop {SPIN_MS}\n".encode())
        sessions.append(session)
    _say("ready")
    signal.pause()


def main(kind: str, *arguments: str) -> None:
    """Be what the command line says, with as many open files as this machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    match kind:
        case "web":
            asyncio.run(Web().serve(arguments))
        case "log":
            take_logs()
        case "occupant":
            occupy(*arguments)
        case "crowd":
            asyncio.run(crowd(*arguments))
        case "spin":
            spin(*arguments)
        case _:
            raise ValueError(kind)


if __name__ == "__main__":
    main(*sys.argv[1:])
