"""What was seen of one fault, and the arithmetic on it. Pure.

All times are seconds of CLOCK_MONOTONIC, which every process of the machine shares; in a Finding
they are counted from the moment of the fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any


class Outcome(StrEnum):
    """How a fault ended."""

    REACHED = "reached"
    LIMITATION = "known limitation"
    MISSED = "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One request of the client: when it ended, how long it took, whether the answer was good."""

    at_s: float
    took_ms: float
    good: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A node has got the VIP (*held*) or lost it."""

    at_s: float
    node: str
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a node's sentinel or keepalived."""

    at_s: float
    node: str
    level: str
    name: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that the drill itself did: the fault, the healing."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """All that was seen of one fault; times count from the fault, which is 0.

    *usual_ms* is the longest gap between good answers before the fault: how noisy the machine is.
    """

    fault: str
    title: str
    expected: str
    outcome: Outcome
    reasons: tuple[str, ...]
    limitation: str
    begun_s: float
    ended_s: float
    usual_ms: float
    outage_ms: float
    requests: int
    failed: int
    slowest_ms: float
    answers: tuple[Answer, ...]
    holdings: tuple[Holding, ...]
    events: tuple[Event, ...]
    marks: tuple[Mark, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can say."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Finding:
        """Read what ``to_json`` wrote."""
        return cls(
            **{
                **document,
                "outcome": Outcome(document["outcome"]),
                "reasons": tuple(document["reasons"]),
                "answers": tuple(Answer(**entry) for entry in document["answers"]),
                "holdings": tuple(Holding(**entry) for entry in document["holdings"]),
                "events": tuple(Event(**entry) for entry in document["events"]),
                "marks": tuple(Mark(**entry) for entry in document["marks"]),
            }
        )


def outage_ms(answers: Iterable[Answer], since_s: float, until_s: float) -> float:
    """Return the longest gap between good answers that touches the time after *since_s*.

    The last good answer before *since_s* opens the first gap; a client that never gets another one
    has an outage until *until_s*.
    """
    good_s = sorted(answer.at_s for answer in answers if answer.good and answer.at_s <= until_s)
    before_s = [at_s for at_s in good_s if at_s < since_s]
    times_s = [*(before_s[-1:] or [since_s]), *(at_s for at_s in good_s if at_s >= since_s)]
    return max(later - earlier for earlier, later in pairwise([*times_s, until_s])) * 1000


def shifted(times: Sequence[Any], by_s: float) -> tuple[Any, ...]:
    """Return records with their times counted from *by_s*, to the microsecond, in order."""
    moved = (replace(entry, at_s=round(entry.at_s - by_s, 6)) for entry in times)
    return tuple(sorted(moved, key=lambda entry: entry.at_s))


def spans(holdings: Iterable[Holding], node: str, end_s: float) -> Iterator[tuple[float, float]]:
    """Yield from when to when *node* held the VIP; what it still holds ends at *end_s*."""
    since_s: float | None = None
    for holding in holdings:
        if holding.node != node:
            continue
        if holding.held and since_s is None:
            since_s = holding.at_s
        elif not holding.held and since_s is not None:
            yield since_s, holding.at_s
            since_s = None
    if since_s is not None:
        yield since_s, end_s
