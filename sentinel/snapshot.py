"""What ``sentinel status`` shows: the supervisor's state as one JSON document.

The document is for programs: keys are only ever added, and *schema_version* rises when one
changes its meaning. Ages and durations are in milliseconds, times in UTC; a value that is not
known is null, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from sentinel.actions import Report
from sentinel.core import CheckState, Intent, Phase, Policy, State
from sentinel.core.evidence import hold_s, restarts_in_window, saturated
from sentinel.core.intent import lasting
from sentinel.core.standing import failing, why_not_lowered
from sentinel.model import ConfigurationView, PoolView, Proc
from sentinel.vrrp import InstanceView

SCHEMA_VERSION: Final = 1


class Overall(Enum):
    """The one word for a node; ``sentinel status`` exits 0 for HEALTHY, 4 for UNKNOWN, else 1."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the core does not know but people ask about."""

    node: str
    version: str
    pid: int
    started_s: float
    lease_written_s: float | None
    lease_s: float
    hook_age_s: float | None
    errors: tuple[str, ...]
    log_dropped: int
    advice: tuple[str, ...]
    dry_run: bool


def overall(policy: Policy, state: State, now_s: float) -> Overall:
    """Sum a node up in one word."""
    if state.standing is None:
        return Overall.UNKNOWN
    if state.phase is not Phase.UP:
        return Overall.FAILED
    down = any(not check.health.up for check in state.checks.values())
    invalid = state.configuration is not None and not state.configuration.valid
    troubled = (
        down,
        invalid,
        saturated(state, now_s),
        state.hook_silent,
        state.memory.keepalived_stopped,
        bool(state.memory.intents),
        bool(failing(policy, state, now_s)),
    )
    return Overall.DEGRADED if any(troubled) else Overall.HEALTHY


def snapshot(
    policy: Policy,
    state: State,
    history: Iterable[tuple[float, Report]],
    around: Surroundings,
    now_s: float,
) -> dict[str, Any]:
    """Return the whole document, ready for ``json.dumps``."""
    told = state.standing
    return {
        "schema_version": SCHEMA_VERSION,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "node": around.node,
        "version": around.version,
        "pid": around.pid,
        "uptime_ms": _ms(now_s - around.started_s),
        "dry_run": around.dry_run,
        "overall": overall(policy, state, now_s).value,
        "phase": state.phase.value,
        "previous_phase": state.previous.value,
        "phase_age_ms": _ms(now_s - state.phase_since_s),
        "reason": state.reason,
        "serving": None if told is None else told.serving,
        "serving_reason": "" if told is None else told.reason,
        "lowered": 0 if told is None else told.lowered,
        "hand_over_by_fault": why_not_lowered(policy, state),
        "intent": _intent(state.memory.intents, now_s),
        "orders": [_order(intent, now_s) for intent in state.memory.intents],
        "haproxy": _haproxy(state, now_s),
        "restarts": _restarts(policy, state, now_s),
        "checks": [
            _check(policy, name, check, now_s) for name, check in sorted(state.checks.items())
        ],
        "pools": [_pool(pool) for pool in state.pools],
        "keepalived": _keepalived(state, around),
        "vrrp": [_instance(seen, now_s) for seen in state.vrrp.instances] if state.vrrp else [],
        "peer": asdict(state.peer) if state.peer else None,
        "held_for_ms": _held_for_ms(policy, state, now_s),
        "lease": _lease(around, now_s),
        "pending": [
            type(action).__name__
            for action in (state.in_flight, state.keepalived_in_flight, state.fencing)
            if action is not None
        ],
        "errors": list(around.errors),
        "advice": list(around.advice),
        "log_dropped": around.log_dropped,
        "history": [_event(at_s, report, now_s) for at_s, report in history],
    }


def _haproxy(state: State, now_s: float) -> dict[str, Any]:
    instance, runtime, configuration = state.instance, state.runtime, state.configuration
    return {
        "incarnation": state.incarnation,
        "master_pid": _pid(instance.master if instance else None),
        "worker_pid": _pid(instance.worker if instance else None),
        "old_worker_pids": [proc.pid for proc in instance.old] if instance else [],
        "version": runtime.version if runtime else "",
        "curr_conns": runtime.curr_conns if runtime else None,
        "maxconn": runtime.maxconn if runtime else None,
        "idle_pct": runtime.idle_pct if runtime else None,
        "ports": list(state.ports),
        "saturated": saturated(state, now_s),
        "service": asdict(state.haproxy) if state.haproxy else None,
        "configuration": _configuration(configuration) if configuration else None,
    }


