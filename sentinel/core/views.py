"""Take in what a check saw beyond its verdict: processes, saturation, configuration, pools."""

from __future__ import annotations

from dataclasses import replace

from sentinel.actions import Report
from sentinel.core.evidence import alive, saturated
from sentinel.core.lost import lose
from sentinel.core.state import State
from sentinel.events import AddressTaken
from sentinel.model import (
    ConfigurationView,
    Instance,
    ListenersView,
    Observation,
    PeerView,
    Proc,
    ProcessView,
    RuntimeView,
)
from sentinel.vrrp import InstanceView, VrrpView

Absorbed = tuple[State, tuple[Report, ...]]


def see(state: State, seen: Observation, now_s: float) -> Absorbed:
    """Return the state that knows what *seen* shows."""
    match seen.view:
        case ProcessView():
            return _process(state, seen.view, now_s)
        case ListenersView():
            return _listeners(state, seen.view, now_s), ()
        case RuntimeView():
            return _runtime(state, seen.view, now_s)
        case ConfigurationView():
            return _configuration(state, seen.view)
        case tuple():
            return lose(state, seen.view, now_s), ()
        case VrrpView():
            return _vrrp(state, seen.view)
        case PeerView():
            return replace(state, peer=seen.view, peer_heard_s=now_s), ()
        case _:
            return state, ()


def saturation_over(state: State, now_s: float) -> Absorbed:
    """Notice that HAProxy has not been full for a while."""
    if state.saturated_s is None or saturated(state, now_s):
        return state, ()
    return replace(state, saturated_s=None), (Report(name="haproxy.unsaturated", level="info"),)


def _process(state: State, view: ProcessView, now_s: float) -> Absorbed:
    before, worker = state.instance, view.instance.worker if view.instance else None
    same = before is not None and before.worker == worker
    stuck_since_s = None
    if worker is not None and worker in view.stuck:
        kept = state.stuck_since_s if same else None
        stuck_since_s = now_s if kept is None else kept
    state = replace(
        state,
        instance=view.instance,
        process_seen_s=now_s,
        stuck=view.stuck,
        stuck_since_s=stuck_since_s,
    )
    if worker is None or same:
        return state, ()
    return _new_incarnation(state, before, view.instance, worker)


def _new_incarnation(
    state: State, before: Instance | None, after: Instance | None, worker: Proc
) -> Absorbed:
    """Begin another incarnation: nothing that was said of the last one holds for it."""
    name = "haproxy.seen"
    if before is not None and before.worker is not None and after is not None:
        reloaded = after.master is not None and after.master == before.master
        name = "haproxy.reloaded" if reloaded else "haproxy.replaced"
    incarnation = state.incarnation + 1
    fields = (("worker_pid", worker.pid), ("incarnation", incarnation))
    state = replace(state, incarnation=incarnation, runtime=None, unproven=False, orphans={})
    return state, (Report(name=name, level="info", fields=fields),)


def _listeners(state: State, view: ListenersView, now_s: float) -> State:
    """Note since when each process of an earlier HAProxy has been taking connections away.

    An old worker finishes its connections and listens no more; one that is stuck goes on.
    """
    instance = state.instance
    old = instance.old if instance is not None else ()
    holders = {listener.holder for listener in view.foreign}
    stuck = tuple(proc for proc in old if proc in holders and proc in state.stuck)
    orphans = {proc: state.orphans.get(proc, now_s) for proc in (*view.orphans, *stuck)}
    ports = tuple(sorted({listener.port for listener in view.listeners if listener.port}))
    return replace(state, orphans=orphans, listeners_seen_s=now_s, ports=ports)


def _runtime(state: State, view: RuntimeView, now_s: float) -> Absorbed:
    state = replace(state, runtime=view)
    if not view.saturated:
        return state, ()
    first = state.saturated_s is None
    report = Report(
        name="haproxy.saturated",
        level="warning",
        fields=(
            ("reason", view.saturated),
            ("curr_conns", view.curr_conns),
            ("maxconn", view.maxconn),
        ),
    )
    return replace(state, saturated_s=now_s), (report,) if first else ()


def _configuration(state: State, view: ConfigurationView) -> Absorbed:
    was_valid = state.configuration is None or state.configuration.valid
    state = replace(state, configuration=view)
    if was_valid == view.valid:
        return state, ()
    if view.valid:
        return state, (Report(name="configuration.valid", level="info"),)
    report = Report(
        name="configuration.invalid",
        level="error" if alive(state) else "critical",
        fields=(("reason", view.error), ("files", " ".join(view.files))),
    )
    return state, (report,)


def _vrrp(state: State, view: VrrpView) -> Absorbed:
    """Report every change of what keepalived claims, and every VIP that comes or goes."""
    before = {seen.instance.name: seen for seen in state.vrrp.instances} if state.vrrp else {}
    reports: list[Report] = []
    for seen in view.instances:
        known = before.get(seen.instance.name, InstanceView(instance=seen.instance))
        was, now = (str(view.claim.state) if view.claim else "" for view in (known, seen))
        if now not in {"", was}:
            reports.append(_instance_report("vrrp.changed", seen, ("from", was), ("to", now)))
        arrived = [vip for vip in seen.present if vip not in known.present]
        gone = [vip for vip in known.present if vip not in seen.present]
        reports += [_instance_report("vip.arrived", seen, ("vip", str(vip))) for vip in arrived]
        reports += [_instance_report("vip.left", seen, ("vip", str(vip))) for vip in gone]
    return replace(state, vrrp=view), tuple(reports)


def _instance_report(name: str, seen: InstanceView, *fields: tuple[str, str]) -> Report:
    return Report(name=name, level="info", fields=(("instance", seen.instance.name), *fields))


def address_taken(state: State, event: AddressTaken) -> Absorbed:
    """Report a VIP that was taken off this node while keepalived holds it.

    keepalived notices and takes it again, if it lives; who did it will do it again.
    """
    reports = tuple(
        Report(
            name="vip.taken",
            level="error",
            fields=(("instance", seen.instance.name), ("vip", str(vip)), ("by", event.by)),
        )
        for seen in (state.vrrp.instances if state.vrrp else ())
        for vip in seen.present
        if vip.address == event.address
    )
    return state, reports
