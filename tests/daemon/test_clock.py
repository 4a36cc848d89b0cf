"""CLOCK_REALTIME steps while sentinel runs: what people read changes, and nothing else does.

libfaketime gives the daemon, and what it starts, a wall clock of the test's own; HAProxy and the
test keep the machine's. Files keep the kernel's times.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, Node, supervising
from haproxies import wait_until

from sentinel.config import Hook

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
HOUR_S = 3600
DAY_S = 24 * HOUR_S
#: Steps are told apart by much less than an hour, and a loaded machine takes less than this.
SLACK_S = 600

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime (Debian's package faketime)"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WallClock:
    """A wall clock that can be stepped; *env* lets a process read it, and leave the others."""

    file: Path

    @property
    def env(self) -> dict[str, str]:
        """Without DONT_FAKE_MONOTONIC the library steps CLOCK_MONOTONIC and CLOCK_BOOTTIME, too."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def step_to(self, ahead_s: int) -> None:
        """Let the clock be so far ahead of the machine's from now on; behind it when negative."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{ahead_s:+d}\n")
        new.rename(self.file)


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[WallClock]:
    """Give a clock that agrees with the machine's."""
    clock = WallClock(file=tmp_path / "faketime")
    clock.step_to(0)
    before = shared_memory()
    yield clock
    for path in shared_memory() - before:  # of processes that were killed
        path.unlink()


def shared_memory() -> set[Path]:
    """Return what libfaketime has in shared memory."""
    return set(Path("/dev/shm").glob("*faketime_s*"))


def shows(iso: str, ahead_s: int) -> bool:
    """Tell whether that time was read just now, from a clock so far ahead."""
    found_s = (datetime.fromisoformat(iso) - datetime.now(UTC)).total_seconds()
    return abs(found_s - ahead_s) < SLACK_S


def boottime_s() -> float:
    """Return what the hook reads, by the test's own clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_READ_CLOCKS = """\
import time
for line in iter(input, ""):
    clocks = (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)
    print(*map(time.clock_gettime, clocks), flush=True)
"""


@pytest.mark.parametrize("step_s", [HOUR_S, -DAY_S])
def test_the_library_steps_the_wall_clock_alone(clock: WallClock, step_s: int) -> None:
    """What the other tests rest on: CLOCK_MONOTONIC and CLOCK_BOOTTIME stay the kernel's."""
    others = (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)
    with subprocess.Popen(
        [sys.executable, "-c", _READ_CLOCKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clock.env,
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        for expected_s in (0, step_s):
            clock.step_to(expected_s)
            before = [time.clock_gettime(each) for each in others]
            reader.stdin.write("read\n")
            reader.stdin.flush()
            wall_s, *seen = map(float, reader.stdout.readline().split())
            after = [time.clock_gettime(each) for each in others]
            assert abs(wall_s - time.time() - expected_s) < SLACK_S
            assert all(a <= b <= c for a, b, c in zip(before, seen, after, strict=True))
        reader.stdin.write("\n")


# --- all is well ----------------------------------------------------------------------------------


def renewals(node: Node, sentinel: Daemon, word: str, count: int = 3) -> None:
    """Let the lease be renewed *count* times; it always says *word*, and is good for its time."""
    lease_s = Hook().lease_s
    for _ in range(count):
        asked_s = boottime_s()
        sentinel.wait_for_steps(1)
        said, deadline_cs = (node.folder / "lease").read_text().split()
        assert said == word
        assert asked_s + lease_s / 2 < int(deadline_cs) / 100 <= boottime_s() + lease_s
        assert node.hook() == (word != "OK")


def every_check_runs(sentinel: Daemon) -> None:
    """Wait until every check, the probe of the frontend among them, has run after now."""
    since_s = boottime_s()

    def ran(document: dict[str, Any]) -> bool:
        passed_ms = (boottime_s() - since_s) * 1000
        return all(0 <= check["age_ms"] < passed_ms for check in document["checks"])

    sentinel.wait_until(ran, "every check runs again")


def test_steps_change_nothing_but_the_time_that_is_shown(node: Node, clock: WallClock) -> None:
    """An hour ahead, then a day back: no event, no transition, no restart; all goes on."""
    with supervising(node, env=clock.env) as sentinel:
        before, said = sentinel.status(), sentinel.names()
        assert shows(before["time"], 0)
        for step_s in (HOUR_S, -DAY_S):
            clock.step_to(step_s)
            renewals(node, sentinel, "OK")
            every_check_runs(sentinel)
            document = sentinel.status()
            assert shows(document["time"], step_s)
            assert (document["overall"], document["phase"]) == ("healthy", "UP")
            for key in ("pid", "restarts", "history"):
                assert ageless(document[key]) == ageless(before[key])
            assert document["haproxy"]["incarnation"] == before["haproxy"]["incarnation"]
            assert document["phase_age_ms"] > before["phase_age_ms"]
            before = document
        assert sentinel.names() == said
        assert (node.calls("haproxy-start"), node.calls("keepalived-stop")) == (0, 0)


@pytest.mark.parametrize("step_s", [HOUR_S, -DAY_S])
def test_it_begins_as_well_after_a_step(node: Node, clock: WallClock, step_s: int) -> None:
    """HAProxy and its pidfile are of a time before; it is found, and nothing is done to it."""
    clock.step_to(step_s)
    with supervising(node, env=clock.env) as sentinel:
        document = sentinel.status()
        assert shows(document["time"], step_s)
        assert document["haproxy"]["worker_pid"] == node.worker
        renewals(node, sentinel, "OK", 1)
        assert (node.calls("haproxy-start"), node.calls("keepalived-stop")) == (0, 0)


def ageless(value: Any) -> Any:
    """Return a history without what changes with time; anything else as it is."""
    if not isinstance(value, list):
        return value
    return [{key: each[key] for key in each.keys() - {"time", "age_ms"}} for each in value]


# --- all is not well ------------------------------------------------------------------------------


def test_a_death_after_a_step_is_mended_as_ever(node: Node, clock: WallClock) -> None:
    """A day back: the start is verified and counted, and told with the time that people see."""
    with supervising(node, env=clock.env) as sentinel:
        clock.step_to(-DAY_S)
        node.start_by("env", "-u", "LD_PRELOAD")
        node.signal(signal.SIGKILL)
        sentinel.wait_for("haproxy.restarted")
        sentinel.wait_for("phase.changed", to="UP")
        (line,) = (line for line in sentinel.text.splitlines() if " haproxy.restarted " in line)
        assert shows(line.split()[0], -DAY_S)
        wait_until(lambda: node.leased == "OK", "the node serves")
        renewals(node, sentinel, "OK", 1)
        assert sentinel.status()["restarts"]["used"] == node.calls("haproxy-start") == 1


def test_a_step_does_not_give_the_budget_back(node: Node, clock: WallClock) -> None:
    """An hour ahead ends no window of a minute, and a day back prolongs none."""
    node.configure(restart={"budget": 2, "window": "1m", "verify": "200ms"})
    with supervising(node, env=clock.env) as sentinel:
        node.command("haproxy-start", "exit 1")
        node.signal(signal.SIGKILL)
        sentinel.wait_for("keepalived.stopped")
        for step_s in (HOUR_S, -DAY_S):
            clock.step_to(step_s)
            renewals(node, sentinel, "FAIL")
            restarts = sentinel.status()["restarts"]
            assert (restarts["used"], node.calls("haproxy-start")) == (2, 2)
            assert sentinel.check("process")["verdict"] == "FAIL"
