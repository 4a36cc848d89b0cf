"""What the core knows: the policy it follows and the state it carries from step to step.

Both are frozen; ``step`` makes a new State each time. Only a Memory outlives sentinel itself: the
restart budget must hold, and a keepalived that sentinel stopped must be started again, also when
sentinel is killed in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from sentinel.actions import Action
from sentinel.events import Verb
from sentinel.model import (
    Code,
    ConfigurationView,
    Instance,
    Observation,
    PeerView,
    PoolView,
    Proc,
    RuntimeView,
    Scope,
    ServiceState,
    Verdict,
)
from sentinel.vrrp import Vip, VrrpView


class Phase(Enum):
    """Where sentinel stands with HAProxy.

    UP and LEARNING do not yield the VIP, and DEAD and MENDING need not during a first start
    (restart.on_crash).
    """

    LEARNING = "LEARNING"  # sentinel has just started and has not seen HAProxy yet
    UP = "UP"
    HUNG = "HUNG"  # alive but silent: the node yields, a kill awaits its confirmation
    DEAD = "DEAD"  # no worker: the service manager and the configuration are being asked why
    MENDING = "MENDING"  # a start is under way, or has still to prove itself
    FAILED = "FAILED"  # it cannot be mended now; sentinel goes on trying within the budget
    HOLDING = "HOLDING"  # healthy again after a failure; the VIP waits for hold_s
    MAINT = "MAINT"  # an administrator stopped it


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPolicy:
    """How one check's results are judged.

    A *discovered* check may be wrong about what to expect: until it has passed once
    (Memory.proven) its failures are shown but move nothing.
    """

    scope: Scope
    rise: int
    fall: int
    yields: bool = False
    discovered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The configured bounds of every decision; durations in seconds."""

    checks: Mapping[str, CheckPolicy]
    restart_budget: int = 3
    restart_window_s: float = 60.0
    backoff_s: float = 1.0
    backoff_max_s: float = 30.0
    verify_s: float = 5.0
    stuck_s: float = 0.2
    stop_keepalived: bool = True
    stop_after_s: float = 3.0
    hold_s: float = 10.0
    hold_max_s: float = 300.0
    keepalived_budget: int = 3
    fence: bool = True
    priority_file: str = ""  # keepalived's weighted track file, empty: none is written
    degrade: bool = True
    peer: bool = False  # the other node's sentinel is asked
    stay_on_crash: bool | None = None  # during the first start; None: if the peer takes long
    call_within_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """HAProxy's hysteresis: one counter, 0..rise-1 is DOWN, rise..rise+fall-1 is UP.

    Any success while UP and any failure while DOWN resets it to its end (HAProxy configuration
    manual, section 5.2, rise and fall). It begins fully UP: a restart of sentinel alone must not
    bring a healthy node closer to yielding.
    """

    rise: int
    fall: int
    counter: int

    @classmethod
    def fresh(cls, rise: int, fall: int) -> Health:
        """Return the health of a check that has not run yet."""
        return cls(rise=rise, fall=fall, counter=rise + fall - 1)

    @property
    def up(self) -> bool:
        """The check counts as UP."""
        return self.counter >= self.rise

    @property
    def settled(self) -> bool:
        """Fully UP or fully DOWN: not changing."""
        return self.counter in {0, self.rise + self.fall - 1}

    def under(self, rise: int, fall: int) -> Health:
        """Go on under other bounds, as a reload of sentinel brings them: fully UP or DOWN."""
        if (rise, fall) == (self.rise, self.fall):
            return self
        return Health(rise=rise, fall=fall, counter=rise + fall - 1 if self.up else 0)

    def after(self, verdict: Verdict) -> Health:
        """Count one more result."""
        match verdict:
            case Verdict.UNKNOWN:
                return self
            case Verdict.PASS:
                counter = self.counter + 1
                counter = self.rise + self.fall - 1 if counter >= self.rise else counter
            case Verdict.FAIL:
                counter = self.counter - 1
                counter = 0 if counter < self.rise else counter
        return Health(rise=self.rise, fall=self.fall, counter=counter)

    def __str__(self) -> str:
        """Speak as HAProxy's statistics do: ``UP``, ``UP 2/3``, ``DOWN``, ``DOWN 1/2``."""
        if self.settled:
            return "UP" if self.up else "DOWN"
        if self.up:
            return f"UP {self.counter - self.rise + 1}/{self.fall}"
        return f"DOWN {self.counter}/{self.rise}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckState:
    """What is known of one check."""

    health: Health
    last: Observation
    last_begun_s: float
    changed_s: float
    failed_code: Code | None = None  # of the last failure, whatever has passed since
    told_up: bool = True  # what was reported last
    incarnation: int = 0  # the one that the last run asked
    answered_incarnation: int = 0  # the newest one that answered
    spoke_s: float = -1.0  # when the last run began that HAProxy itself answered
    silences: int = 0  # runs in a row that this incarnation left without any answer
    silent_since_s: float = -1.0  # when the first of them ended
    unknown_since_s: float | None = None
    unknown_reported: bool = False
    expiring: bool = False  # the last certificate seen ends soon


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One order of an administrator's, while it holds; *drain* makes a pause a hand-over as well.

    It ends at *until_s*, and when a worker serves that was started after *until_worker* (start time
    in clock ticks), whichever comes first; with neither it holds until it is taken back.
    """

    verb: Verb
    drain: bool = False
    since_s: float = 0.0
    until_s: float | None = None
    until_worker: int | None = None
    reason: str = ""
    by: str = ""

    @property
    def pauses(self) -> bool:
        """Sentinel mends nothing."""
        return self.verb is Verb.PAUSE

    @property
    def steps_down(self) -> bool:
        """The other node is to hold the VIP."""
        return self.verb is Verb.STEPDOWN or self.drain


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What outlives a restart of sentinel, but not a reboot (times are CLOCK_BOOTTIME)."""

    restarts: tuple[float, ...] = ()
    attempt: int = 0
    next_attempt_s: float = 0.0
    failed_since_s: float | None = None
    keepalived_stopped: bool = False
    proven: tuple[str, ...] = ()
    failures: tuple[float, ...] = ()  # when HAProxy could not be mended, for the length of the hold
    keepalived_starts: tuple[float, ...] = ()  # of one that had died
    intents: tuple[Intent, ...] = ()  # each ends by itself, whatever is asked for after it


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The share of servers that is down, in percent: seen now, and believed.

    What is seen has been other than what is believed since *apart_since_s*, at least as much as
    *sure_pct*, and just as it is now since *since_s*.
    """

    seen_pct: int = 0
    since_s: float = 0.0
    believed_pct: int = 0
    sure_pct: int = 0
    apart_since_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What keepalived is told: whether this node may hold the VIP, and why.

    *lowered* is what its priority is lowered by, so that a peer that is better takes the VIP while
    this node goes on serving.
    """

    serving: bool
    reason: str
    lowered: int = 0

    @property
    def words(self) -> str:
        """Say it in a word or two."""
        if not self.serving:
            return "yielding"
        return f"serving, priority lowered by {self.lowered}" if self.lowered else "serving"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything the next decision rests on."""

    started_s: float | None = None  # the first step of this run of sentinel
    stepped_s: float = 0.0  # the last one
    phase: Phase = Phase.LEARNING
    phase_since_s: float = 0.0
    previous: Phase = Phase.LEARNING
    reason: str = "sentinel has just started"
    memory: Memory = field(default_factory=Memory)

    # HAProxy as the checks see it
    incarnation: int = 0
    instance: Instance | None = None
    process_seen_s: float | None = None
    stuck: tuple[Proc, ...] = ()
    stuck_since_s: float | None = None  # the worker has been stuck, and has not answered, since
    orphans: Mapping[Proc, float] = field(default_factory=dict)  # seen on our listeners, since when
    orphans_killed_s: float | None = None
    listeners_seen_s: float = -1.0
    ports: tuple[int, ...] = ()  # TCP ports that the worker listens on
    checks: Mapping[str, CheckState] = field(default_factory=dict)
    configuration: ConfigurationView | None = None
    runtime: RuntimeView | None = None
    saturated_s: float | None = None
    pools: tuple[PoolView, ...] = ()
    lost: Lost = field(default_factory=Lost)

    # VRRP as the checks see it
    vrrp: VrrpView | None = None
    peer: PeerView | None = None
    peer_heard_s: float = -1.0
    keepalived_lived: bool = False  # it has been seen alive
    keepalived_dead_s: float | None = None  # no process of it is left since
    keepalived_death_told: bool = False
    keepalived_left_vips: bool = False  # when it died
    taken_over: tuple[str, ...] = ()  # the instances that the peer has spoken for since then
    fence_failed: bool = False  # its VIPs could not be removed
    fenced: tuple[Vip, ...] = ()  # VIPs whose removal was tried
    fence_again_s: float = 0.0  # and is not to be tried again before

    # the service manager's opinion, and when it was last asked
    haproxy: ServiceState | None = None
    haproxy_seen_s: float = -1.0  # when the question was asked that this answers
    haproxy_heard_s: float = -1.0  # when the last answer came that said anything
    haproxy_asked_s: float = -1.0
    keepalived: ServiceState | None = None
    keepalived_stale: bool = True  # something has happened since it was looked at
    keepalived_asked_s: float | None = None  # a look is under way since
    keepalived_heard_s: float = -1.0

    standing: Standing | None = None  # what keepalived is told since the last step

    # what is under way: at most one action on each of the two services
    in_flight: Action | None = None
    keepalived_in_flight: Action | None = None
    fencing: Action | None = None
    keepalived_retry_s: float | None = None  # an action on keepalived failed: when to try again

    # the present outage
    down_since_s: float | None = None
    killed_s: float | None = None  # a hung worker was killed; that paid for the next restart
    attempted_incarnation: int = 0  # the one before the start that is to be proved
    verify_by_s: float | None = None
    start_failed: str = ""  # what the service manager said of a start that failed
    staying: bool = False  # the VIP may stay during the first start
    unproven: bool = False  # the present incarnation did not prove itself in time
    failure: str = ""  # the last failure reported, so that it is reported once
    healthy_since_s: float = 0.0
    hook_silent: bool = False


#: What a decision leads to: the state after it, and what is to be done.
Turn = tuple[State, tuple[Action, ...]]