def _configuration(view: ConfigurationView) -> dict[str, Any]:
    return {"valid": view.valid, "error": view.error, "files": list(view.files)}


def _restarts(policy: Policy, state: State, now_s: float) -> dict[str, Any]:
    waiting_s = max(0.0, state.memory.next_attempt_s - now_s)
    return {
        "used": len(restarts_in_window(policy, state, now_s)),
        "budget": policy.restart_budget,
        "window_ms": _ms(policy.restart_window_s),
        "attempt": state.memory.attempt,
        "next_attempt_in_ms": _ms(waiting_s),
    }


def _check(policy: Policy, name: str, check: CheckState, now_s: float) -> dict[str, Any]:
    known = policy.checks.get(name)
    return {
        "name": name,
        "scope": check.last.scope.value,
        "state": str(check.health),
        "verdict": check.last.verdict.value,
        "check_code": check.last.code.value,
        "last_chk": check.last.detail,
        "check_duration_ms": round(check.last.duration_ms, 2),
        "age_ms": _ms(now_s - check.last_begun_s),
        "since_ms": _ms(now_s - check.changed_s),
        "yields": known is not None and known.yields,
    }


def _pool(pool: PoolView) -> dict[str, Any]:
    return {
        "name": pool.name,
        "up": pool.up,
        "total": pool.total,
        "servers": [
            {
                "name": server.name,
                "status": server.status,
                "probe": None if server.probe is None else server.probe.value,
                "probe_detail": server.probe_detail,
                "disagrees": server.disagrees,
            }
            for server in pool.servers
        ],
    }


def _keepalived(state: State, around: Surroundings) -> dict[str, Any]:
    return {
        "service": asdict(state.keepalived) if state.keepalived else None,
        "stopped_by_sentinel": state.memory.keepalived_stopped,
        "hook_called_age_ms": None if around.hook_age_s is None else _ms(around.hook_age_s),
        "hook_silent": state.hook_silent,
    }


def _intent(intents: tuple[Intent, ...], now_s: float) -> dict[str, Any]:
    """Sum up what is asked of this node; all but the first two is of the order that ends last."""
    return {
        **_order(lasting(intents), now_s),
        "paused": any(intent.pauses for intent in intents),
        "stepped_down": any(intent.steps_down for intent in intents),
    }


def _order(intent: Intent | None, now_s: float) -> dict[str, Any]:
    """Return one order, or the lack of any."""
    if intent is None:
        return {"ends_in_ms": None, "until_start": False, "reason": "", "by": ""}
    until_s = intent.until_s
    return {
        "paused": intent.pauses,
        "stepped_down": intent.steps_down,
        "ends_in_ms": None if until_s is None else _ms(max(0.0, until_s - now_s)),
        "until_start": intent.until_worker is not None,
        "reason": intent.reason,
        "by": intent.by,
    }


def _held_for_ms(policy: Policy, state: State, now_s: float) -> int | None:
    """Return how long the VIP is still held back after a failure; None when it is not."""
    if state.phase is not Phase.HOLDING:
        return None
    return _ms(max(0.0, state.healthy_since_s + hold_s(policy, state) - now_s))


def _instance(seen: InstanceView, now_s: float) -> dict[str, Any]:
    instance, claim = seen.instance, seen.claim
    return {
        "name": instance.name,
        "interface": instance.interface,
        "state": claim.state.value if claim else None,
        "state_age_ms": _ms(now_s - claim.since_s) if claim else None,
        "source": claim.source if claim else None,
        "priority": instance.priority,
        "effective_priority": claim.priority if claim else None,
        "vips": [
            {
                "address": vip.address,
                "prefix": vip.prefix,
                "interface": vip.interface,
                "present": vip in seen.present,
            }
            for vip in instance.vips
        ],
    }


def _lease(around: Surroundings, now_s: float) -> dict[str, Any]:
    written_s = around.lease_written_s
    if written_s is None:
        return {"age_ms": None, "expires_in_ms": None}
    return {
        "age_ms": _ms(now_s - written_s),
        "expires_in_ms": _ms(written_s + around.lease_s - now_s),
    }


def _event(at_s: float, report: Report, now_s: float) -> dict[str, Any]:
    age_s = now_s - at_s
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    return {
        "time": at.isoformat(timespec="milliseconds"),
        "age_ms": _ms(age_s),
        "event": report.name,
        "level": report.level,
        "fields": dict(report.fields),
    }


def _pid(proc: Proc | None) -> int | None:
    return None if proc is None else proc.pid


def _ms(duration_s: float) -> int:
    return round(duration_s * 1000)
