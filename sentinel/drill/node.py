"""One node: network, mounts, processes and host name of its own, from switching on to power cut.

Everything written in a node goes to layers over the machine's files (see ``root``) and ends with
it. Its first process reaps what its daemons leave behind, as systemd would.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sentinel.drill import root
from sentinel.drill.furniture import files
from sentinel.drill.plan import COMMANDS, HOOK, Machine, Plan
from sentinel.drill.users import only_existing

DEADLINE_S: Final = 20.0


class WorldError(Exception):
    """The world could not be built, or something in it failed; the message says what."""


class LackingError(Exception):
    """A fault cannot be made on this machine; the message says what it lacks, and the cure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proc:
    """One process of a node; *pid* is the one it has for the drill."""

    pid: int
    parent: int
    name: str
    state: str
    argv: tuple[str, ...]


async def run(*argv: str, timeout_s: float = DEADLINE_S) -> str:
    """Run a program to its end and return its output; raises WorldError when it fails."""
    process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        await end(process)
        raise WorldError(f"{' '.join(argv)}: not ended after {timeout_s:g} s") from None
    text = output.decode("utf-8", "replace").strip()
    if process.returncode != 0:
        raise WorldError(f"{' '.join(argv)}: exit code {process.returncode}\n{text}")
    return text


async def end(process: Process) -> None:
    """Kill a program of ours and wait for its end.

    Not by ``process.kill()``, which reaps the process before asyncio can.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()


async def wait_ready(process: Process, what: str, word: bytes = b"ready") -> None:
    """Wait until a program of ours has said *word*."""
    assert process.stdout is not None  # noqa: S101  (a pipe, as we asked)
    async with asyncio.timeout(DEADLINE_S):
        line = await process.stdout.readline()
    if line.strip() != word:
        raise WorldError(f"{what} said {line!r} instead of {word!r}")


class Node:
    """A node of the plan; *pid* is its first process while it is on."""

    def __init__(self, machine: Machine, plan: Plan) -> None:
        self.machine: Final = machine
        self.name: Final = machine.name
        self._plan: Final = plan
        self._unshare: Process | None = None
        self._spawned: list[Process] = []
        self.pid = 0

    async def power_on(self) -> None:
        """Make the namespaces and files; no cable is laid and nothing started yet."""
        unshare = ("unshare", "-n", "-m", "-p", "-u", "--fork", "--kill-child", "--mount-proc")
        setup = ("sh", "-c", root.SETUP, "sh", *root.own(self._plan))
        self._unshare = await asyncio.create_subprocess_exec(
            *unshare, *setup, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
        await wait_ready(self._unshare, self.name)
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        self.pid = _first(children)
        self._furnish()

    def lose_power(self) -> None:
        """SIGKILL everything in the node at once, as a power cut does."""
        os.kill(self.pid, signal.SIGKILL)

    async def power_off(self) -> None:
        """Wait until nothing is left of a node that has lost its power."""
        if self._unshare is not None:
            for process in self._spawned:
                # nsenter stops with its child, and must go on to reap it: no node ends before that
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
                await process.wait()
            self._spawned.clear()
            await self._unshare.wait()
            self._unshare, self.pid = None, 0

    @property
    def is_on(self) -> bool:
        """The node has power."""
        return self.pid != 0

    # --- files ----------------------------------------------------------------------------------

    def path(self, inside: str) -> Path:
        """Return the way from here to an absolute path inside the node.

        Its folder without symlinks, which would lead back to the machine (/var/run to its /run).
        """
        path = Path(inside)
        return Path(f"/proc/{self.pid}/root{path.parent.resolve()}", path.name)

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Replace a file of the node by rename."""
        path = self.path(inside)
        new = path.with_name(f".{path.name}.new")
        new.write_text(text)
        new.chmod(mode)
        new.rename(path)

    def _furnish(self) -> None:
        plan = self._plan
        for folder in plan.folders:
            self.path(folder).mkdir(parents=True, exist_ok=True)
        for file in files(self.machine, plan):
            self.write(file.path, file.text, file.mode)
        if plan.hook is not None and not self.path(HOOK).exists():
            self.write(HOOK, plan.hook.read_text(), 0o755)
        os.mkfifo(self.path(plan.config.fifo), 0o600)
        maps = [Path(f"/proc/self/{kind}_map").read_text() for kind in ("uid", "gid")]
        for path, id_maps in (("/etc/passwd", maps), ("/etc/group", maps[1:])):
            self.write(path, only_existing(self.path(path).read_text(), *id_maps))
        if plan.hosts:
            hosts = self.path("/etc/hosts").read_text()
            names = "".join(f"{address} {name}\n" for name, address in plan.hosts)
            self.write("/etc/hosts", f"{hosts}\n{names}")

    # --- programs -------------------------------------------------------------------------------

    def argv(self, *argv: str) -> tuple[str, ...]:
        """Return the command line that runs *argv* in the node."""
        return ("nsenter", "-t", str(self.pid), "-n", "-m", "-p", "-u", *argv)

    async def run(self, *argv: str) -> str:
        """Run a program in the node to its end; see ``run``."""
        return await run(*self.argv(*argv))

    async def spawn(self, *argv: str, stdout: int = DEVNULL, stderr: int = DEVNULL) -> Process:
        """Start a program in the node that ends with it."""
        process = await asyncio.create_subprocess_exec(
            *self.argv(*argv), stdin=DEVNULL, stdout=stdout, stderr=stderr
        )
        self._spawned.append(process)
        return process

    async def service(self, name: str, verb: str) -> None:
        """Start or stop haproxy or keepalived as an administrator does."""
        await self.run(f"{COMMANDS}/{name}-{verb}")

    def procs(self) -> Iterator[Proc]:
        """Yield the node's processes but the first."""
        if not self.is_on:
            return
        own = Path(f"/proc/{self.pid}/ns/pid").readlink()
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdecimal() and (entry / "ns/pid").readlink() == own:
                    name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                    state, parent = rest.split()[:2]
                    argv = (entry / "cmdline").read_text().split("\0")
                    yield Proc(
                        pid=int(entry.name),
                        parent=int(parent),
                        name=name,
                        state=state,
                        argv=tuple(argv),
                    )

    def signal_standin(self, kind: str, number: signal.Signals) -> None:
        """Send a signal to the stand-ins of this kind in the node."""
        words = ("-m", "sentinel.drill.standins", kind)
        send(number, *(proc for proc in self.procs() if proc.argv[1:4] == words))

    def named(self, name: str) -> list[Proc]:
        """Return the living processes called *name*; sentinel is known by its command line.

        A ``haproxy -c`` is a look at a file, no HAProxy.
        """
        return [
            proc
            for proc in self.procs()
            if proc.state not in {"Z", "X"}
            and "-c" not in proc.argv
            and (proc.name == name or proc.argv[1:4] == ("-m", name, "run"))
        ]

    def workers(self) -> list[Proc]:
        """Return HAProxy's workers: the children of another haproxy."""
        procs = self.named("haproxy")
        masters = {proc.pid for proc in procs}
        return [proc for proc in procs if proc.parent in masters]


def _first(children: Path) -> int:
    return int(children.read_text().split()[0])


def send(number: signal.Signals, *procs: Proc) -> None:
    """Send a signal to processes, some of which may have ended meanwhile."""
    for proc in procs:
        with suppress(ProcessLookupError):
            os.kill(proc.pid, number)
