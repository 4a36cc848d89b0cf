"""``sentinel status``: what sentinel sees, has done and is about to do.

Exit status: 0 healthy, 1 degraded or failed, 3 sentinel is not running, 4 unknown (also when the
socket may not be read). 0, 3 and 4 are those of LSB's init scripts, whose 1 is a dead daemon.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from sentinel import __version__
from sentinel.commands import CONFIG_DEFAULT, Subparsers, configuration
from sentinel.commands.client import UNKNOWN, NoAnswerError, ask
from sentinel.commands.telling import age, asked, printable, told

_SERVERS_SHOWN: Final = 8
_EXIT: Final = {"healthy": 0, "degraded": 1, "failed": 1, "unknown": UNKNOWN}
_COLOURS: Final = {"healthy": "32", "degraded": "33", "failed": "31", "unknown": "35"}


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "status",
        help="show what sentinel sees, has done and is about to do",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="one JSON document for programs")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=2.0,
        metavar="SECONDS",
        help="show it again every SECONDS (default 2) until interrupted",
    )
    parser.add_argument("--socket", metavar="PATH", help="status socket (the configured one)")
    parser.add_argument(
        "--config", default=CONFIG_DEFAULT, metavar="FILE", help="sentinel.toml (%(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, print, and say it in the exit status as well."""
    path = args.socket or configuration("status", args.config).status_socket
    while True:
        code = _show(path, as_json=args.json, clear=args.watch is not None and not args.json)
        if args.watch is None:
            return code
        time.sleep(max(0.2, args.watch))


def _show(path: str, *, as_json: bool, clear: bool) -> int:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")  # no-color.org
    try:
        document = ask(path)
        page = json.dumps(document) if as_json else _page(document, colour=colour)
    except NoAnswerError as error:
        print(f"sentinel status: {error}", file=sys.stderr)
        return error.exit_code
    if clear and sys.stdout.isatty():
        print("\x1b[2J\x1b[H", end="")
    print(page, flush=True)
    return _EXIT.get(document.get("overall", ""), UNKNOWN)


def _page(document: dict[str, Any], *, colour: bool) -> str:
    """Render what may come from another version, whose document may lack what this one shows."""
    version = document.get("version")
    try:
        return render(document, colour=colour)
    except KeyError as error:
        if version == __version__:
            raise
        raise NoAnswerError(
            f"sentinel {version} is running, and this is {__version__}: systemctl restart"
            " sentinel, or read it with --json",
            UNKNOWN,
        ) from error


def render(document: dict[str, Any], *, colour: bool) -> str:
    """Return the document as a page for people."""
    haproxy, keepalived = document["haproxy"], document["keepalived"]
    restarts, lease = document["restarts"], document["lease"]
    word = document["overall"].upper()
    serving = {True: "serving", False: "yielding", None: "undecided"}[document["serving"]]
    used = f"{restarts['used']} of {restarts['budget']} in {age(restarts['window_ms'])}"
    before = f"(before: {document['previous_phase']}): {document['reason']}"
    dry_run = "  (dry run: acts on nothing)" if document["dry_run"] else ""
    rows = [
        ("node", f"{document['node']}  {word}  {serving}{_because(document)}{dry_run}"),
        ("phase", f"{document['phase']} for {age(document['phase_age_ms'])} {before}"),
        *_held(document["held_for_ms"]),
        ("haproxy", _haproxy(haproxy)),
        *(("asked", asked(order)) for order in document["orders"]),
        ("restarts", used + _next_attempt(document)),
        ("keepalived", _keepalived(keepalived)),
        *(("vrrp", _instance(instance)) for instance in document["vrrp"]),
        *_hand_over(document),
        *_peer(document["peer"]),
        ("lease", f"{age(lease['age_ms'])} old, runs out in {age(lease['expires_in_ms'])}"),
        ("pending", ", ".join(document["pending"]) or "nothing"),
        ("log", f"{document['log_dropped']} events dropped"),
    ]
    rows += [("error", error) for error in document["errors"]]
    rows += [("advice", advice) for advice in document["advice"]]
    lines = [f"{name:<11}{printable(text)}" for name, text in rows]
    lines += ["", *_checks(document["checks"]), *_pools(document), *_events(document)]
    page = "\n".join(lines)
    return page.replace(word, _painted(word, document["overall"]), 1) if colour else page


def _because(document: dict[str, Any]) -> str:
    """Say why this node yields, or wants to be relieved by a better one."""
    lowered = document["lowered"]
    if document["serving"] and not lowered:
        return ""
    words = f", priority lowered by {lowered}" if lowered else ""
    return f"{words}: {document['serving_reason']}"


def _held(left_ms: int | None) -> list[tuple[str, str]]:
    """Say until when the VIP is held back, while it is."""
    return [] if left_ms is None else [("hold", f"ends in {age(left_ms)}, if all stays well")]


