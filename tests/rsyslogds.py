"""A real rsyslogd on a private socket and two ports of loopback, for tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DEADLINE_S: Final = 10.0

_CONFIGURATION: Final = """
global(workDirectory="{directory}")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="imtcp")
module(load="mmjsonparse")
template(name="json_line" type="list") {{
  property(name="$!all-json-plain") constant(value="\\n")
}}
ruleset(name="sentinel") {{
  if $syslogfacility-text == "local3" and $programname == "sentinel" then {{
    action(type="mmjsonparse" cookie="@cee:")
    if $parsesuccess == "OK" then {{
      action(type="omfile" file="{directory}/events.json" template="json_line")
      stop
    }}
  }}
  action(type="omfile" file="{directory}/other.log")
}}
input(type="imuxsock" Socket="{directory}/log" CreatePath="on" ruleset="sentinel"
      RateLimit.Interval="0")
input(type="imudp" address="127.0.0.1" port="{port}" ruleset="sentinel")
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="sentinel")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rsyslogd:
    """One rsyslogd; it listens at *directory*/log and, for UDP and TCP, at *port*."""

    directory: Path
    port: int

    @property
    def path(self) -> Path:
        """Its own /dev/log."""
        return self.directory / "log"

    def events(self) -> list[dict[str, Any]]:
        """Return what arrived as JSON, whole lines alone."""
        with suppress(FileNotFoundError):
            text = (self.directory / "events.json").read_text()
            return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        return []

    def other(self) -> str:
        """Return what arrived and was not understood."""
        with suppress(FileNotFoundError):
            return (self.directory / "other.log").read_text()
        return ""

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run it until the block ends; it listens when the block begins."""
        configuration = self.directory / "rsyslog.conf"
        configuration.write_text(_CONFIGURATION.format(directory=self.directory, port=self.port))
        program = shutil.which("rsyslogd", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "rsyslogd is not installed"
        pidfile = self.directory / "rsyslogd.pid"
        with subprocess.Popen([program, "-n", "-f", configuration, "-i", pidfile]) as process:
            try:
                wait_until(self._listens)
                yield process
            finally:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                process.wait(DEADLINE_S)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix, socket.socket() as tcp:
            return (
                unix.connect_ex(str(self.path)) == 0
                and tcp.connect_ex(("127.0.0.1", self.port)) == 0
            )


def rsyslogd_in(directory: Path) -> Rsyslogd:
    """Prepare an rsyslogd with its files in *directory*, whose name must not be long."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return Rsyslogd(directory=directory, port=free.getsockname()[1])


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until *condition*() holds; AssertionError after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
