"""States of a node as the core holds them, and the status documents made of them, for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from sentinel.actions import Report
from sentinel.core import CheckPolicy, CheckState, Health, Memory, Phase, Policy, State
from sentinel.core.standing import tell
from sentinel.model import (
    Code,
    ConfigurationView,
    Instance,
    Observation,
    PoolView,
    Proc,
    RuntimeView,
    Scope,
    ServerView,
    ServiceState,
    Verdict,
)
from sentinel.snapshot import Surroundings, snapshot
from sentinel.vrrp import Claim, InstanceView, Tracker, Vip, VrrpInstance, VrrpState

NOW_S: Final = 1000.0

AROUND: Final = Surroundings(
    node="lb1",
    version="0.1.0",
    pid=4711,
    started_s=900.0,
    lease_written_s=999.5,
    lease_s=3.0,
    hook_age_s=1.5,
    errors=(),
    log_dropped=0,
    advice=(),
    dry_run=False,
)

POLICY: Final = Policy(
    checks={
        "process": CheckPolicy(scope=Scope.PROCESS, rise=1, fall=1),
        "web": CheckPolicy(scope=Scope.FRONTEND, rise=2, fall=3, yields=True),
    }
)


def checked(
    name: str, verdict: Verdict = Verdict.PASS, code: Code = Code.L7OK, detail: str = "status 200"
) -> CheckState:
    """Return the state of a check that has run once."""
    known = POLICY.checks.get(name) or CheckPolicy(scope=Scope.RUNTIME, rise=1, fall=3)
    seen = Observation(
        check=name, scope=known.scope, verdict=verdict, code=code, detail=detail, duration_ms=1.25
    )
    health = Health.fresh(known.rise, known.fall).after(verdict)
    return CheckState(health=health, last=seen, last_begun_s=NOW_S - 0.25, changed_s=NOW_S - 60)


def down(name: str, detail: str = "Connection refused") -> CheckState:
    """Return the state of a check that is DOWN."""
    state = checked(name, Verdict.FAIL, Code.L4CON, detail)
    return replace(state, health=replace(state.health, counter=0))


#: A node on which all is well.
HEALTHY: Final = State(
    started_s=900.0,
    phase=Phase.UP,
    phase_since_s=910.0,
    reason="HAProxy is running",
    incarnation=2,
    instance=Instance(
        master=Proc(pid=100, start_ticks=1),
        worker=Proc(pid=101, start_ticks=2),
        old=(Proc(pid=99, start_ticks=1),),
    ),
    process_seen_s=NOW_S - 0.1,
    checks={
        "process": checked("process", code=Code.PROCOK, detail="worker 101, master 100"),
        "web": checked("web"),
    },
    configuration=ConfigurationView(valid=True, files=("/etc/haproxy/haproxy.cfg",)),
    runtime=RuntimeView(pid=101, version="2.6.12", curr_conns=3, maxconn=2000, idle_pct=99),
    pools=(
        PoolView(
            name="app",
            up=1,
            total=2,
            servers=(
                ServerView(name="a1", status="UP", up=True, probe=Code.L7OK),
                ServerView(
                    name="a2", status="DOWN", up=False, probe=Code.L7OK, probe_detail="status 200"
                ),
            ),
        ),
    ),
    haproxy=ServiceState(sub="running", main_pid=100),
    keepalived=ServiceState(sub="running", main_pid=200),
    memory=Memory(restarts=(990.0,), attempt=1, next_attempt_s=1001.0),
)

HISTORY: Final = (
    (
        910.0,
        Report(
            name="phase.changed",
            level="info",
            fields=(("from", "LEARNING"), ("to", "UP"), ("reason", "HAProxy is running")),
        ),
    ),
)


#: keepalived's one instance, as the shipped fast pair has it on the master.
VIP: Final = Vip(address="192.168.1.99", prefix=32, interface="eth0")
INSTANCE: Final = VrrpInstance(
    name="VI_1",
    interface="eth0",
    router_id=51,
    version=3,
    priority=254,
    vips=(VIP,),
    track_files=(Tracker(name="sentinel_priority", path="/run/sentinel/track-priority", weight=1),),
)
#: It is MASTER, and has the VIP.
HELD: Final = InstanceView(
    instance=INSTANCE,
    claim=Claim(state=VrrpState.MASTER, since_s=940.0, priority=254, source="FIFO"),
    present=(VIP,),
)
#: A policy under which the priority can be lowered.
LOWERING: Final = replace(POLICY, priority_file="/run/sentinel/track-priority")


def document(
    state: State = HEALTHY, around: Surroundings = AROUND, policy: Policy = POLICY
) -> dict[str, Any]:
    """Return the status document of *state*."""
    return snapshot(policy, stepped(state, policy), HISTORY, around, NOW_S)


def stepped(state: State = HEALTHY, policy: Policy = POLICY) -> State:
    """Return *state* as a step leaves it behind: with what keepalived is told."""
    return tell(policy, state, NOW_S)[0]
