"""``sentinel run`` as a process of its own, on a real HAProxy that plain commands manage.

A Node is a folder: haproxy.cfg, sentinel.toml, the commands that start and stop HAProxy and
keepalived (which is played by a file of notes), and what sentinel leaves behind. Everything is
found again by a mark in its environment or by its pid, and is dead when the test is over.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, Any, Final

from haproxies import (
    EXECUTABLE,
    answering_config,
    free_port,
    kill_marked,
    marked_pids,
    wait_until,
)
from processes import running

from sentinel.commands.client import NoAnswerError, ask

ROOT: Final = Path(__file__).parents[1]
HOOK: Final = ROOT / "contrib" / "keepalived" / "chk_sentinel.sh"
DEADLINE_S: Final = 20.0
_MARK: Final = "SENTINEL_TEST_HAPROXY"  # as haproxies.py knows it
_FIELD: Final = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')
_STOP: Final = """\
pid=$(cat {folder}/haproxy.pid) && kill "$pid" || exit 0
for _ in $(seq 200); do
    kill -0 "$pid" 2>/dev/null || exit 0
    sleep 0.01
done
exit 1
"""

Tables = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Node:
    """One load balancer on loopback: its files, its HAProxy, and what keepalived was told."""

    folder: Path
    port: int
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    executable: str = EXECUTABLE

    @property
    def haproxy_cfg(self) -> Path:
        """The HAProxy's configuration."""
        return self.folder / "haproxy.cfg"

    @property
    def stats_socket(self) -> Path:
        """The stats socket that haproxy.cfg names."""
        return self.folder / "admin.sock"

    @property
    def sentinel_toml(self) -> Path:
        """The configuration of sentinel."""
        return self.folder / "sentinel.toml"

    # --- files ----------------------------------------------------------------------------------

    def configure(self, **tables: Any) -> None:
        """Write sentinel.toml: the tables of a quick node, changed by *tables*."""
        merged = self._tables()
        for name, value in tables.items():
            if isinstance(value, dict):
                merged[name] = {**merged.get(name, {}), **value}
            else:
                merged[name] = value
        self.sentinel_toml.write_text(_toml(merged))

    def _tables(self) -> dict[str, Any]:
        at = self.folder
        return {
            "node": "test",
            "run_dir": str(at),
            "haproxy": {
                "manager": "commands",
                "start": [str(at / "haproxy-start")],
                "stop": [str(at / "haproxy-stop")],
                "command_timeout": "3s",
                "executable": self.executable,
                "config": [str(self.haproxy_cfg)],
                "pidfile": str(at / "haproxy.pid"),
            },
            "restart": {"backoff": "100ms", "backoff_max": "1s", "verify": "2s"},
            "keepalived": {
                "manager": "commands",
                "start": [str(at / "keepalived-start")],
                "stop": [str(at / "keepalived-stop")],
                "stop_after": "300ms",
                "hold": "500ms",
            },
            "process": {"inter": "50ms", "fastinter": "50ms", "downinter": "50ms"},
            "runtime": {
                "inter": "200ms",
                "fastinter": "100ms",
                "downinter": "200ms",
                "timeout": "300ms",
            },
            "configuration": {"inter": "200ms", "fastinter": "200ms", "downinter": "200ms"},
            "backends": {"enabled": False},
            "log": {"target": "none"},
        }

    def command(self, name: str, body: str) -> None:
        """Write the command *name*, which notes every call in ``calls`` before it does *body*."""
        path, new = self.folder / name, self.folder / f".{name}"
        new.write_text(f"#!/bin/sh\necho {name} >>{self.folder}/calls\n{body}\n")
        new.chmod(0o755)
        new.rename(path)  # a script is read while it runs

    def start_by(self, *prefix: str) -> None:
        """Let the start command start HAProxy, with the words of *prefix* before it."""
        self.command("haproxy-start", f"exec {' '.join(prefix)} {self.haproxy_command}")

    @property
    def haproxy_command(self) -> str:
        """What starts HAProxy as a daemon that carries the mark."""
        at = self.folder
        return (
            f"env {_MARK}={self.mark} {self.executable} -W -D"
            f" -p {at}/haproxy.pid -f {self.haproxy_cfg}"
        )

    def calls(self, name: str) -> int:
        """Return how often the command *name* was called."""
        with suppress(FileNotFoundError):
            return (self.folder / "calls").read_text().split().count(name)
        return 0

    @property
    def leased(self) -> str:
        """The lease's word, OK or FAIL; empty while there is no lease."""
        with suppress(FileNotFoundError):
            return (self.folder / "lease").read_text().split()[0]
        return ""

    @property
    def tracked(self) -> str:
        """The track file's content."""
        with suppress(FileNotFoundError):
            return (self.folder / "track").read_text().strip()
        return ""

    def hook(self) -> int:
        """Run keepalived's hook; return its verdict."""
        names = ("lease", "haproxy.pid", "hook-called")
        argv = [str(HOOK), *(str(self.folder / name) for name in names)]
        return subprocess.run(argv, timeout=DEADLINE_S, check=False).returncode

    # --- HAProxy --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start HAProxy by its command, as an administrator would, and wait for its answer."""
        subprocess.run([str(self.folder / "haproxy-start")], timeout=DEADLINE_S, check=True)
        wait_until(self.answers, "HAProxy answers")
        (self.folder / "calls").unlink()

    @property
    def pids(self) -> tuple[int, ...]:
        """All living processes of HAProxy; one that only checks a configuration is none."""
        return tuple(
            pid
            for pid in marked_pids(self.mark)
            if _name(pid) == "haproxy" and "-c" not in _arguments(pid)
        )

    @property
    def master(self) -> int:
        """The pid in the pidfile."""
        return int((self.folder / "haproxy.pid").read_text().split()[0])

    @property
    def masters(self) -> tuple[int, ...]:
        """The living processes of HAProxy that are no children of another."""
        pids = self.pids
        return tuple(pid for pid in pids if _parent(pid) not in pids)

    @property
    def worker(self) -> int:
        """The one child of the master."""
        (worker,) = (pid for pid in self.pids if _parent(pid) == self.master)
        return worker

    def signal(self, number: signal.Signals, *pids: int) -> None:
        """Send a signal to *pids*, or to every process of HAProxy."""
        for pid in pids or self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def answers(self, path: str = "/") -> bool:
        """Tell whether HAProxy answers a request with 200."""
        with (
            suppress(OSError, HTTPException),
            closing(HTTPConnection("127.0.0.1", self.port, timeout=2)) as client,
        ):
            client.request("GET", path)
            return client.getresponse().status == 200
        return False


