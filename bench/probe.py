"""What one probe costs in CPU, beside the usual ways to ask the same, and for 1,000 servers.

    python bench/probe.py [--probes 300] [--rounds 5] [--json FILE]

A real HAProxy answers on loopback. In every round each way probes it so many times, one after
another: sentinel's exchange (tcp, http, https), http.client of the standard library, and a curl
started for each probe, which is what a vrrp_script with curl costs. Then 1,000 targets are probed,
50 at once, as the backends check does. CPU is user + system, of the children for curl; shown is the
median of the rounds. Exit 1 when an http probe takes more than a tenth of curl's CPU.
"""

from __future__ import annotations

import asyncio
import http.client
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from report import Report, Target, arguments, conclude, spread

from sentinel.checks.http import look
from sentinel.config import BACKEND_PACE, Pace, Probe, ProbeType
from sentinel.model import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TARGETS: Final = 1000
AT_ONCE: Final = 50
CPU_SHARE_MAX: Final = 0.1
PORT: Final = 21000
TLS_PORT: Final = PORT + TARGETS
PACE: Final = Pace(timeout_s=30.0)
CONFIG: Final = """\
defaults
    mode http
    timeout client 10s
frontend fe
    bind 127.0.0.1:{first}-{last}
    bind 127.0.0.1:{tls} ssl crt {folder}/site.pem
    http-request return status 200
"""


@contextmanager
def haproxy(folder: Path) -> Iterator[None]:
    """Run HAProxy until the block ends."""
    site = folder / "site.pem"
    subject = "-subj /CN=localhost -days 2 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256"
    subprocess.run(
        ["openssl", "req", "-x509", *subject.split(), "-keyout", f"{site}.key", "-out", site],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    site.write_text(site.read_text() + Path(f"{site}.key").read_text())
    config = folder / "haproxy.cfg"
    config.write_text(
        CONFIG.format(first=PORT, last=PORT + TARGETS - 1, tls=TLS_PORT, folder=folder)
    )
    process = subprocess.Popen(["haproxy", "-db", "-f", config], stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 10
        while process.poll() is None and not listens():
            assert time.monotonic() < deadline_s, "haproxy does not answer"
        assert process.poll() is None, f"haproxy ended; are ports {PORT} to {TLS_PORT} free?"
        yield
    finally:
        process.kill()
        process.wait()


def listens() -> bool:
    """Tell whether HAProxy's last port takes connections."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", TLS_PORT)) == 0


def cpu_ms() -> float:
    """Return the CPU time of this process and its ended children so far."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) * 1000


def one_by_one(probe: Probe) -> Callable[[int], None]:
    """Probe with sentinel, again and again."""

    async def run(probes: int) -> None:
        for _ in range(probes):
            code, detail = await look(probe)
            assert code in {Code.L4OK, Code.L7OK}, detail

    return lambda probes: asyncio.run(run(probes))


def thousand_targets(probe: Probe) -> Callable[[int], None]:
    """Probe each of the targets once, AT_ONCE at a time; the number of probes is theirs."""
    targets = [replace(probe, address=f"127.0.0.1:{PORT + index}") for index in range(TARGETS)]

    async def work(queue: Iterator[Probe]) -> None:
        for target in queue:
            code, detail = await look(target)
            assert code is Code.L7OK, detail

    async def run() -> None:
        queue = iter(targets)
        await asyncio.gather(*(work(queue) for _ in range(AT_ONCE)))

    return lambda _probes: asyncio.run(run())


def with_http_client(port: int, context: ssl.SSLContext | None) -> Callable[[int], None]:
    """Ask with the standard library."""

    def run(probes: int) -> None:
        for _ in range(probes):
            connection = (
                http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
                if context
                else http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            )
            connection.request("HEAD", "/", headers={"Connection": "close"})
            assert connection.getresponse().status == 200
            connection.close()

    return run


def with_curl(url: str) -> Callable[[int], None]:
    """Start a curl for each probe."""

    def run(probes: int) -> None:
        for _ in range(probes):
            subprocess.run(["curl", "-skfI", "-m", "30", "-o", "/dev/null", url], check=True)

    return run


def ways() -> dict[str, Callable[[int], None]]:
    """Return everything that is compared."""
    plain = Probe(address=f"127.0.0.1:{PORT}", pace=PACE)
    secure = replace(plain, type=ProbeType.HTTPS, address=f"127.0.0.1:{TLS_PORT}")
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    return {
        "sentinel tcp": one_by_one(replace(plain, type=ProbeType.TCP)),
        "sentinel http": one_by_one(plain),
        "sentinel https": one_by_one(secure),
        "http.client http": with_http_client(PORT, None),
        "http.client https": with_http_client(TLS_PORT, unverified),
        "curl http": with_curl(f"http://127.0.0.1:{PORT}/"),
        "curl https": with_curl(f"https://127.0.0.1:{TLS_PORT}/"),
        "1,000 http targets": thousand_targets(plain),
    }


def measure(probes: int, rounds: int) -> dict[str, list[float]]:
    """Return the CPU milliseconds of one probe by way, one sample a round."""
    costs: dict[str, list[float]] = {name: [] for name in ways()}
    for round_ in range(rounds + 1):
        for name, run in ways().items():
            times = TARGETS if name.startswith("1,000") else probes
            before_ms = cpu_ms()
            run(times)
            if round_:  # the first warms up
                costs[name].append((cpu_ms() - before_ms) / times)
    return costs


def conclusion(samples: dict[str, list[float]]) -> Report:
    """Judge by medians."""
    costs = {name: statistics.median(found) for name, found in samples.items()}
    rows = []
    for name, cost in costs.items():
        scheme = "https" if name.endswith("https") else "http"
        shares = (cost / costs[f"curl {scheme}"], cost / costs[f"http.client {scheme}"])
        rows.append((name, *spread(samples[name], 3), *(f"{share:.1%}" for share in shares)))
    core = costs["1,000 http targets"] * TARGETS / 1000 / BACKEND_PACE.inter_s
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Report(
        name="probe",
        title="CPU of one probe, ms",
        header=("", "median", "least", "greatest", "of curl", "of http.client"),
        rows=tuple(rows),
        targets=(
            Target(
                what="an http probe's share of a curl's CPU",
                figure=costs["sentinel http"] / costs["curl http"],
                limit=CPU_SHARE_MAX,
                unit="of it",
            ),
        ),
        notes=(
            f"1,000 servers every {BACKEND_PACE.inter_s:g} s: {core:.1%} of one core",
            f"most memory used: {rss_mb:.0f} MB",
        ),
        samples=samples,
    )


def main() -> int:
    """Measure, print, judge."""
    parser = arguments(__doc__)
    parser.add_argument("--probes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for program in ("haproxy", "curl", "openssl"):
        if shutil.which(program) is None:
            parser.error(f"{program} is needed: apt install {program}")
    with tempfile.TemporaryDirectory() as temporary, haproxy(Path(temporary)):
        samples = measure(options.probes, options.rounds)
    return conclude(conclusion(samples), options.json)


if __name__ == "__main__":
    sys.exit(main())
