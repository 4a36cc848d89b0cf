"""What can be configured: every key, its default, its meaning and its bounds, in one place.

A Config is frozen and complete: an empty file gives one that works on a standard node.
``configfile`` turns TOML into it and collects every mistake; ``sentinel config schema`` prints
this page. A key is the field's name without its unit: ``inter_s`` is written ``inter = "2s"``.
The words of a check's pace are HAProxy's own (configuration manual, section 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How the value of one key is read and refused; the bounds are inclusive."""

    doc: str
    minimum: float | None = None
    maximum: float | None = None
    absolute_path: bool = False


def setting(default: Any, doc: str, **bounds: Any) -> Any:  # noqa: ANN401  (as dataclasses.field)
    """Declare one key: its default, and the Rule that reads it."""
    metadata = {"rule": Rule(doc=doc, **bounds)}
    return field(default=default, metadata=metadata)


class Manager(StrEnum):
    """Who starts and stops a service.

    What the commands start themselves lives where sentinel lives. In the sandbox of
    sentinel.service neither HAProxy nor keepalived can work: each needs a unit there, to which
    Debian's /etc/init.d scripts lead as well.
    """

    AUTO = "auto"
    SYSTEMD = "systemd"
    COMMANDS = "commands"


_MANAGER_DOC: Final = (
    "systemd where it runs the unit, else the commands; under systemd it needs a unit, as what the"
    " commands start themselves cannot work in sentinel.service's sandbox"
)


class OnFail(StrEnum):
    """What a failing frontend or command check does to this node's claim on the VIP."""

    YIELD = "yield"
    ALERT = "alert"


class OnCrash(StrEnum):
    """What becomes of the VIP while a HAProxy that has died is started again."""

    AUTO = "auto"
    YIELD = "yield"
    RESTART = "restart"


class OnLoss(StrEnum):
    """What servers that are down do to this node's claim on the VIP."""

    DEGRADE = "degrade"
    ALERT = "alert"


class ProbeType(StrEnum):
    """The highest layer a frontend probe speaks."""

    TCP = "tcp"
    TLS = "tls"
    HTTP = "http"
    HTTPS = "https"


class ProxyProtocol(StrEnum):
    """The PROXY protocol header sent first (HAProxy's doc/proxy-protocol.txt)."""

    NONE = "none"
    V1 = "v1"
    V2 = "v2"


class Facility(StrEnum):
    """The syslog facilities in the order of their numbers (RFC 5424, table 1, and syslog(3))."""

    KERN = "kern"
    USER = "user"
    MAIL = "mail"
    DAEMON = "daemon"
    AUTH = "auth"
    SYSLOG = "syslog"
    LPR = "lpr"
    NEWS = "news"
    UUCP = "uucp"
    CRON = "cron"
    AUTHPRIV = "authpriv"
    FTP = "ftp"
    NTP = "ntp"
    AUDIT = "audit"
    ALERT = "alert"
    CLOCK = "clock"
    LOCAL0 = "local0"
    LOCAL1 = "local1"
    LOCAL2 = "local2"
    LOCAL3 = "local3"
    LOCAL4 = "local4"
    LOCAL5 = "local5"
    LOCAL6 = "local6"
    LOCAL7 = "local7"


class Level(StrEnum):
    """How grave an event is, mildest first."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often a check runs and how many results change its state, as in HAProxy."""

    inter_s: float = setting(2.0, "interval while fully up", minimum=0.05, maximum=3600)
    fastinter_s: float = setting(0.25, "interval while changing", minimum=0.02, maximum=3600)
    downinter_s: float = setting(1.0, "interval while fully down", minimum=0.05, maximum=3600)
    timeout_s: float = setting(1.0, "deadline of one run", minimum=0.02, maximum=300)
    rise: int = setting(2, "passes in a row that make it UP", minimum=1, maximum=100)
    fall: int = setting(3, "failures in a row that make it DOWN", minimum=1, maximum=100)


