"""What systemd is told (sd_notify(3)), through sdnotify; the only module that imports it.

The rules of this file:

- Nothing blocks: sdnotify's socket is blocking, so it is made non-blocking here. A message that
  systemd does not take at once is dropped and counted; the next one makes up for it.
- Plain ASCII: sdnotify writes latin-1 and loses the whole message over any other character.
- WATCHDOG=1 travels alone, so that nothing said beside it can make it fail.
- Without $NOTIFY_SOCKET there is nobody to tell, which is no error: ``enabled`` says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

import sdnotify

STATUS_LENGTH_MAX: Final = 240


class Notifier:
    """Tells systemd how the service fares; every call returns at once and raises nothing."""

    def __init__(self) -> None:
        self.enabled: Final = bool(os.environ.get("NOTIFY_SOCKET"))
        self.watchdog_s: Final = _watchdog_s(os.environ)
        self.dropped = 0
        self._notifier: Any = None  # sdnotify publishes no types

    def ready(self) -> None:
        """Say that the start, or the reload, is complete."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that a reload has begun; ``ready`` ends it (systemd.service(5), notify-reload)."""
        self._send(
            f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )

    def stopping(self) -> None:
        """Say that the service is on its way down."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Say that a step has been completed; due at the latest after half of ``watchdog_s``."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Show one line in ``systemctl status``."""
        line = " ".join(text.split())[:STATUS_LENGTH_MAX]
        self._send(f"STATUS={line.encode('ascii', 'backslashreplace').decode('ascii')}")

    def close(self) -> None:
        """Close the socket; a later call opens it again."""
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None

    def _send(self, message: str) -> None:
        if self.enabled and not (self._sent(message) or self._sent(message)):
            self.dropped += 1

    def _sent(self, message: str) -> bool:
        """Try once; a broken socket is replaced at the next attempt."""
        try:
            if self._notifier is None:
                self._notifier = _connected()
            self._notifier.notify(message)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        return True


def _connected() -> Any:  # noqa: ANN401  (sdnotify publishes no types)
    """Return an sdnotify notifier that raises instead of staying silent, and never waits."""
    notifier = sdnotify.SystemdNotifier(debug=True)
    notifier.socket.settimeout(0)
    return notifier


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Return the watchdog's period, None when there is none for us (sd_watchdog_enabled(3))."""
    usec = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not (usec.isascii() and usec.isdecimal()) or int(usec) == 0 or pid != str(os.getpid()):
        return None
    return int(usec) / 1e6
