"""What the backends check costs in CPU with 10 and with 1,000 servers, opinion and probes apart.

    python bench/backends.py [--runs 5] [--json FILE]

One real HAProxy plays the servers, on addresses of 127.1.0.0/16; another one lists them as its own,
ten in a pool. Shown is the median over the runs of the CPU (user + system) and the duration of one
run of the check, with default settings: first HAProxy's opinion alone, then with direct probes.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from report import Report, arguments, conclude, spread

from sentinel.checks.backends import BackendsCheck
from sentinel.checks.http import look
from sentinel.config import Backends
from sentinel.model import Code, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The cells of one row of the table.
Row = tuple[str, ...]
PORT: Final = 21500
START_S: Final = 10.0
SERVERS: Final = f"""\
defaults
    mode http
    timeout client 10s
frontend fe
    bind 0.0.0.0:{PORT}
    http-request return status 200
"""


@contextmanager
def haproxy(config: str, file: Path) -> Iterator[str]:
    """Run HAProxy until the block ends; yields the path of its stats socket."""
    stats = file.with_suffix(".sock")
    file.write_text(f"global\n    stats socket {stats}\n{config}")
    process = subprocess.Popen(["/usr/sbin/haproxy", "-db", "-f", str(file)])
    try:
        deadline_s = time.monotonic() + START_S
        while not (stats.exists() and answers()) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        yield str(stats)
    finally:
        process.kill()
        process.wait()


def answers() -> bool:
    """Tell whether the servers take connections."""
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", PORT)):
        return True
    return False


def pools(servers: int) -> str:
    """Return a configuration with so many servers, ten in a pool."""
    lines = ["defaults", "    mode http", "    timeout connect 1s", "    timeout server 1s"]
    for number in range(servers):
        if number % 10 == 0:
            lines.append(f"backend b{number // 10}")
        lines.append(f"    server s{number} 127.1.{number // 250}.{number % 250 + 1}:{PORT}")
    return "\n".join([*lines, ""])


async def measure(stats: str, settings: Backends, runs: int) -> tuple[list[float], list[float]]:
    """Return the CPU and the duration of every run, in milliseconds."""
    check = BackendsCheck(lambda: stats, settings, look)
    wanted = Code.L7OK if settings.probe else None
    await check()
    cpu_ms, took_ms = [], []
    for _ in range(runs):
        begun_s = time.process_time()
        seen = await check()
        cpu_ms.append((time.process_time() - begun_s) * 1000)
        took_ms.append(seen.duration_ms)
        assert seen.verdict is Verdict.PASS, seen.detail
        assert isinstance(seen.view, tuple)
        odd = {s.probe_detail for pool in seen.view for s in pool.servers if s.probe is not wanted}
        assert not odd, odd
    return cpu_ms, took_ms


def row(servers: int, settings: Backends, cpu_ms: list[float], took_ms: list[float]) -> Row:
    """Return one row of the table; the last figure is a share of a core at the default pace."""
    name = f"{servers:,} servers, {'opinion and probes' if settings.probe else 'opinion alone'}"
    median_ms = statistics.median(cpu_ms)
    core = median_ms / 1000 / settings.pace.inter_s
    took = f"{statistics.median(took_ms):.1f}"
    return (name, *spread(cpu_ms, 1), took, f"{median_ms / servers:.3f}", f"{core:.2%}")


def main() -> int:
    """Measure and print a table."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    rows, samples = [], {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(haproxy(SERVERS, folder / "servers.cfg"))
        for servers in (10, 1000):
            with haproxy(pools(servers), folder / f"balancer{servers}.cfg") as stats:
                for probe in (False, True):
                    settings = Backends(probe=probe)
                    cpu_ms, took_ms = asyncio.run(measure(stats, settings, options.runs))
                    rows.append(row(servers, settings, cpu_ms, took_ms))
                    samples[rows[-1][0]] = cpu_ms
    report = Report(
        name="backends",
        title="One run of the backends check, CPU ms",
        header=("", "median", "least", "greatest", "took ms", "a server", "of a core"),
        rows=tuple(rows),
        samples=samples,
    )
    return conclude(report, options.json)


if __name__ == "__main__":
    sys.exit(main())
