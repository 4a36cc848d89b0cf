"""Findings of a drill that never was, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from sentinel.drill.records import Answer, Event, Finding, Holding, Mark, Outcome


def finding(**changes: Any) -> Finding:
    """Return a finding in which the VIP went to the backup and came back; change what matters."""
    values: dict[str, Any] = {
        "fault": "haproxy-killed",
        "title": "HAProxy is killed",
        "expected": "in the end: VIP on the master alone",
        "outcome": Outcome.REACHED,
        "reasons": (),
        "begun_s": -1.0,
        "ended_s": 2.0,
        "usual_ms": 12.0,
        "outage_ms": 300.0,
        "requests": 3,
        "failed": 1,
        "slowest_ms": 12.5,
        "answers": (
            Answer(at_s=-0.5, took_ms=1.0, good=True),
            Answer(at_s=0.1, took_ms=250.0, good=False),
            Answer(at_s=0.2, took_ms=12.5, good=True),
            Answer(at_s=1.9, took_ms=2.0, good=True),
        ),
        "holdings": (
            Holding(at_s=-2.0, node="master", held=True),
            Holding(at_s=0.01, node="master", held=False),
            Holding(at_s=0.02, node="backup", held=True),
            Holding(at_s=1.0, node="backup", held=False),
            Holding(at_s=1.01, node="master", held=True),
        ),
        "events": (
            Event(
                at_s=0.01,
                node="master",
                level="error",
                name="haproxy.died",
                text="reason=<killed>",
            ),
            Event(
                at_s=0.02,
                node="backup",
                level="info",
                name="keepalived",
                text="(VI_1) Entering MASTER STATE",
            ),
        ),
        "marks": (Mark(at_s=0.0, text="HAProxy is killed"),),
    }
    return Finding(**{**values, **changes})