def _haproxy(haproxy: dict[str, Any]) -> str:
    old = haproxy["old_worker_pids"]
    parts = [
        f"incarnation {haproxy['incarnation']}",
        f"master {haproxy['master_pid'] or '-'} worker {haproxy['worker_pid'] or '-'}",
    ]
    if old:
        parts.append(f"old workers {' '.join(map(str, old))}")
    if haproxy["version"]:
        parts.append(f"version {haproxy['version']}")
    if haproxy["maxconn"]:
        parts.append(f"connections {haproxy['curr_conns']} of {haproxy['maxconn']}")
    if haproxy["saturated"]:
        parts.append("SATURATED")
    service = haproxy["service"]
    if service and service["has_jobs"]:
        parts.append(_unit(service))
    configuration = haproxy["configuration"]
    if configuration and not configuration["valid"]:
        parts.append(f"CONFIGURATION INVALID: {configuration['error']}")
    return ", ".join(parts)


def _unit(service: dict[str, Any]) -> str:
    """Say what the service manager said; plain commands have nothing to say."""
    if not service["has_jobs"]:
        return "run by plain commands"
    if not service["known"]:
        return f"unit unknown: {service['detail']}"
    masked = " (masked)" if service["masked"] else ""
    return f"unit {service['active']}/{service['sub']}{masked}"


def _next_attempt(document: dict[str, Any]) -> str:
    """Say when the next restart may be made, where one may be wanted."""
    waiting_ms = document["restarts"]["next_attempt_in_ms"]
    if not waiting_ms or document["phase"] in {"UP", "HOLDING", "MAINT"}:
        return ""
    return f", next attempt not before {age(waiting_ms)} from now"


def _keepalived(keepalived: dict[str, Any]) -> str:
    service = keepalived["service"]
    state = _unit(service) if service else "not asked yet"
    called = keepalived["hook_called_age_ms"]
    hook = "has never called the hook" if called is None else f"called the hook {age(called)} ago"
    parts = [state, hook]
    if keepalived["hook_silent"]:
        parts.append("NO LONGER CALLS THE HOOK")
    if keepalived["stopped_by_sentinel"]:
        parts.append("STOPPED BY SENTINEL")
    return ", ".join(parts)


def _instance(instance: dict[str, Any]) -> str:
    """Say what keepalived claims, since when, and what of it the kernel shows."""
    here = [vip["address"] for vip in instance["vips"] if vip["present"]]
    away = [vip["address"] for vip in instance["vips"] if not vip["present"]]
    source = f" by its {instance['source']}" if instance["source"] else ""
    state, lasted = instance["state"], age(instance["state_age_ms"])
    claim = f"{state} (claimed{source}) for {lasted}" if state else "state unknown"
    priority = instance["effective_priority"]
    parts = [f"{instance['name']} on {instance['interface']}: {claim}"]
    parts += [f"priority {instance['priority']}" + (f", now {priority}" if priority else "")]
    parts += [f"VIP here: {' '.join(here)}"] if here else []
    parts += [f"VIP not here: {' '.join(away)}"] if away else []
    return ", ".join(parts)


def _hand_over(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Say why a planned hand-over would cost an outage, where it would."""
    reason = document["hand_over_by_fault"]
    return [("hand-over", f"by FAULT: {reason}")] if reason and document["vrrp"] else []


def _peer(peer: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say what the other node's sentinel last said of itself, where it is asked."""
    if peer is None:
        return []
    serving = {True: "serving", False: "not serving", None: "undecided"}[peer["serving"]]
    servers = f"{peer['servers_up']} of {peer['servers_total']} servers up"
    return [("peer", f"{peer['node']}  {peer['overall'].upper()}  {serving}, {servers}")]


def _checks(checks: list[dict[str, Any]]) -> list[str]:
    header = ("check", "state", "code", "for", "age", "ms", "last result")
    body = [
        (
            check["name"],
            check["state"] if check["verdict"] != "UNKNOWN" else f"{check['state']} ?",
            check["check_code"],
            age(check["since_ms"]),
            age(check["age_ms"]),
            f"{check['check_duration_ms']:.1f}",
            check["last_chk"],
        )
        for check in checks
    ]
    return table([header, *body])


def _pools(document: dict[str, Any]) -> list[str]:
    if not document["pools"]:
        return []
    rows = [("pool", "up", "servers")]
    for pool in document["pools"]:
        shown = sorted(pool["servers"], key=_is_well)[:_SERVERS_SHOWN]
        servers = " ".join(
            f"{server['name']}={server['status']}" + _disagreement(server) for server in shown
        )
        more = len(pool["servers"]) - len(shown)
        rows.append(
            (
                pool["name"],
                f"{pool['up']}/{pool['total']}",
                servers + (f" +{more}" if more > 0 else ""),
            )
        )
    return ["", *table(rows)]


def _is_well(server: dict[str, Any]) -> bool:
    """Tell which servers may be left out first."""
    return server["status"] in {"UP", "no check"} and not server["disagrees"]


def _disagreement(server: dict[str, Any]) -> str:
    if not server["disagrees"]:
        return ""
    return f"(but our probe: {server['probe']} {server['probe_detail']})".replace(" )", ")")


def _events(document: dict[str, Any]) -> list[str]:
    rows = [
        (age(event["age_ms"]), event["event"], told(event)) for event in document["history"][-6:]
    ]
    return ["", *table([("ago", "event", "why"), *rows])] if rows else []


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines with aligned columns; the last column is as long as it likes."""
    rows = [tuple(printable(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join(
            [*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        for row in rows
    ]


def _painted(word: str, overall: str) -> str:
    return f"\x1b[1;{_COLOURS[overall]}m{word}\x1b[0m"
