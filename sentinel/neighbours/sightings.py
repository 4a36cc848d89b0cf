"""Who was seen beside this node, and for how long: what makes a passer-by a rival.

Pure. In the moment of a hand-over both nodes may be heard, and a MASTER that hears a better one
gives up within an advert interval: a rival counts when it was seen twice, at least one advert
interval and a second apart. It has gone when nothing was seen of it for as long as keepalived waits
for a silent MASTER, three advert intervals, and a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sentinel.vrrp import Rival

GRACE_S: Final = 1.0
SILENT_INTERVALS: Final = 3
#: More at once are not told apart; one is alarm enough.
RIVALS_MAX: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sighting:
    rival: Rival
    first_s: float
    last_s: float


class Sightings:
    """What was seen beside one instance. All times are of one clock that does not step."""

    def __init__(self, advert_int_s: float) -> None:
        """Begin with nothing seen; *advert_int_s* is the instance's."""
        self.confirm_s: float = advert_int_s + GRACE_S
        self._gone_s: float = SILENT_INTERVALS * advert_int_s + GRACE_S
        self._seen: dict[tuple[str, str, str], _Sighting] = {}

    def note(self, rival: Rival, now_s: float) -> bool:
        """Note that *rival* was seen now; tell whether that is news: it is new, or counts now."""
        key = (rival.how, rival.address, rival.mac)
        known = self._seen.get(key)
        if known is None:
            if len(self._seen) >= RIVALS_MAX:
                return False
            known = _Sighting(rival=rival, first_s=now_s, last_s=now_s)
            self._seen[key] = known
            return True
        self._seen[key] = seen = replace(known, rival=rival, last_s=now_s)
        return self._counts(seen) and not self._counts(known)

    def forget(self, now_s: float) -> None:
        """Drop those of which nothing was seen for long enough."""
        self._seen = {
            key: seen for key, seen in self._seen.items() if now_s - seen.last_s <= self._gone_s
        }

    @property
    def rivals(self) -> tuple[Rival, ...]:
        """Those that count."""
        return tuple(seen.rival for seen in self._seen.values() if self._counts(seen))

    @property
    def suspects(self) -> tuple[Rival, ...]:
        """All that were seen, whether they count yet or not."""
        return tuple(seen.rival for seen in self._seen.values())

    def _counts(self, seen: _Sighting) -> bool:
        return seen.last_s - seen.first_s >= self.confirm_s
