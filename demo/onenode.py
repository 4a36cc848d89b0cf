"""One node on loopback: a real HAProxy, two web servers, a client, and sentinel mending faults.

Everything lives in a temporary folder and on 127.0.0.1, needs no root, and is gone afterwards.
keepalived is played by two commands that leave a note when sentinel stops or starts it; the hook is
the shipped one. Exit status 0 when every fault ended as it should.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOOK = ROOT / "contrib" / "keepalived" / "chk_sentinel.sh"
SCENE_TIMEOUT_S = 20.0
CLIENT_EVERY_S = 0.01
CLIENT_TIMEOUT_S = 0.25
#: What of sentinel's log a first-time reader needs; the rest is in the log itself.
TOLD = (
    "haproxy.",
    "configuration.",
    "keepalived.",
    "phase.changed",
    "action.",
)

HAPROXY_CFG = """\
global
    maxconn 200
    stats socket {folder}/admin.sock mode 600 level operator
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
frontend web
    bind 127.0.0.1:{port}
    default_backend pool
backend pool
    option httpchk HEAD /
    server web1 127.0.0.1:{web1} check
    server web2 127.0.0.1:{web2} check
"""

SENTINEL_TOML = """\
node = "demo"
run_dir = "{folder}"
[haproxy]
manager = "commands"
start = ["{haproxy}", "-W", "-D", "-p", "{folder}/haproxy.pid", "-f", "{folder}/haproxy.cfg"]
stop = ["/bin/sh", "-c", "kill -9 $(cat {folder}/haproxy.pid)"]
executable = "{haproxy}"
config = ["{folder}/haproxy.cfg"]
pidfile = "{folder}/haproxy.pid"
[keepalived]
manager = "commands"
stop = ["/bin/sh", "-c", "echo stopped > {folder}/keepalived"]
start = ["/bin/sh", "-c", "echo running > {folder}/keepalived"]
stop_after = "1s"
hold = "2s"
[hook]
lease_file = "{folder}/lease"
track_file = "{folder}/track"
sign = "{folder}/hook-called"
[log]
target = "none"
[status]
socket = "{folder}/status.sock"
"""


def pids_with(*words: str) -> list[int]:
    """Return the processes whose command line has all these words."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                if all(os.fsencode(word) in argv for word in words):
                    pids.append(int(entry.name))
    return pids


def signal_haproxy(folder: Path, number: signal.Signals) -> None:
    """Send a signal to every process of the HAProxy that runs *folder*'s haproxy.cfg."""
    for pid in pids_with("-D", str(folder / "haproxy.cfg")):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def sweep(folder: Path) -> None:
    """Wait for the end of the play, however it ends, and leave nothing of it behind."""
    sys.stdin.buffer.read()
    for pid in pids_with("run", str(folder / "sentinel.toml")):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while pids_with("-D", str(folder / "haproxy.cfg")):
        signal_haproxy(folder, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


class SceneFailedError(Exception):
    """What should have happened did not, in time."""


@dataclass(slots=True)
class Client:
    """Asks HAProxy every 10 ms over a new connection, and keeps when it was answered well."""

    port: int
    good_s: list[float] = field(default_factory=list)
    failed: int = 0

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._ask())
                await asyncio.sleep(CLIENT_EVERY_S)

    async def _ask(self) -> None:
        writer = None
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                good = b" 200 " in await reader.readline()
        except (OSError, TimeoutError):
            good = False
        finally:
            if writer is not None:
                writer.transport.abort()
        if good:
            self.good_s.append(time.monotonic())
        else:
            self.failed += 1

    def outage_ms(self, since_s: float) -> float:
        """Return the longest gap between two good answers around *since_s* and after."""
        times = [at_s for at_s in self.good_s if at_s >= since_s - 0.1]
        return max((b - a for a, b in pairwise(times)), default=0.0) * 1000


@dataclass(slots=True)
class Stage:
    """The programs on stage and what has been heard from them."""

    folder: Path
    port: int
    client: Client
    begun_s: float = field(default_factory=time.monotonic)
    heard: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, text: str) -> None:
        """Print one line of the play, with its time."""
        print(f"{time.monotonic() - self.begun_s:6.2f}s  {text}", flush=True)

    async def listen(self, stream: asyncio.StreamReader) -> None:
        """Retell what sentinel logs, in its own words."""
        while line := await stream.readline():
            _, _, text = line.decode("utf-8", "replace").strip().partition(" ")
            text = re.sub(r" (check_\w+|incarnation|after_s)=(\"[^\"]*\"|\S+)", "", text)
            words = text.split(maxsplit=1)
            if len(words) > 1:
                self.heard.append(words[1])
                if words[1].startswith(TOLD):
                    self.say(f"    sentinel: {words[1]}")
                self.news.set()

    async def wait_for(self, *events: str) -> None:
        """Wait until sentinel has logged these events, in this order, since the last wait."""
        async with asyncio.timeout(SCENE_TIMEOUT_S):
            for event in events:
                while not any(line.startswith(event) for line in self.heard):
                    self.news.clear()
                    await self.news.wait()
                index = next(i for i, line in enumerate(self.heard) if line.startswith(event))
                del self.heard[: index + 1]

    async def wait_until(self, true: Callable[[], bool]) -> None:
        """Wait for something that nobody tells us of."""
        async with asyncio.timeout(SCENE_TIMEOUT_S):
            while not true():  # noqa: ASYNC110  (files and counters wake nobody)
                await asyncio.sleep(0.02)

    async def wait_for_answers(self, count: int) -> None:
        """Wait until the client has had *count* more good answers."""
        enough = len(self.client.good_s) + count
        await self.wait_until(lambda: len(self.client.good_s) >= enough)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process of this stage's HAProxy."""
        signal_haproxy(self.folder, number)

    async def hook(self) -> int:
        """Run keepalived's hook as keepalived does; return its verdict."""
        process = await asyncio.create_subprocess_exec(
            str(HOOK),
            *(str(self.folder / name) for name in ("lease", "haproxy.pid", "hook-called")),
        )
        return await process.wait()


