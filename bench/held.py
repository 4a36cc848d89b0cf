"""What a crash and a hang cost clients, with listeners that systemd holds and with plain ones.

    python bench/held.py [--runs 10] [--json FILE] [--journal]

One node under a real systemd with sentinel as shipped and its default settings; a client in its
network makes 500 requests a second, each over a new connection, and waits ten seconds for each
answer. In every round HAProxy is killed (kill -9 of all its processes) and hung (SIGSTOP of all of
them), once with listeners of its own and once with those of ``haproxy.socket``, installed and
removed by the README's commands. Exit 1 when held listeners refuse anybody, lose more than what
HAProxy can have accepted before it died or stopped, or answer later than after 200 ms (crash) and
1 s (hang); answers by the median of the runs' slowest, the rest in every run.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from client import Client, wait_until
from node import (
    SETTLE_S,
    Preparation,
    bench,
    haproxy_pids,
    held_listeners,
    plain_listeners,
    signal_haproxy,
    with_sentinel,
)
from report import Report, Target, spread

if TYPE_CHECKING:
    from lab.node import Node

EVERY_MS: Final = "2"
PATIENCE_MS: Final = "10000"
FAULTS: Final = {"kill -9": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}
SLOWEST_MAX_MS: Final = {"kill -9": 200.0, "SIGSTOP": 1000.0}
SLOWEST: Final = "slowest answer, ms"
FAILED: Final = "requests failed"
REFUSED: Final = "of them refused"
AFTER: Final = "of them begun after the fault"
WHAT: Final = (SLOWEST, FAILED, REFUSED, AFTER)
PLAIN: Final = "plain"
HELD: Final = "held"
LISTENERS: Final[dict[str, Preparation]] = {PLAIN: plain_listeners, HELD: held_listeners}


def strike(node: Node, client: Client, number: signal.Signals) -> dict[str, float]:
    """Make a fault and wait until HAProxy serves again; what was in flight began before it."""
    pids = haproxy_pids(node)
    began_s = time.monotonic()
    signal_haproxy(node, number)
    wait_until(lambda: not any(map(active, pids)), "the signal has come to all of them")
    struck_s = time.monotonic()
    client.wait_served(struck_s)
    attempts = client.attempts(began_s)
    failed = [attempt for attempt in attempts if not attempt.good]
    return {
        SLOWEST: max(attempt.took_ms for attempt in attempts if attempt.good),
        FAILED: len(failed),
        REFUSED: sum(attempt.how == "ECONNREFUSED" for attempt in failed),
        AFTER: sum(attempt.begun_s > struck_s for attempt in failed),
    }


def active(pid: int) -> bool:
    """Tell whether a thread of *pid* is neither stopped nor dead; it could still accept."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if stat.read_text().rpartition(") ")[2][0] not in "TZX":
                return True
    return False


def measure(node: Node, client: Client, runs: int) -> dict[str, list[float]]:
    """Return the samples by name; every round turns the order round."""
    samples: dict[str, list[float]] = defaultdict(list)
    for run in range(runs):
        for listeners in sorted(LISTENERS, reverse=run % 2 == 0):
            LISTENERS[listeners](node)
            for fault, number in FAULTS.items():
                with_sentinel(node)
                client.wait_served(time.monotonic())
                time.sleep(SETTLE_S + run / runs)  # at every moment of a check's second
                for what, sample in strike(node, client, number).items():
                    samples[f"{fault}, {listeners}: {what}"].append(sample)
    return samples


def conclusion(samples: dict[str, list[float]], runs: int) -> Report:
    """Judge the slowest answers by their median, losses by the worst run."""
    targets: list[Target] = []
    for fault, limit_ms in SLOWEST_MAX_MS.items():
        name = f"{fault}, {HELD}: {SLOWEST}"
        targets.append(Target(what=name, figure=median(samples[name]), limit=limit_ms, unit="ms"))
        for what in (REFUSED, AFTER):
            name = f"{fault}, {HELD}: {what}"
            figure = max(samples[name])
            targets.append(Target(what=f"{name} (worst run)", figure=figure, limit=0, unit=""))
    return Report(
        name="held",
        title=f"held listeners beside plain ones, 500 requests a second, {runs} runs of each",
        header=("", "median", "least", "greatest"),
        rows=tuple(
            (name, *spread(samples[name]))
            for fault in FAULTS
            for listeners in LISTENERS
            for name in (f"{fault}, {listeners}: {what}" for what in WHAT)
        ),
        targets=tuple(targets),
        notes=(
            "what began before the fault and failed had been accepted by the HAProxy that died",
        ),
        samples=dict(samples),
    )


if __name__ == "__main__":
    sys.exit(bench(__doc__, measure, conclusion, EVERY_MS, PATIENCE_MS))
