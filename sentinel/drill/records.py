"""What was seen of one fault, and the arithmetic on it. Pure.

All times are seconds of CLOCK_MONOTONIC, which every process of the machine shares; in a Finding
they are counted from the moment of the fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import combinations, pairwise, product
from typing import Any, Final

#: The neighbours know where a VIP is at the latest so long after it has come; and on a busy machine
#: it is seen so much later that it has.
MOVE_S: Final = 0.02


class Outcome(StrEnum):
    """How a fault ended."""

    REACHED = "reached"
    MISSED = "missed"
    SKIPPED = "skipped"


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

    def says(self, words: str) -> bool:
        """Tell whether it says *words*: ``NAME``, or ``NAME KEY=VALUE`` of one word each."""
        name, *pairs = words.split()
        return name == self.name and set(pairs) <= set(self.text.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that the drill itself did: the fault, the healing."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """All that was seen of one fault; times count from the fault, which is 0.

    *reasons* say why it was missed or skipped. *usual_ms* is the longest gap between good answers
    before the fault: how noisy the machine is.
    """

    fault: str
    title: str
    expected: str
    outcome: Outcome
    reasons: tuple[str, ...]
    begun_s: float = 0.0
    ended_s: float = 0.0
    usual_ms: float = 0.0
    outage_ms: float = 0.0
    requests: int = 0
    failed: int = 0
    slowest_ms: float = 0.0
    answers: tuple[Answer, ...] = ()
    holdings: tuple[Holding, ...] = ()
    events: tuple[Event, ...] = ()
    marks: tuple[Mark, ...] = ()

    @classmethod
    def skipped(cls, fault: str, title: str, reason: str) -> Finding:
        """Return what is to be said of a fault that could not be tried."""
        return cls(
            fault=fault, title=title, expected="", outcome=Outcome.SKIPPED, reasons=(reason,)
        )

    def story(self) -> Iterator[str]:
        """Yield what the drill did, who held the VIP and what each node said, in its order."""
        told = [(mark.at_s, "", f"--- {mark.text}") for mark in self.marks]
        told += [(event.at_s, event.node, f"{event.name} {event.text}") for event in self.events]
        told += [
            (holding.at_s, holding.node, "has the VIP" if holding.held else "has the VIP no more")
            for holding in self.holdings
        ]
        for at_s, node, text in sorted(told):
            if at_s >= 0:
                yield f"{at_s:+9.3f} s  {node:7} {text}".rstrip()

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


def longest_shared_s(holdings: Sequence[Holding], since_s: float, end_s: float) -> float:
    """Return for how long at the most two nodes held the VIP at once after *since_s*."""
    nodes = sorted({holding.node for holding in holdings})
    held = [list(spans(holdings, node, end_s)) for node in nodes]
    return max(
        (
            min(first[1], second[1]) - max(first[0], second[0], since_s)
            for one, other in combinations(held, 2)
            for first, second in product(one, other)
        ),
        default=0.0,
    )


def failed_apart(answers: Iterable[Answer], holdings: Sequence[Holding]) -> list[Answer]:
    """Return the failed requests that were not under way when the VIP came or went.

    VRRP hands over an address and no connections: those end with the address.
    """
    moves_s = [holding.at_s for holding in holdings]
    return [
        answer
        for answer in answers
        if not answer.good
        and not any(
            answer.at_s - answer.took_ms / 1000 - MOVE_S <= at_s <= answer.at_s + MOVE_S
            for at_s in moves_s
        )
    ]
