"""What the daemon takes of memory and CPU while all is well, beside the script it replaces.

    python bench/daemon.py [--seconds 30] [--runs 5] [--json FILE]

sentinel as users start it, with default intervals: a real HAProxy with 2 frontends and 10 servers,
all of them probed; plain commands instead of systemd, so that it needs no root. Every run starts
the daemon anew, lets it settle and reads its CPU and that of its children from /proc over so many
seconds. Beside it, in every run, the original check and the hook, as keepalived runs them every two
seconds. Exit 1 when the daemon takes more than 45 MB or more than 1 % of one core.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from backends import SERVERS, haproxy, pools
from client import wait_until
from hook import run_round, write_commands
from report import Report, Target, arguments, conclude, spread

#: Lease and track file are on one, as /run is.
TMPFS: Final = "/dev/shm"  # noqa: S108  (a folder of our own is made there)
SETTLE_S: Final = 5.0
#: How often keepalived calls its script.
CALL_EVERY_S: Final = 2.0
CALLS: Final = 20
RSS_MAX_MB: Final = 45.0
CPU_MAX: Final = 1.0
RSS: Final = "sentinel, RSS, MB"
PSS: Final = "sentinel, PSS, MB"
IDLE_RSS: Final = "an asyncio loop that only wakes up, RSS, MB"
IDLE_CPU: Final = "an asyncio loop that only wakes up 10 times a second, % of one core"
CPU: Final = "sentinel, % of one core"
#: The least that a program in Python can take on this machine.
IDLE: Final = """\
import asyncio
async def main():
    while True:
        await asyncio.sleep(0.1)
asyncio.run(main())
"""
HOOK: Final = "its hook every 2 s, % of one core"
ORIGINAL: Final = "chk_haproxy.sh's check every 2 s, % of one core"
BALANCER: Final = """\
global
    stats socket {folder}/admin.sock
    maxconn 200
{pools}
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 1s
frontend one
    bind 127.0.0.1:{one}
    default_backend b0
frontend two
    bind 127.0.0.1:{two}
    default_backend b0
"""
TOML: Final = """\
run_dir = "{folder}"
[haproxy]
manager = "commands"
start = ["/bin/false"]
stop = ["/bin/false"]
config = ["{folder}/haproxy.cfg"]
pidfile = "{folder}/haproxy.pid"
[keepalived]
manager = "commands"
start = ["/bin/false"]
stop = ["/bin/false"]
[hook]
lease_file = "{folder}/lease"
track_file = "{folder}/track"
sign = "{folder}/hook-called"
[log]
target = "none"
[status]
socket = "{folder}/status.sock"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process and its ended children have used."""

    cpu_s: float
    rss_mb: float
    pss_mb: float


def usage(pid: int) -> Usage:
    """Read proc(5): utime, stime, cutime and cstime of stat; Rss and Pss of smaps_rollup."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    memory = dict(re.findall(r"^(Rss|Pss): +(\d+) kB$", rollup, re.MULTILINE))
    return Usage(
        cpu_s=sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK"),
        rss_mb=int(memory["Rss"]) / 1024,
        pss_mb=int(memory["Pss"]) / 1024,
    )


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


@contextmanager
def balancer(folder: Path) -> Iterator[None]:
    """Run the HAProxy that is supervised, as an init script starts it."""
    one, two = free_ports(2)
    config, pidfile = folder / "haproxy.cfg", folder / "haproxy.pid"
    config.write_text(BALANCER.format(folder=folder, pools=pools(10), one=one, two=two))
    subprocess.run(["/usr/sbin/haproxy", "-W", "-D", "-p", pidfile, "-f", config], check=True)
    try:
        yield
    finally:
        os.kill(int(pidfile.read_text()), signal.SIGTERM)


@contextmanager
def running(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends; what it says of itself is not shown."""
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def one_run(folder: Path, seconds: float) -> dict[str, float]:
    """Run the daemon for so long and return what it took, beside the others."""
    (folder / "lease").unlink(missing_ok=True)
    command = (sys.executable, "-m", "sentinel", "run", "--config", str(folder / "sentinel.toml"))
    with running(*command) as daemon, running(sys.executable, "-c", IDLE) as idle:
        wait_until(lambda: serves(folder), "sentinel finds HAProxy serving")
        time.sleep(SETTLE_S)
        begun_s, before, idle_before = time.monotonic(), usage(daemon.pid), usage(idle.pid)
        time.sleep(seconds)
        after, idle_after = usage(daemon.pid), usage(idle.pid)
        lasted_s = time.monotonic() - begun_s
        assert serves(folder), "HAProxy is well until the end"
    found = {
        RSS: after.rss_mb,
        PSS: after.pss_mb,
        IDLE_RSS: idle_after.rss_mb,
        CPU: (after.cpu_s - before.cpu_s) / lasted_s * 100,
        IDLE_CPU: (idle_after.cpu_s - idle_before.cpu_s) / lasted_s * 100,
    }
    return found | calls()


def serves(folder: Path) -> bool:
    """Tell what the lease says."""
    lease = folder / "lease"
    return lease.exists() and lease.read_text().startswith("OK ")


def calls() -> dict[str, float]:
    """Return what the scripts take of a core when each is called at keepalived's pace."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        commands = write_commands(folder)
        return {
            name: run_round(commands[command], folder, CALLS).cpu_ms / (CALL_EVERY_S * 1000) * 100
            for name, command in ((HOOK, "hook, lease good"), (ORIGINAL, "original ps|grep"))
        }


def conclusion(samples: dict[str, list[float]], runs: int, seconds: float) -> Report:
    """Judge by medians."""
    medians = {name: median(found) for name, found in samples.items()}
    processes = sum(entry.name.isdigit() for entry in Path("/proc").iterdir())
    ratio = (medians[CPU] + medians[HOOK]) / medians[ORIGINAL]
    return Report(
        name="daemon",
        title=(
            "The daemon with 2 frontends, 10 servers and default intervals,"
            f" {runs} runs of {seconds:g} s"
        ),
        header=("", "median", "least", "greatest"),
        rows=tuple(
            (name, *spread(samples[name], 1 if name.endswith("MB") else 2)) for name in samples
        ),
        targets=(
            Target(what=RSS, figure=medians[RSS], limit=RSS_MAX_MB, unit="MB"),
            Target(what=CPU, figure=medians[CPU], limit=CPU_MAX, unit="%"),
        ),
        notes=(
            f"daemon and hook take {ratio:.2f} times the CPU of the check they replace",
            f"which looks at {processes} processes here",
        ),
        samples=dict(samples),
    )


def main() -> int:
    """Measure, print, judge."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    if shutil.which("hyperfine") is None:
        parser.error("hyperfine is needed: apt install hyperfine")
    samples: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=TMPFS)))
        (folder / "sentinel.toml").write_text(TOML.format(folder=folder))
        stack.enter_context(haproxy(SERVERS, folder / "servers.cfg"))
        stack.enter_context(balancer(folder))
        for _ in range(options.runs):
            for name, sample in one_run(folder, options.seconds).items():
                samples[name].append(sample)
    return conclude(conclusion(samples, options.runs, options.seconds), options.json)


if __name__ == "__main__":
    sys.exit(main())
