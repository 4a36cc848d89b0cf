"""HAProxy dies or hangs under a real ``sentinel run``: what is killed, started, and told.

One daemon lives through several faults, as it does in life.
"""

from __future__ import annotations

import signal

import pytest
from daemons import Node, supervising
from haproxies import wait_until

pytestmark = pytest.mark.real


def test_deaths_are_mended_one_after_another(node: Node) -> None:
    """All processes, the worker alone, the master alone: each death is one start, no more."""
    with supervising(node) as sentinel:
        for number, role in enumerate(("all", "worker", "master"), start=1):
            pids = {"all": node.pids, "worker": (node.worker,), "master": (node.master,)}
            node.signal(signal.SIGKILL, *pids[role])
            sentinel.wait_for("haproxy.died")
            sentinel.wait_for("haproxy.restarted")
            sentinel.wait_for("phase.changed", to="UP")
            assert node.answers()
            assert len(node.masters) == 1
            assert node.calls("haproxy-start") == number
            wait_until(lambda: node.leased == "OK", "the lease says OK again")
            assert node.tracked == "0"
            assert node.hook() == 0
        assert node.calls("keepalived-stop") == 0
