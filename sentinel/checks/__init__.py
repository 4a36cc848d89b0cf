"""The checks: one kind a file. A check looks, measures and judges; it never acts.

To add one: write an object with the shape of ``Check``, return an Observation from it, and build
it in ``wiring`` (what is about the pair: in ``pair``). A check keeps to its own deadline and says
UNKNOWN when it could not look at all; it raises only for our own mistakes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sentinel.config import Pace
    from sentinel.model import Observation, Scope


class Check(Protocol):
    """One thing that is looked at again and again."""

    @property
    def name(self) -> str:
        """Unique name in status and logs."""
        ...

    @property
    def scope(self) -> Scope:
        """What a failure would be about."""
        ...

    @property
    def pace(self) -> Pace:
        """Intervals, deadline, rise and fall."""
        ...

    async def __call__(self) -> Observation:
        """Look once, within ``pace.timeout_s``."""
        ...
