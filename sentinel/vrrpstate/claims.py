"""What keepalived claims of each instance, put together from its FIFO and its dumps.

The FIFO tells when something changes, and loses lines; a dump tells how things are, a little later.
So the newer of the two is believed, and nothing that was heard before the keepalived of now began.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sentinel.vrrp import Claim, VrrpState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentinel.vrrp import VrrpInstance
    from sentinel.vrrpstate.dump import Level
    from sentinel.vrrpstate.fifo import Notice

#: Names of more instances than a keepalived can have (255 router ids, two families) are noise.
INSTANCES_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """The last word on one instance, and when it was said."""

    claim: Claim
    at_s: float


class Claims:
    """The last claim of every instance; all times are seconds of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def hear(self, notice: Notice, instances: Iterable[VrrpInstance], now_s: float) -> None:
        """Take in a line of the FIFO; a sync group speaks for those of *instances* in it.

        keepalived does not tell of a member what it tells of its group (send_instance_notifies).
        """
        names = [notice.name]
        if notice.is_group:
            names = [instance.name for instance in instances if instance.group == notice.name]
        for name in names:
            self._take(name, notice.state, notice.priority, "FIFO", now_s)

    def learn(self, levels: Iterable[Level], asked_s: float) -> None:
        """Take in a dump that was asked for at *asked_s*; what the FIFO said since is newer."""
        for level in levels:
            known = self._heard.get(level.name)
            if known is None or known.at_s <= asked_s:
                self._take(level.name, level.state, level.priority, "JSON", asked_s)

    def of(self, name: str, born_s: float) -> Claim | None:
        """Return the claim of one instance, of a keepalived that began at *born_s*."""
        known = self._heard.get(name)
        if known is None or known.at_s < born_s:
            return None
        return replace(known.claim, since_s=max(known.claim.since_s, born_s))

    def _take(
        self, name: str, state: VrrpState, priority: int | None, source: str, now_s: float
    ) -> None:
        known = self._heard.get(name)
        if known is None and len(self._heard) >= INSTANCES_MAX:
            return
        same = known is not None and known.claim.state is state
        claim = Claim(
            state=state,
            since_s=known.claim.since_s if known and same else now_s,
            priority=priority if priority is not None or not known else known.claim.priority,
            source=source,
        )
        self._heard[name] = _Heard(claim=claim, at_s=now_s)
