"""What is seen in a world, as it comes in: lines of text become records, and what is so now."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from sentinel.drill.records import Answer, Event, Holding, Mark

#: The client is content when everything in so long a time was answered well.
CONTENT_S: Final = 0.3
_ENOUGH: Final = 3  # answers, to say anything
_RECENT: Final = 100
_EVENT: Final = 3  # TIME LEVEL NAME


_VERDICT: Final = re.compile(r'from=(?:"[^"]*"|\S+) to=(?:"([^"]*)"|(\S+))')
#: A line older than this was stamped before the machine's clock was set.
_AGE_MAX_S: Final = 1.0


class Witness:
    """Hears the client, the nodes' addresses, sentinel and keepalived; *vip* is the address."""

    def __init__(self, vip: str) -> None:
        self._vip: Final = vip
        self.answers: Final[list[Answer]] = []
        self.holdings: Final[list[Holding]] = []
        self.events: Final[list[Event]] = []
        self.marks: Final[list[Mark]] = []
        self.last_words: Final[dict[str, str]] = {}  # of a node's sentinel, which are no event

    # --- hearing --------------------------------------------------------------------------------

    def hear_client(self, line: str) -> None:
        """Take one line of the client, ``END TOOK GOOD``."""
        at, took, good = line.split()
        self.answers.append(Answer(at_s=float(at), took_ms=float(took), good=good == "1"))

    def hear_address(self, node: str, line: str) -> None:
        """Take one line of ``ip -o -ts monitor address``: ``[TIME] Deleted ...``."""
        stamp, _, words = line.partition(" ")
        if f" {self._vip}/" in words:
            held = not words.startswith("Deleted")
            at_s = time.monotonic() - _age_s(stamp.strip("[]"))
            self.holdings.append(Holding(at_s=at_s, node=node, held=held))

    def hear_loss(self, node: str) -> None:
        """A node is no more, and holds nothing."""
        if node in self.holders():
            self.holdings.append(Holding(at_s=time.monotonic(), node=node, held=False))

    def hear_sentinel(self, node: str, line: str) -> None:
        """Take one line of sentinel's stderr, ``TIME LEVEL NAME KEY=VALUE...``.

        Anything else is how a sentinel ends that cannot even begin.
        """
        words = line.split(maxsplit=_EVENT)
        if len(words) >= _EVENT and words[0].endswith("Z"):
            self._take(node, words[1], words[2], "".join(words[_EVENT:]))
        elif line:
            self.last_words[node] = line

    def hear_keepalived(self, node: str, line: str) -> None:
        """Take one line that keepalived logs; its VRRP states are of interest."""
        if "Entering" in line and " STATE" in line:
            self._take(node, "info", "keepalived", line.partition("]: ")[2])

    def _take(self, node: str, level: str, name: str, text: str) -> None:
        now_s = time.monotonic()
        self.events.append(Event(at_s=now_s, node=node, level=level, name=name, text=text))

    def mark(self, text: str) -> float:
        """Note what the drill does now; return the time."""
        now_s = time.monotonic()
        self.marks.append(Mark(at_s=now_s, text=text))
        return now_s

    # --- what is so -----------------------------------------------------------------------------

    def holders(self) -> frozenset[str]:
        """Return the nodes that hold the VIP now."""
        latest = {holding.node: holding.held for holding in self.holdings}
        return frozenset(node for node, held in latest.items() if held)

    def serving(self) -> bool:
        """Tell whether the client is content now."""
        since_s = time.monotonic() - CONTENT_S
        recent = [answer for answer in self.answers[-_RECENT:] if answer.at_s > since_s]
        return len(recent) >= _ENOUGH and all(answer.good for answer in recent)

    def verdicts(self) -> dict[str, str]:
        """Return what each node's sentinel last told keepalived, in its words."""
        changes = (event for event in self.events if event.name == "verdict.changed")
        found = ((event.node, _VERDICT.match(event.text)) for event in changes)
        return {node: match[1] or match[2] for node, match in found if match is not None}

    def told(self, node: str, since_s: float = 0.0) -> Iterator[Event]:
        """Yield what was said on a node since then."""
        for event in self.events:
            if event.node == node and event.at_s >= since_s:
                yield event

    def lost(self, node: str, since_s: float, until_s: float) -> bool:
        """Tell whether a node lost the VIP in that time."""
        return any(
            holding.node == node and not holding.held and since_s <= holding.at_s < until_s
            for holding in self.holdings
        )


def _age_s(stamp: str) -> float:
    """Return how long ago *stamp* (ISO 8601, local time) was; on a busy machine lines come late."""
    age_s = time.time() - datetime.fromisoformat(stamp).timestamp()
    return age_s if 0 <= age_s <= _AGE_MAX_S else 0.0