async def crash(stage: Stage) -> None:
    """Every process of HAProxy is killed."""
    stage.signal_all(signal.SIGKILL)
    await stage.wait_for("haproxy.died", "haproxy.restarted")


async def hang(stage: Stage) -> None:
    """Every process of HAProxy is stopped: it lives, listens, and answers nothing."""
    stage.signal_all(signal.SIGSTOP)
    await stage.wait_for("haproxy.hung")
    await stage.wait_until(lambda: (stage.folder / "lease").read_text().startswith("FAIL"))
    stage.say(f"    hook:     exit {await stage.hook()}, the VIP goes to the peer")
    await stage.wait_for("haproxy.restarted")


async def broken_configuration(stage: Stage) -> None:
    """haproxy.cfg is broken, then HAProxy is killed, then haproxy.cfg is mended."""
    cfg = stage.folder / "haproxy.cfg"
    good = cfg.read_text()
    cfg.write_text(good.replace("default_backend pool", "default_backend poool"))
    await stage.wait_for("configuration.invalid")
    stage.say("    (HAProxy still serves; now it is killed)")
    stage.signal_all(signal.SIGKILL)
    await stage.wait_for("haproxy.failed")
    stage.say(f"    hook:     exit {await stage.hook()}, the VIP goes to the peer")
    await stage.wait_for("keepalived.stopped")
    stage.say("    (haproxy.cfg is mended)")
    cfg.write_text(good)
    await stage.wait_for("haproxy.restarted", "keepalived.started")


SCENES = (
    ("kill -9 of every haproxy process", crash),
    ("SIGSTOP of every haproxy process (a hang)", hang),
    ("haproxy.cfg broken, haproxy killed, haproxy.cfg mended", broken_configuration),
)


async def play(stage: Stage) -> None:
    """Run the scenes one after another and say what the client saw of each."""
    await stage.wait_for("phase.changed")
    await stage.wait_for_answers(20)
    for title, scene in SCENES:
        stage.say(f"--- {title}")
        stage.heard.clear()
        stage.client.failed = 0
        begun_s = time.monotonic()
        try:
            await scene(stage)
        except TimeoutError as error:
            raise SceneFailedError(f"{title}: not mended within {SCENE_TIMEOUT_S:g} s") from error
        await stage.wait_for_answers(20)
        stage.say(
            f"    client:   longest gap {stage.client.outage_ms(begun_s):.0f} ms,"
            f" {stage.client.failed} of its requests failed; hook: exit {await stage.hook()}"
        )


async def web(name: str, port: int) -> asyncio.Server:
    """Start a small web server that names itself."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = f"{name}\n".encode()
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", port)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


async def main(folder: Path) -> int:
    """Set the stage in *folder*, play, and clear it."""
    haproxy = shutil.which(
        "haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    )
    if haproxy is None:
        print("demo: there is no haproxy on this machine: run demo/run, which installs it")
        return 1
    port, web1, web2 = free_ports(3)
    values = {"folder": folder, "port": port, "web1": web1, "web2": web2, "haproxy": haproxy}
    (folder / "haproxy.cfg").write_text(HAPROXY_CFG.format(**values))
    (folder / "sentinel.toml").write_text(SENTINEL_TOML.format(**values))
    servers = [await web("web1", web1), await web("web2", web2)]
    stage = Stage(folder=folder, port=port, client=Client(port=port))
    stage.say(f"HAProxy on 127.0.0.1:{port}, two web servers, a client asking every 10 ms")
    command = (haproxy, "-W", "-D", "-p", folder / "haproxy.pid", "-f", folder / "haproxy.cfg")
    started = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    await started.wait()
    sentinel = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sentinel", "run", "--config", folder / "sentinel.toml"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert sentinel.stderr is not None
    client = asyncio.create_task(stage.client.run())
    listener = asyncio.create_task(stage.listen(sentinel.stderr))
    try:
        await play(stage)
        stage.say("--- sentinel status")
        status = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sentinel", "status"), "--socket", folder / "status.sock"
        )
        await status.wait()
    except SceneFailedError as error:
        stage.say(f"FAILED: {error}")
        return 1
    finally:
        for task in (client, listener):
            task.cancel()
        sentinel.terminate()
        await sentinel.wait()
        for server in servers:
            server.close()
    stage.say("all faults ended as they should")
    return 0


def perform() -> int:
    """Play in a folder of its own, with a sweeper that outlives this process."""
    folder = Path(tempfile.mkdtemp(prefix="sentinel-demo-"))
    sweeper = subprocess.Popen(
        [sys.executable, __file__, "--sweep", str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        return asyncio.run(main(folder))
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
    finally:
        sweeper.communicate()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--sweep"]:
        sweep(Path(sys.argv[2]))
    else:
        sys.exit(perform())
