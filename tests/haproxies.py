"""Real HAProxies for tests: started on loopback, answering when handed over, dead afterwards.

Every process started here carries a mark in its environment, which forks and re-executions keep.
That is how the end of a test finds what is left of it (workers, daemons, orphans), and why it can
never hit another HAProxy.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import uuid
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

EXECUTABLE: Final = "/usr/sbin/haproxy"
DEADLINE_S: Final = 20.0
_MARK: Final = "SENTINEL_TEST_HAPROXY"

DEFAULTS: Final = """\
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
"""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that was free a moment ago."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Wait until *condition* is true; fail the test saying *what* did not happen."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what}: not within {timeout_s} s")
        time.sleep(0.005)


def answering_config(port: int, host: str = "127.0.0.1", status: int = 200) -> str:
    """Return a configuration with one HTTP frontend that answers by itself, without servers."""
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"""{DEFAULTS}
frontend fe
    bind {bind}
    http-request return status {status} content-type text/plain string ok
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Haproxy:
    """One running HAProxy and the files it uses.

    *process* is what was started: the master, the single process, or with -D the launcher, which
    has ended by now.
    """

    config: Path
    pidfile: Path
    stats_socket: Path
    log: Path
    process: subprocess.Popen[bytes]
    mark: str
    daemon: bool

    def ask(self, command: str, timeout_s: float = 2.0) -> str:
        """Send one command to the runtime API of the current worker; raises OSError."""
        with closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.settimeout(timeout_s)
            sock.connect(str(self.stats_socket))
            sock.sendall(f"{command}\n".encode())
            reply = b""
            while chunk := sock.recv(65536):
                reply += chunk
        return reply.decode()

    def number(self, field: str) -> int:
        """Return a number of ``show info``, 0 when nobody answers."""
        with suppress(OSError):
            for line in self.ask("show info").splitlines():
                if line.startswith(f"{field}: "):
                    return int(line.removeprefix(f"{field}: "))
        return 0

    def answering_pid(self) -> int:
        """Return the pid that answers on the stats socket, 0 when none does."""
        return self.number("Pid")

    @contextmanager
    def holding_open(self, port: int, host: str = "127.0.0.1") -> Iterator[None]:
        """Keep a request half sent, so that the worker that has it cannot end after a reload."""
        with closing(socket.create_connection((host, port), timeout=DEADLINE_S)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
            wait_until(lambda: self.number("CurrConns"), "the connection is accepted")
            yield

    def pids(self) -> tuple[int, ...]:
        """Return the pids of all living processes that come from this start."""
        return marked_pids(self.mark)

    @property
    def main_pid(self) -> int:
        """The master, or the single process; without -D and -W HAProxy writes no pidfile."""
        return int(self.pidfile.read_text().split()[0]) if self.daemon else self.process.pid

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """All living processes but the main one, ascending by age."""
        return tuple(pid for pid in self.pids() if pid != self.main_pid)

    def reload(self) -> int:
        """Reload by SIGUSR2 and return the pid of the new worker, which answers."""
        before = self.answering_pid()
        wait_until(lambda: takes_signals(self.main_pid), "the master takes signals")
        os.kill(self.main_pid, signal.SIGUSR2)
        wait_until(lambda: self.answering_pid() not in {0, before}, "the new worker answers")
        wait_until(lambda: takes_signals(self.main_pid), "the master takes signals again")
        return self.answering_pid()

    def kill(self) -> None:
        """SIGKILL every process of this start, stopped ones too, and wait for their end."""
        kill_marked(self.mark)
        self.process.wait(DEADLINE_S)


@contextmanager
def running_haproxy(
    config: str,
    folder: Path,
    *,
    flags: Sequence[str] = ("-W",),
    name: str = "haproxy",
    executable: str = EXECUTABLE,
    answering: bool = True,
) -> Iterator[Haproxy]:
    """Run HAProxy with the configuration text *config* and a stats socket added to it.

    *flags* choose the process model: ``-W``, ``-Ws``, ``-D``, ``-W -D``, or none of them for one
    process in the foreground. *name* tells several in one *folder* apart. With *answering* False
    there is no waiting for the stats socket. Fails the test with HAProxy's own words when it ends
    before it answers.
    """
    files = {kind: folder / f"{name}.{kind}" for kind in ("cfg", "pid", "sock", "log")}
    files["cfg"].write_text(
        f"{config}\nglobal\n    stats socket {files['sock']} mode 600 level admin\n"
    )
    haproxy = start_haproxy(files["cfg"], flags=flags, executable=executable)
    try:
        if answering:
            wait_until_answering(haproxy)
        yield haproxy
    finally:
        haproxy.kill()


def start_haproxy(
    config: Path,
    *,
    flags: Sequence[str] = ("-W",),
    executable: str = EXECUTABLE,
    mark: str = "",
) -> Haproxy:
    """Start HAProxy on an existing file, at once; the caller has to call ``kill`` at the end.

    With the *mark* of another start it ends when that one does.
    """
    mark = mark or uuid.uuid4().hex
    log = config.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [executable, "-f", str(config), "-p", str(config.with_suffix(".pid")), *flags],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {_MARK: mark},
            start_new_session=True,
        )
    return Haproxy(
        config=config,
        pidfile=config.with_suffix(".pid"),
        stats_socket=config.with_suffix(".sock"),
        log=log,
        process=process,
        mark=mark,
        daemon="-D" in flags,
    )


def wait_until_answering(haproxy: Haproxy) -> None:
    """Wait until the stats socket and the pidfile tell of a living process."""

    def answers() -> bool:
        if haproxy.process.poll() not in {None, 0}:
            raise AssertionError(f"haproxy ended: {haproxy.log.read_text()}")
        with suppress(OSError, ValueError, IndexError):
            return haproxy.answering_pid() != 0 and takes_signals(haproxy.main_pid)
        return False

    wait_until(answers, f"{haproxy.config} answers")


def stopped(pid: int) -> bool:
    """Tell whether all threads of *pid* are in state T."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all(") T " in (task / "stat").read_text() for task in tasks)


def takes_signals(pid: int) -> bool:
    """Tell whether *pid* is past its start: until then HAProxy blocks signals and loses them."""
    status = Path(f"/proc/{pid}/status").read_text()
    return "SigBlk:\t0000000000000000" in status


def marked_pids(mark: str) -> tuple[int, ...]:
    """Return the living processes whose environment carries *mark*, ascending."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return tuple(sorted(found))


def kill_marked(mark: str) -> None:
    """SIGKILL all processes that carry *mark*, and their newborn, until none is left."""

    def gone() -> bool:
        pids = marked_pids(mark)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait_until(gone, "all processes of the test are dead")
