"""The outage that ``kill -9`` of all haproxy processes makes: systemd alone, and with sentinel.

    python bench/crash.py [--runs 10] [--json FILE] [--journal]

One node under a real systemd; a client in its network asks every 10 ms, each time over a new
connection. In every round HAProxy is killed once under Debian's unit as the package brings it
(Restart=always, RestartSec=100ms) and once with sentinel as shipped, and the yardsticks are
measured: a plain start of HAProxy to its first answer, and one ``systemctl start``. Exit 1 when
sentinel takes longer than 1.5 starts and one ``systemctl start``, or than systemd alone.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from client import Client, Outage
from node import (
    PORT,
    SETTLE_S,
    Preparation,
    bench,
    signal_haproxy,
    systemd_alone,
    with_sentinel,
)
from report import Report, Target, spread

if TYPE_CHECKING:
    from lab.node import Node

STARTS: Final = Path(__file__).parent / "starts.py"
ALONE: Final = "outage, systemd's Restart=always alone"
SENTINEL: Final = "outage, with sentinel"
START: Final = "yardstick: haproxy -W to its first answer"
SYSTEMCTL: Final = "yardstick: systemctl start haproxy"
CALM: Final = "longest gap in as long a time without a fault"
FAILED: Final = "failed requests: "
WAYS: Final[dict[str, Preparation]] = {ALONE: systemd_alone, SENTINEL: with_sentinel}


def crash(node: Node, client: Client) -> Outage:
    """Kill HAProxy and wait until it serves again."""
    killed_s = time.monotonic()
    signal_haproxy(node, signal.SIGKILL)
    client.wait_served(time.monotonic())
    return client.outage(killed_s)


def yardsticks(node: Node) -> dict[str, float]:
    """Time the two starts, in the node."""
    node.run("systemctl", "stop", "sentinel", "haproxy")
    node.run("systemctl", "reset-failed")
    times = node.run("python3", "-", str(PORT), stdin=STARTS.read_text(), timeout_s=60.0).stdout
    systemctl_ms, start_ms = map(float, times.split())
    return {SYSTEMCTL: systemctl_ms, START: start_ms}


def calm_ms(client: Client) -> float:
    """Return the longest gap while nothing happens: so much is the client's own."""
    begun_s = time.monotonic()
    client.wait_served(begun_s)
    return client.outage(begun_s).lasted_ms


def measure(node: Node, client: Client, runs: int) -> dict[str, list[float]]:
    """Return the samples in milliseconds by name; every round turns the order round."""
    samples: dict[str, list[float]] = defaultdict(list)
    for round_ in range(runs):
        for name, sample_ms in yardsticks(node).items():
            samples[name].append(sample_ms)
        for name in sorted(WAYS, reverse=round_ % 2 == 0):
            WAYS[name](node)
            client.wait_served(time.monotonic())
            time.sleep(SETTLE_S + round_ / runs)  # at every moment of a check's second
            samples[CALM].append(calm_ms(client))
            outage = crash(node, client)
            samples[name].append(outage.lasted_ms)
            samples[FAILED + name].append(outage.failed)
    return samples


def conclusion(samples: dict[str, list[float]], runs: int) -> Report:
    """Judge by medians."""
    medians = {name: median(found) for name, found in samples.items()}
    limit_ms = 1.5 * medians[START] + medians[SYSTEMCTL]
    rows = [
        (name, *spread(samples[name]), f"{medians[name] / limit_ms:.2f}",
         f"{medians[name] / medians[ALONE]:.2f}")
        for name in (SENTINEL, ALONE, START, SYSTEMCTL, CALM)
    ]  # fmt: skip
    faster = sum(map(float.__lt__, samples[SENTINEL], samples[ALONE]))
    lost = {name: median(samples[FAILED + name]) for name in WAYS}
    return Report(
        name="crash",
        title=f"kill -9 of all haproxy processes under systemd, {runs} runs of each, ms",
        header=("", "median", "least", "greatest", "of the limit", "of systemd's"),
        rows=tuple(rows),
        targets=(
            Target(
                what="outage with sentinel, beside 1.5 starts and one systemctl start",
                figure=medians[SENTINEL],
                limit=limit_ms,
                unit="ms",
            ),
            Target(
                what="outage with sentinel, beside systemd's Restart=always alone",
                figure=medians[SENTINEL],
                limit=medians[ALONE],
                unit="ms",
            ),
        ),
        notes=(
            f"sentinel's was the shorter outage in {faster} of {runs} rounds",
            f"requests lost (median): {lost[SENTINEL]:.0f}, and {lost[ALONE]:.0f} by systemd alone",
            "sentinel's drop-in for haproxy.service leaves RestartSec= as Debian has it",
        ),
        samples=dict(samples),
    )


if __name__ == "__main__":
    sys.exit(bench(__doc__, measure, conclusion))