PROCESS_PACE: Final = Pace(inter_s=0.3, fastinter_s=0.1, downinter_s=0.1, fall=1, rise=1)
RUNTIME_PACE: Final = Pace(inter_s=1.0, fastinter_s=0.25, downinter_s=0.5, timeout_s=0.5, rise=1)
VRRP_PACE: Final = Pace(inter_s=5.0, fastinter_s=0.2, downinter_s=0.5, fall=1, rise=1)
PEER_PACE: Final = Pace(inter_s=2.0, fastinter_s=0.5, downinter_s=2.0, timeout_s=0.5)
CONFIGURATION_PACE: Final = Pace(
    inter_s=1.0, fastinter_s=1.0, downinter_s=1.0, timeout_s=10.0, rise=1, fall=1
)
#: HAProxy itself looks at its servers every 2 s; this is the second opinion, for what it misses.
BACKEND_PACE: Final = Pace(inter_s=5.0, fastinter_s=1.0, downinter_s=5.0)
COMMAND_PACE: Final = Pace(inter_s=5.0, fastinter_s=1.0, downinter_s=5.0, timeout_s=5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Haproxy:
    """Which HAProxy is supervised and who starts it."""

    manager: Manager = setting(Manager.AUTO, _MANAGER_DOC)
    unit: str = setting("haproxy.service", "systemd unit")
    start: tuple[str, ...] = setting(("/etc/init.d/haproxy", "start"), "start command")
    stop: tuple[str, ...] = setting(("/etc/init.d/haproxy", "stop"), "stop command")
    restart: tuple[str, ...] = setting((), "restart command; left out: stop, then start")
    command_timeout_s: float = setting(
        20.0, "deadline of one call to the service manager", minimum=0.1, maximum=600
    )
    executable: str = setting(
        "/usr/sbin/haproxy",
        "the program; its name begins with haproxy, or keepalived's hook does not know it",
        absolute_path=True,
    )
    config: tuple[str, ...] = setting(
        ("/etc/haproxy/haproxy.cfg",), "configuration files while none is running to be asked"
    )
    pidfile: str = setting("/run/haproxy.pid", "HAProxy's pidfile", absolute_path=True)
    stats_socket: str = setting("", "stats socket; empty: the one its configuration names")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """How far sentinel goes to mend HAProxy before it gives the VIP away."""

    budget: int = setting(3, "restarts allowed in one window", minimum=0, maximum=100)
    window_s: float = setting(60.0, "length of the budget's window", minimum=1, maximum=86400)
    backoff_s: float = setting(1.0, "pause before the second attempt", minimum=0.05, maximum=600)
    backoff_max_s: float = setting(30.0, "longest pause", minimum=0.05, maximum=3600)
    verify_s: float = setting(5.0, "time for a start to prove itself", minimum=0.2, maximum=300)
    on_crash: OnCrash = setting(
        OnCrash.AUTO,
        "give the VIP away before HAProxy is started again (yield), or only if that fails"
        " (restart); auto: whichever is quicker by keepalived's timers",
    )
    stuck_s: float = setting(
        0.2, "how long a stopped worker is borne before the node yields", minimum=0, maximum=60
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalived:
    """keepalived's service, and when it is stopped and started again."""

    manager: Manager = setting(Manager.AUTO, _MANAGER_DOC)
    unit: str = setting("keepalived.service", "systemd unit")
    start: tuple[str, ...] = setting(("/etc/init.d/keepalived", "start"), "start command")
    stop: tuple[str, ...] = setting(("/etc/init.d/keepalived", "stop"), "stop command")
    command_timeout_s: float = setting(20.0, "deadline of one call", minimum=0.1, maximum=600)
    stop_on_failure: bool = setting(
        default=True, doc="stop keepalived when HAProxy cannot be brought back"
    )
    stop_after_s: float = setting(
        3.0, "how long the hook says FAIL before keepalived is stopped", minimum=0, maximum=3600
    )
    hold_s: float = setting(
        10.0, "how long HAProxy must be healthy after a failure", minimum=0, maximum=86400
    )
    hold_max_s: float = setting(
        300.0, "longest hold; each failure within an hour doubles it", minimum=0, maximum=86400
    )
    budget: int = setting(
        3, "starts of a keepalived that died, in one window of [restart]", minimum=0, maximum=100
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Vrrp:
    """What is known of the VIP: ``[vrrp]``."""

    enabled: bool = setting(default=True, doc="follow keepalived's instances and their VIPs")
    file: str = setting(
        "/etc/keepalived/keepalived.conf", "keepalived's configuration", absolute_path=True
    )
    config_id: str = setting("", "keepalived's --config-id; empty: the host name, as keepalived")
    fifo: str = setting(
        "", "keepalived's vrrp_notify_fifo; empty: vrrp.fifo in run_dir", absolute_path=True
    )
    fence: bool = setting(
        default=True, doc="remove the VIPs that a dead keepalived has left on this node"
    )
    pace: Pace = field(default=VRRP_PACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The other node's sentinel, asked over HTTP before a fault that both may share: ``[peer]``."""

    url: str = setting("", "the peer's endpoint, http://HOST:PORT/; empty: no peer is asked")
    listen: str = setting("", "HOST:PORT or [IPv6]:PORT to answer the peer on; empty: none")
    pace: Pace = field(default=PEER_PACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One frontend probe: ``[[probe]]``.

    *address* is ``HOST:PORT``, ``[IPv6]:PORT`` or an absolute path of a Unix socket.
    """

    name: str = setting("", "name in status and logs")
    type: ProbeType = setting(ProbeType.HTTP, "highest layer spoken")
    address: str = setting("", "HOST:PORT, [IPv6]:PORT or /path/of/a/socket")
    method: str = setting("HEAD", "request method")
    path: str = setting("/", "request target")
    host: str = setting("", "Host header; empty: the address")
    sni: str = setting("", "TLS server name; empty: the Host's name")
    headers: tuple[str, ...] = setting((), 'more request headers, each "Name: value"')
    expect: tuple[str, ...] = setting(("100-599",), 'statuses that pass, "200" or "200-399"')
    body: str = setting("", "regular expression that the body must match; empty: none")
    verify: bool = setting(default=False, doc="verify the TLS certificate's chain and name")
    ca_file: str = setting("", "CA file for verify; empty: the system's")
    expires_within_s: float = setting(
        14 * 86400.0, "warn when the certificate ends sooner", minimum=0, maximum=3650 * 86400
    )
    proxy_protocol: ProxyProtocol = setting(ProxyProtocol.NONE, "for binds with accept-proxy")
    on_fail: OnFail = setting(OnFail.YIELD, "yield the VIP, or only alert")
    discovered: bool = field(default=False)  # found by sentinel, not written by a person
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """The servers behind HAProxy: ``[backends]``."""

    enabled: bool = setting(default=True, doc="follow HAProxy's opinion of its servers")
    probe: bool = setting(default=True, doc="probe the servers directly as well")
    method: str = setting("HEAD", "request method of direct probes")
    path: str = setting("/", "request target of direct probes")
    host: str = setting("", "Host header of direct probes; empty: the server's address")
    expect: tuple[str, ...] = setting(("100-499",), "statuses that pass")
    on_loss: OnLoss = setting(
        OnLoss.DEGRADE, "lower the priority by the share that is down, or only alert"
    )
    concurrency: int = setting(50, "direct probes under way at once", minimum=1, maximum=1000)
    pace: Pace = field(default=BACKEND_PACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command check: ``[[command]]``. Exit 0 passes, anything else fails."""

    name: str = setting("", "name in status and logs")
    argv: tuple[str, ...] = setting(
        (),
        "program and arguments, no shell; it lives in sentinel.service's sandbox: all files are"
        " read-only, /tmp too, and it can become no other user",
    )
    on_fail: OnFail = setting(OnFail.ALERT, "yield the VIP, or only alert")
    pace: Pace = field(default=COMMAND_PACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """What keepalived reads: ``[hook]``."""

    lease_file: str = setting("", "the hook's lease; empty: lease in run_dir", absolute_path=True)
    lease_s: float = setting(3.0, "how long a lease is good", minimum=0.5, maximum=60)
    track_file: str = setting(
        "", "keepalived's track_file of weight 0; empty: track in run_dir", absolute_path=True
    )
    priority_file: str = setting(
        "",
        "keepalived's track_file of weight 1; empty: track_file's name with -priority",
        absolute_path=True,
    )
    sign: str = setting(
        "", "written by the hook; empty: hook-called in run_dir", absolute_path=True
    )
    call_within_s: float = setting(
        10.0,
        "alarm when keepalived has not called for this long; 0: never",
        minimum=0,
        maximum=3600,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Where events go: ``[log]``."""

    target: str = setting(
        "/dev/log", "/path/of/a/socket, udp://HOST:PORT, tcp://HOST:PORT, or none"
    )
    facility: Facility = setting(Facility.LOCAL3, "syslog facility")
    level: Level = setting(Level.INFO, "the mildest events that are logged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The socket ``sentinel status`` asks: ``[status]``."""

    socket: str = setting("", "status socket; empty: status.sock in run_dir", absolute_path=True)
    group: str = setting("", "group that may read it; empty: root's only")
    control: str = setting(
        "",
        "socket that takes root's orders; empty: control.sock beside the status socket",
        absolute_path=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything, complete and checked."""

    node: str = setting("", "this node's name; empty: the host name")
    run_dir: str = setting(
        "/run/sentinel",
        "lock and memory, and whatever is not put elsewhere; outlives the service, not a reboot",
        absolute_path=True,
    )
    discover: bool = setting(default=True, doc="probe HAProxy's own listeners when no probe is set")
    haproxy: Haproxy = field(default_factory=Haproxy)
    restart: Restart = field(default_factory=Restart)
    keepalived: Keepalived = field(default_factory=Keepalived)
    process: Pace = field(default=PROCESS_PACE)
    runtime: Pace = field(default=RUNTIME_PACE)
    configuration: Pace = field(default=CONFIGURATION_PACE)
    backends: Backends = field(default_factory=Backends)
    probe: tuple[Probe, ...] = ()
    command: tuple[Command, ...] = ()
    vrrp: Vrrp = field(default_factory=Vrrp)
    peer: Peer = field(default_factory=Peer)
    hook: Hook = field(default_factory=Hook)
    log: Log = field(default_factory=Log)
    status: Status = field(default_factory=Status)

    @property
    def lease_file(self) -> str:
        """Where the hook's lease lies."""
        return self.hook.lease_file or f"{self.run_dir}/lease"

    @property
    def track_file(self) -> str:
        """Where the weightless track file lies."""
        return self.hook.track_file or f"{self.run_dir}/track"

    @property
    def priority_file(self) -> str:
        """Where the weighted track file lies."""
        return self.hook.priority_file or f"{self.track_file}-priority"

    @property
    def sign(self) -> str:
        """Where the hook leaves its sign."""
        return self.hook.sign or f"{self.run_dir}/hook-called"

    @property
    def fifo(self) -> str:
        """Where keepalived tells its states."""
        return self.vrrp.fifo or f"{self.run_dir}/vrrp.fifo"

    @property
    def status_socket(self) -> str:
        """Where the status is told."""
        return self.status.socket or f"{self.run_dir}/status.sock"

    @property
    def control_socket(self) -> str:
        """Where orders are taken."""
        return self.status.control or f"{self.status_socket.rpartition('/')[0]}/control.sock"
