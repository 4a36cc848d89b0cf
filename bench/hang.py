"""How long a hung HAProxy keeps the VIP, and how long until it serves again.

    python bench/hang.py [--runs 10] [--json FILE] [--journal]

One node under a real systemd with sentinel as shipped and its default settings. All haproxy
processes are stopped (SIGSTOP): they live, listen and answer nothing. From outside the node, lease
and track file are read every millisecond until both say FAIL; a client asks every 10 ms until it is
served again. systemd alone would never notice. Exit 1 when the node yields later than after 1 s, or
serves again later than after 2 s (medians; the table has the greatest as well).
"""

from __future__ import annotations

import signal
import sys
import time
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Final

from client import Client
from node import SETTLE_S, Files, bench, signal_haproxy, with_sentinel
from report import Report, Target, spread

if TYPE_CHECKING:
    from lab.node import Node

POLL_S: Final = 0.001
DEADLINE_S: Final = 30.0
YIELDED: Final = "lease and track file say FAIL after"
SERVED: Final = "the client is served again after"
FAILED: Final = "failed requests"
YIELD_MAX_MS: Final = 1000.0
SERVE_MAX_MS: Final = 2000.0


def hang(node: Node, client: Client) -> dict[str, float]:
    """Stop HAProxy and wait until it serves again."""
    files = Files(node)
    stopped_s = time.monotonic()
    signal_haproxy(node, signal.SIGSTOP)
    while not files.read().yields:
        assert time.monotonic() - stopped_s < DEADLINE_S, "sentinel does not yield"
        time.sleep(POLL_S)
    yielded_s = time.monotonic()
    client.wait_served(yielded_s)
    outage = client.outage(stopped_s)
    return {
        YIELDED: (yielded_s - stopped_s) * 1000,
        SERVED: (outage.ended_s - stopped_s) * 1000,
        FAILED: outage.failed,
    }


def measure(node: Node, client: Client, runs: int) -> dict[str, list[float]]:
    """Return the samples by name."""
    samples: dict[str, list[float]] = defaultdict(list)
    for run in range(runs):
        with_sentinel(node)
        client.wait_served(time.monotonic())
        time.sleep(SETTLE_S + run / runs)  # at every moment of a check's second
        for name, sample in hang(node, client).items():
            samples[name].append(sample)
    return samples


def conclusion(samples: dict[str, list[float]], runs: int) -> Report:
    """Judge by medians."""
    limits = {YIELDED: YIELD_MAX_MS, SERVED: SERVE_MAX_MS}
    return Report(
        name="hang",
        title=f"SIGSTOP of all haproxy processes, default settings, {runs} runs, ms",
        header=("", "median", "least", "greatest", "limit", "of the limit"),
        rows=tuple(
            (name, *spread(samples[name]), f"{limit:.0f}", f"{median(samples[name]) / limit:.2f}")
            for name, limit in limits.items()
        ),
        targets=tuple(
            Target(what=name, figure=median(samples[name]), limit=limit, unit="ms")
            for name, limit in limits.items()
        ),
        notes=(f"requests lost (median): {median(samples[FAILED]):.0f}",),
        samples=dict(samples),
    )


if __name__ == "__main__":
    sys.exit(bench(__doc__, measure, conclusion))
