"""The faults. To add one: what happens, how it is healed, what is expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Final

from sentinel.drill import deeds, surroundings
from sentinel.drill.faults import HOME, MOVED, NOTHING_DONE, TORN, UNTOUCHED, Fault

#: systemd's watchdog kills a hung sentinel after so long (WatchdogSec=); the lease ends before.
_WATCHDOG_S: Final = 10.0
_DEATH: Final = ("haproxy.died", "haproxy.restarted")
_GIVEN_UP: Final = ("haproxy.failed", "keepalived.stopped")

CATALOGUE: Final = (
    Fault(
        name="haproxy-killed",
        title="HAProxy is killed: kill -9 of all its processes",
        inject=deeds.all_of("haproxy", deeds.KILL),
        told=_DEATH,
        untold=_GIVEN_UP,
    ),
    Fault(
        name="worker-killed",
        title="HAProxy's worker alone is killed",
        inject=deeds.worker_alone(deeds.KILL),
        told=_DEATH,
        untold=_GIVEN_UP,
    ),
    Fault(
        name="haproxy-hung",
        title="HAProxy hangs: SIGSTOP of all its processes",
        inject=deeds.all_of("haproxy", deeds.STOP),
        told=("haproxy.hung", "haproxy.restarted"),
        untold=_GIVEN_UP,
    ),
    Fault(
        name="worker-hung",
        title="HAProxy's worker alone hangs",
        inject=deeds.worker_alone(deeds.STOP),
        told=("haproxy.hung", "haproxy.restarted"),
        untold=_GIVEN_UP,
    ),
    Fault(
        name="spinning",
        title="HAProxy spins and answers nothing, until sentinel or its own watchdog ends it",
        inject=deeds.spin,
        heal=deeds.end_spin,
        told=("haproxy.restarted",),
        untold=_GIVEN_UP,
    ),
    Fault(
        name="configuration-broken",
        title="haproxy.cfg is broken, then HAProxy is killed",
        inject=deeds.break_configuration,
        meanwhile=replace(MOVED, haproxy=False),
        dwell_s=4.0,  # longer than keepalived.stop_after
        heal=deeds.mend_configuration,
        told=("configuration.invalid", "haproxy.failed", "haproxy.restarted"),
    ),
    Fault(
        name="port-taken",
        title="HAProxy is killed, and a stranger takes its port",
        inject=deeds.take_port,
        meanwhile=replace(MOVED, haproxy=False),
        dwell_s=1.0,
        heal=deeds.free_port,
        end=replace(HOME, within_s=110.0),  # the budget's window is a minute
        told=("haproxy.start_failed", "haproxy.restarted"),
    ),
    Fault(
        name="maxconn-full",
        title="HAProxy is full: as many connections as maxconn allows",
        inject=deeds.fill,
        meanwhile=replace(UNTOUCHED, served=None),
        dwell_s=4.0,
        heal=deeds.send_crowd_home,
        told=("haproxy.saturated",),
        untold=NOTHING_DONE,
        moves_vip=False,
    ),
    Fault(
        name="descriptors-exhausted",
        title="HAProxy's worker may open no more files",
        inject=deeds.exhaust_descriptors,
        told=("haproxy.hung", "haproxy.restarted"),
        untold=_GIVEN_UP,
    ),
    Fault(
        name="backends-down-one-path",
        title="all servers are unreachable from the master alone",
        inject=surroundings.hide_servers,
        meanwhile=replace(MOVED, within_s=30.0),
        heal=surroundings.show_servers,
        untold=NOTHING_DONE,
    ),
    Fault(
        name="backends-down",
        title="all servers are down",
        inject=surroundings.stop_servers,
        meanwhile=replace(UNTOUCHED, served=False),
        dwell_s=20.0,  # until both nodes have noticed, and believe it
        heal=surroundings.start_servers,
        untold=NOTHING_DONE,
        moves_vip=False,
    ),
    Fault(
        name="backend-slow",
        title="one server answers after two seconds only",
        inject=surroundings.slow_down,
        meanwhile=replace(UNTOUCHED, served=None),
        dwell_s=8.0,
        heal=surroundings.speed_up,
        untold=NOTHING_DONE,
        moves_vip=False,
    ),
    Fault(
        name="keepalived-stopped",
        title="keepalived is stopped on the master, and started again",
        inject=deeds.service("keepalived", "stop"),
        meanwhile=MOVED,
        dwell_s=2.0,
        heal=deeds.service("keepalived", "start"),
        untold=NOTHING_DONE,
    ),
    Fault(
        name="failover-under-load",
        title="keepalived is stopped while HAProxy holds four fifths of its connections",
        inject=deeds.fail_over_crowded,
        meanwhile=MOVED,
        dwell_s=2.0,
        heal=deeds.come_back,
        untold=NOTHING_DONE,
    ),
    Fault(
        name="keepalived-killed",
        title="keepalived's whole group is killed -9, the VIP stays behind",
        inject=deeds.kill_keepalived,
        told=("keepalived.died", "vip.fenced", "keepalived.started"),
        untold=("vip.taken", *_DEATH, *_GIVEN_UP),
        shared_s=0.4,
    ),
    Fault(
        name="stepdown",
        title="an administrator hands the VIP over: sentinel stepdown, and resume",
        inject=deeds.order("stepdown"),
        meanwhile=MOVED,
        dwell_s=1.0,
        heal=deeds.order("resume"),
        told=("vip.stepdown_asked", "sentinel.resumed"),
        untold=NOTHING_DONE,
        lossless=True,
    ),
    Fault(
        name="paused",
        title="HAProxy is killed while an administrator has paused sentinel",
        inject=deeds.pause,
        meanwhile=replace(MOVED, haproxy=False),
        dwell_s=4.0,
        heal=deeds.order("resume"),
        told=("sentinel.paused", *_DEATH, "sentinel.resumed"),
        untold=_GIVEN_UP,
    ),
    Fault(
        name="vip-deleted",
        title="somebody deletes the VIP from the master",
        inject=deeds.delete_vip,
        untold=NOTHING_DONE,
    ),
    Fault(
        name="cable-pulled",
        title="the master's cable is pulled",
        inject=surroundings.cables("down"),
        meanwhile=MOVED,
        dwell_s=1.0,
        heal=surroundings.cables("up"),
        untold=NOTHING_DONE,
        survivor_keeps=True,
    ),
    Fault(
        name="split-brain",
        title="the backup no longer hears VRRP, and takes the VIP as well",
        inject=surroundings.deafen,
        meanwhile=TORN,
        dwell_s=1.0,
        heal=surroundings.undeafen,
        told=("check.down check=rivals", "check.up check=rivals"),
        untold=NOTHING_DONE,
        shared_s=inf,
    ),
    Fault(
        name="power-cut",
        title="the master's power is cut",
        inject=deeds.cut_power,
        meanwhile=MOVED,
        dwell_s=1.0,
        heal=deeds.restore_power,
        survivor_keeps=True,
    ),
    Fault(
        name="sentinel-killed",
        title="sentinel is killed, and started again by its unit",
        inject=deeds.kill_sentinel,
        told=("sentinel.started",),
        dwell_s=3.0,
        meanwhile=UNTOUCHED,
        untold=NOTHING_DONE,
        moves_vip=False,
    ),
    Fault(
        name="sentinel-hung",
        title="sentinel hangs (SIGSTOP) until its watchdog has it killed and started again",
        inject=deeds.all_of("sentinel", deeds.STOP),
        dwell_s=_WATCHDOG_S,
        meanwhile=UNTOUCHED,
        heal=deeds.kill_sentinel,
        told=("sentinel.started",),
        untold=NOTHING_DONE,
        moves_vip=False,
    ),
    Fault(
        name="sentinel-and-haproxy-killed",
        title="sentinel and HAProxy are killed in the same moment",
        inject=deeds.kill_both,
        told=("haproxy.restarted",),
        untold=_GIVEN_UP,
    ),
    Fault(
        name="log-stopped",
        title="rsyslogd hangs on both nodes",
        inject=surroundings.stop_logs,
        dwell_s=5.0,
        meanwhile=UNTOUCHED,
        heal=surroundings.resume_logs,
        untold=NOTHING_DONE,
        moves_vip=False,
    ),
    Fault(
        name="disk-full",
        title="/run, /etc, /var and /tmp of the master are full",
        inject=surroundings.fill_disk,
        dwell_s=6.0,  # longer than the lease
        meanwhile=UNTOUCHED,
        heal=surroundings.empty_disk,
        untold=NOTHING_DONE,
        moves_vip=False,
    ),
    Fault(
        name="clock-stepped",
        title="the master's clock jumps an hour ahead, then a day back",
        prepare=surroundings.hang_clock,
        inject=surroundings.step_clock,
        dwell_s=4.0,
        meanwhile=UNTOUCHED,
        heal=surroundings.mend_clock,
        untold=NOTHING_DONE,
        moves_vip=False,
    ),
    Fault(
        name="haproxy-stopped",
        title="an administrator stops HAProxy by its command (no systemd tells it from a crash)",
        inject=deeds.service("haproxy", "stop"),
        told=_DEATH,
        untold=_GIVEN_UP,
    ),
    Fault(
        name="rolling-restart",
        title="HAProxy is restarted on both nodes in turn: sentinel pause --drain, and resume",
        inject=deeds.roll,
        told=("sentinel.paused", "sentinel.resumed"),
        untold=("haproxy.restarted", *_GIVEN_UP),
        lossless=True,
    ),
    Fault(
        name="reload",
        title="HAProxy is reloaded three times under load",
        inject=deeds.reload,
        told=("haproxy.reloaded",),
        untold=NOTHING_DONE,
        moves_vip=False,
    ),
)
#: ``--quick``: one that is mended at once, one that moves the VIP, one that nobody may notice.
QUICK: Final = ("haproxy-killed", "keepalived-stopped", "sentinel-killed")


def chosen(names: Sequence[str]) -> tuple[Fault, ...]:
    """Return the faults of these names in the order of the catalogue, all for none."""
    return tuple(fault for fault in CATALOGUE if not names or fault.name in names)