@contextmanager
def node_in(folder: Path) -> Iterator[Node]:
    """Make a node with one frontend in *folder*; HAProxy is not started yet."""
    node = Node(folder=folder, port=free_port())
    node.haproxy_cfg.write_text(
        f"global\n    maxconn 100\n    stats socket {node.stats_socket} mode 600 level admin\n"
        + answering_config(node.port)
    )
    node.start_by()
    node.command("haproxy-stop", _STOP.format(folder=folder))
    node.command("keepalived-start", "")
    node.command("keepalived-stop", "")
    node.configure()
    try:
        yield node
    finally:
        kill_marked(node.mark)


# --- sentinel -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the log, as people read it on stderr."""

    level: str
    name: str
    fields: Mapping[str, str]

    def is_about(self, name: str, fields: Mapping[str, str]) -> bool:
        """Tell whether this is the event *name* with all of *fields*, each a part of the value."""
        return self.name == name and all(
            part in self.fields.get(key, "") for key, part in fields.items()
        )


class Daemon:
    """A running ``sentinel run``: what it says, and what it is asked."""

    def __init__(self, node: Node, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start *argv* on *node*; read its stderr until its end."""
        self.node = node
        self.text = ""
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **env},
        )
        assert self.process.stderr is not None
        self._events: list[Event] = []
        self._waited = 0  # events before this one have been waited for
        self._news = threading.Condition()
        self.reading = threading.Event()  # cleared, nobody reads what it says
        self.reading.set()
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,))
        self._reader.start()

    def _read(self, stderr: IO[bytes]) -> None:
        for line in stderr:
            self.reading.wait()
            text = line.decode("utf-8", "replace")
            with self._news:
                self.text += text
                self._events += [event] if (event := _event(text)) else []
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    # --- what it says ---------------------------------------------------------------------------

    def wait_for(self, name: str, timeout_s: float = DEADLINE_S, **fields: str) -> Event:
        """Wait for the event *name*, whose fields hold *fields*, after the last one waited for."""
        deadline_s = time.monotonic() + timeout_s
        with self._news:
            while True:
                for index in range(self._waited, len(self._events)):
                    if self._events[index].is_about(name, fields):
                        self._waited = index + 1
                        return self._events[index]
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._reader.is_alive():
                    raise AssertionError(f"no {name} {fields} since event {self._waited}: {self}")
                self._news.wait(min(left_s, 0.5))

    def count(self, name: str, **fields: str) -> int:
        """Return how often the event *name* has been logged."""
        with self._news:
            return sum(event.is_about(name, fields) for event in self._events)

    def names(self) -> list[str]:
        """Return the names of all events, in order."""
        with self._news:
            return [event.name for event in self._events]

    def status(self) -> dict[str, Any]:
        """Ask for the status document; raises NoAnswerError."""
        return ask(str(self.node.folder / "status.sock"))

    def wait_until(
        self, true: Callable[[dict[str, Any]], object], what: str, timeout_s: float = DEADLINE_S
    ) -> dict[str, Any]:
        """Wait for a status document of which *true* holds, and return it."""
        found: list[dict[str, Any]] = []

        def holds() -> bool:
            with suppress(NoAnswerError):
                document = self.status()
                if document and true(document):
                    found.append(document)
            return bool(found) or not self.running

        try:
            wait_until(holds, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self}") from error
        assert found, f"{what}: sentinel has ended: {self}"
        return found[0]

    def wait_for_steps(self, count: int = 5) -> None:
        """Wait until the lease has been renewed *count* times: that much of its life went by."""
        lease = self.node.folder / "lease"
        for _ in range(count):
            before = lease.read_text()
            wait_until(partial(_differs, lease, before), f"a renewal: {self}")

    def reload(self) -> None:
        """Let it read its configuration again, and wait until it has."""
        self.process.send_signal(signal.SIGHUP)
        self.wait_for("sentinel.reloaded")

    def check_now(self) -> None:
        """Let it run all its checks now."""
        self.process.send_signal(signal.SIGUSR1)

    def check(self, name: str) -> dict[str, Any]:
        """Return what the status says of the check *name*."""
        (found,) = (check for check in self.status()["checks"] if check["name"] == name)
        return dict(found)

    def wait_for_check(self, name: str, code: str, words: str = "") -> None:
        """Wait until the check *name* has the result *code*, and *words* in its detail."""

        def holds(document: dict[str, Any]) -> bool:
            return any(
                (check["name"], check["check_code"]) == (name, code) and words in check["last_chk"]
                for check in document["checks"]
            )

        self.wait_until(holds, f"{name} {code} {words}")

    # --- its end --------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """The process has not ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self._end()

    def terminate(self) -> int:
        """SIGTERM; return the exit status."""
        self.process.terminate()
        return self._end()

    def wait(self) -> int:
        """Wait for its end; return the exit status."""
        return self._end()

    def _end(self) -> int:
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.reading.set()
            self.process.kill()
            self.process.wait()
            self._reader.join(DEADLINE_S)
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()

    def __str__(self) -> str:
        return f"it said\n{self.text}"


@contextmanager
def supervising(
    node: Node,
    *flags: str,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    learned: bool = True,
) -> Iterator[Daemon]:
    """Run ``sentinel run`` on *node*; hand it over once it has *learned* that all is well.

    Otherwise it has only begun. Fails when sentinel crashes.
    """
    argv = [*prefix, sys.executable, "-m", "sentinel", "run", "--config", str(node.sentinel_toml)]
    daemon = Daemon(node, [*argv, *flags], env or {})
    try:
        daemon.wait_for("sentinel.started")
        if learned:
            daemon.wait_until(_all_is_well, "every check passes")
            daemon.wait_for("verdict.changed")  # the last word of a start
        yield daemon
    finally:
        if daemon.running:
            daemon.terminate()
        else:
            daemon.wait()
    assert "sentinel.crashed" not in daemon.names(), daemon.text
    assert "Traceback" not in daemon.text, daemon.text


def _all_is_well(document: dict[str, Any]) -> bool:
    checks = document["checks"]
    scopes = {check["scope"] for check in checks}
    return (
        {"process", "runtime", "frontend", "configuration"} <= scopes
        and all(check["verdict"] == "PASS" for check in checks)
        and document["overall"] == "healthy"
    )


def _event(line: str) -> Event | None:
    """Read one line of stderr, ``TIME LEVEL NAME KEY=VALUE...``; None for anything else."""
    words = line.split(maxsplit=3)
    if len(words) < 3 or "T" not in words[0] or not words[0].endswith("Z"):
        return None
    fields = dict(_FIELD.findall(words[3])) if len(words) > 3 else {}
    plain = {key: json.loads(v) if v.startswith('"') else v for key, v in fields.items()}
    return Event(level=words[1], name=words[2], fields=plain)


def _toml(tables: Tables) -> str:
    """Write TOML: plain keys first, then tables, then arrays of tables."""
    plain, sub, arrays = [], [], []
    for name, value in tables.items():
        if isinstance(value, dict):
            sub.append(f"[{name}]\n{_toml(value)}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            arrays += [f"[[{name}]]\n{_toml(item)}" for item in value]
        else:
            plain.append(f"{name} = {json.dumps(value)}\n")
    return "".join([*plain, *sub, *arrays])


def _differs(path: Path, before: str) -> bool:
    return path.read_text() != before


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() if running(pid) else ""
    return ""


def _arguments(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
