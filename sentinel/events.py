"""What happened: everything that reaches the core, an administrator's orders among it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sentinel.actions import Action
from sentinel.model import Observation, ServiceState


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A check has run; *incarnation* is the number of the HAProxy incarnation it began under."""

    observation: Observation
    incarnation: int
    begun_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRemoved:
    """A check no longer exists (its frontend is gone, or sentinel's configuration changed)."""

    check: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HaproxyServiceSeen:
    """The service manager was asked about HAProxy's unit."""

    service: ServiceState
    begun_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepalivedServiceSeen:
    """The service manager was asked about keepalived's unit."""

    service: ServiceState


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An action has ended."""

    action: Action
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSeen:
    """How long ago keepalived last called the hook; *age_s* is None if it never has."""

    age_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressTaken:
    """Somebody who is neither keepalived nor sentinel took an address off this node."""

    address: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceTakenOver:
    """Another machine's advert was heard for a VRRP instance whose VIPs are on this node."""

    instance: str


class Verb(StrEnum):
    """What an administrator can ask of a running sentinel."""

    PAUSE = "pause"
    STEPDOWN = "stepdown"
    RESUME = "resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request of an administrator's: for how long (None: until RESUME), why, and whose it is.

    *drain* lets PAUSE hand the VIP over as well. *until_start* ends it when HAProxy, started anew,
    serves.
    """

    verb: Verb
    for_s: float | None = None
    reason: str = ""
    by: str = ""
    drain: bool = False
    until_start: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """An administrator has asked for something."""

    order: Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """What a predecessor had under way will not be heard of any more."""


Event = (
    Tick
    | Observed
    | CheckRemoved
    | HaproxyServiceSeen
    | KeepalivedServiceSeen
    | Finished
    | HookSeen
    | Ordered
    | Interrupted
    | AddressTaken
    | InstanceTakenOver
)
