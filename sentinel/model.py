"""The nouns of sentinel: what is seen; beside it ``events``, what happened, and ``actions``.

Everything that crosses a module border is defined in these as a frozen, slotted dataclass or an
enum. They import nothing of ours but each other and the nouns of VRRP. The words follow HAProxy's
and keepalived's manuals: a *check* makes an *observation*; an *event* reaches the core; the core
answers with *actions*.

All times named ``*_s`` are seconds of CLOCK_BOOTTIME unless they are plain durations: that clock
neither steps nor sleeps, and it is the clock of /proc/uptime, which the hook reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from sentinel.vrrp import RivalsView, VrrpView


class Verdict(Enum):
    """What one run of a check means. UNKNOWN is a broken check: it never moves a counter."""

    PASS = "PASS"  # noqa: S105  (a verdict, not a secret)
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


class Code(StrEnum):
    """HAProxy's check result codes (management guide, ``show stat`` field ``check_status``)."""

    UNK = "UNK"  # the check could not be carried out: nothing is known
    SOCKERR = "SOCKERR"  # the check failed on our side, before a packet was sent
    L4OK = "L4OK"
    L4CON = "L4CON"  # refused, unreachable, reset before the connection stood
    L4TOUT = "L4TOUT"
    L6OK = "L6OK"
    L6RSP = "L6RSP"  # the TLS handshake failed
    L6TOUT = "L6TOUT"
    L7OK = "L7OK"
    L7RSP = "L7RSP"  # the answer is not what the protocol allows
    L7STS = "L7STS"  # a well-formed answer that was not expected
    L7TOUT = "L7TOUT"
    PROCOK = "PROCOK"
    PROCERR = "PROCERR"
    PROCTOUT = "PROCTOUT"


#: What the process check saw longer ago than this proves nothing: the lease is left to run out.
PROCESS_STALE_S: Final = 5.0
#: What the peer said of itself is believed for so long.
PEER_STALE_S: Final = 10.0

#: Codes that mean "silence": the other side neither answered nor refused.
SILENT: Final = frozenset({Code.L4TOUT, Code.L6TOUT, Code.L7TOUT})


class Scope(Enum):
    """What a check speaks about. The scope of a fault decides what is done about it."""

    PROCESS = "process"
    LISTENER = "listener"
    RUNTIME = "runtime"
    FRONTEND = "frontend"
    BACKEND = "backend"
    CONFIGURATION = "configuration"
    COMMAND = "command"
    VRRP = "vrrp"
    PEER = "peer"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Proc:
    """One process, identified beyond pid reuse: its pid and its start time in clock ticks."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One incarnation of HAProxy.

    *master* is None when HAProxy runs without master-worker mode; *worker* is the process that
    owns the listeners now; *old* are workers of earlier reloads that finish their connections.
    """

    master: Proc | None
    worker: Proc | None
    old: tuple[Proc, ...] = ()

    @property
    def alive(self) -> bool:
        """A worker lives, so requests can be answered."""
        return self.worker is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessView:
    """What the process check saw: the instance, and which of its processes cannot run.

    *stuck* are the processes in state T (stopped), t (traced) or D (uninterruptible sleep).
    """

    instance: Instance | None
    stuck: tuple[Proc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listening socket and the process that accepts from it, None when nobody can be seen.

    *address* is numeric, or a path (``@name`` in the abstract namespace) with *port* 0. *backlog*
    counts connections that wait to be accepted.
    """

    address: str
    port: int
    inode: int
    backlog: int
    holder: Proc | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenersView:
    """The worker's *listeners*, and the *foreign* ones that take connections away from them.

    *orphans* are the holders of foreign ones that are proven to be left over from our HAProxy.
    """

    listeners: tuple[Listener, ...]
    foreign: tuple[Listener, ...] = ()
    orphans: tuple[Proc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeView:
    """What the runtime API said about HAProxy as a whole (``show info``, frontends).

    *saturated* is the reason (for example ``CurrConns 2000 of Maxconn 2000``) or empty.
    """

    pid: int
    version: str = ""
    stopping: bool = False
    curr_conns: int = 0
    maxconn: int = 0
    idle_pct: int = 100
    saturated: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeView:
    """What a frontend probe measured; what it did not come to is None.

    *certificate_left_s* is what is left of the certificate's validity, negative when it is over;
    *expiring* warns that it is less than the probe's ``expires_within``. Neither fails the probe.
    """

    status: int | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    response_ms: float | None = None
    certificate_left_s: float | None = None
    expiring: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """One server: HAProxy's opinion beside the result of our own probe."""

    name: str
    status: str  # HAProxy's word, e.g. "UP 2/3", "MAINT", "no check"
    up: bool | None  # HAProxy's opinion; None while it has none (INI, no check)
    probe: Code | None  # our own result; None when not probed
    probe_detail: str = ""

    @property
    def disagrees(self) -> bool:
        """HAProxy and our own probe hold opposite opinions."""
        if self.up is None or self.probe in {None, Code.UNK, Code.SOCKERR}:
            return False
        return self.up != (self.probe in {Code.L4OK, Code.L6OK, Code.L7OK})


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """One backend of HAProxy: its servers up, of those that are meant to serve."""

    name: str
    up: int
    total: int
    servers: tuple[ServerView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerView:
    """What the other node's sentinel says of itself; *pools* are (name, servers up, in all).

    *same_node* means that we asked ourselves, which is a mistake in the configuration.
    """

    node: str
    overall: str
    serving: bool | None
    servers_up: int = 0
    servers_total: int = 0
    pools: tuple[tuple[str, int, int], ...] = ()
    same_node: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationView:
    """What ``haproxy -c`` said; *error* is the failing line, empty when valid."""

    valid: bool
    error: str = ""
    files: tuple[str, ...] = ()


View = (
    ProcessView
    | ListenersView
    | RuntimeView
    | ProbeView
    | tuple[PoolView, ...]
    | ConfigurationView
    | VrrpView
    | RivalsView
    | PeerView
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The result of one run of one check."""

    check: str
    scope: Scope
    verdict: Verdict
    code: Code
    detail: str = ""
    duration_ms: float = 0.0
    view: View | None = None


_STOPPED: Final = ("inactive", "success")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """The service manager's opinion of one unit (systemd's words, ``systemctl show``).

    *known* is False when it could not be asked in time, or does not have the unit; *detail* says
    why. *has_jobs* says whether this manager can tell an administrator's stop from a crash at all
    (plain commands cannot). *start_cancelled*: somebody's stop cancelled our start, and the unit
    has not been started since; its *result* may speak of the process that this killed.
    """

    known: bool = True
    active: str = "active"  # active, inactive, failed, activating, deactivating
    sub: str = ""  # running, dead, auto-restart, start, stop-sigterm, ...
    result: str = "success"
    job_pending: bool = False
    masked: bool = False
    start_cancelled: bool = False
    main_pid: int = 0
    restarts: int = 0
    has_jobs: bool = True
    detail: str = ""

    @property
    def intended_stop(self) -> str:
        """Why this unit is down on purpose, or empty.

        systemd leaves a unit inactive with result success only after a stop that was asked for
        (or, without Restart=, a clean exit): systemd.service(5), Restart=.
        """
        if not self.known or not self.has_jobs:
            return ""
        if self.masked:
            return "unit is masked"
        if self.active not in {"inactive", "failed"} or self.job_pending:
            return ""
        if self.start_cancelled:
            return "unit was stopped during its start"
        return "unit was stopped" if (self.active, self.result) == _STOPPED else ""
