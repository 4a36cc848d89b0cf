"""What ``pause``, ``stepdown`` and ``resume`` share: giving an order, and awaiting its effect."""

from __future__ import annotations

import argparse
import os
import pwd
import socket
import sys
import time
from contextlib import suppress
from typing import Any, Final

from sentinel import orders
from sentinel.commands import CONFIG_DEFAULT, Subparsers, configuration
from sentinel.commands.client import UNKNOWN, NoAnswerError, ask, tell
from sentinel.commands.telling import asked, printable
from sentinel.configfile.duration import read_duration, write_duration
from sentinel.configfile.problems import RefusedError
from sentinel.events import Order, Verb

POLL_S: Final = 0.02
CONNECT_TIMEOUT_S: Final = 0.25
#: So many of HAProxy's ports are tried on a VIP; one that answers is enough.
PORTS_MAX: Final = 8


def add_order_parser(
    subparsers: Subparsers, name: str, summary: str, description: str | None
) -> argparse.ArgumentParser:
    """Declare a subcommand that gives an order."""
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if name != "resume":
        parser.add_argument(
            "--for",
            dest="for_s",
            type=_lasting,
            metavar="TIME",
            help="end it by itself after so long, as 30m or 2h (sentinel resume ends it)",
        )
        parser.add_argument("--reason", default="", help="shown in status and logs")
        parser.add_argument(
            "--wait",
            type=_duration,
            default=15.0,
            metavar="TIME",
            help="how long to wait until another node serves (15s)",
        )
    parser.add_argument(
        "--config", default=CONFIG_DEFAULT, metavar="FILE", help="sentinel.toml (%(default)s)"
    )
    return parser


def until(args: argparse.Namespace) -> str:
    """Say when the order ends."""
    if args.for_s is not None:
        return f"for {write_duration(args.for_s)}"
    return "until HAProxy has been started" if _until_start(args) else "until sentinel resume"


def give(args: argparse.Namespace, verb: Verb, done: str) -> int:
    """Give the order, and say what holds now."""
    config = configuration(verb, args.config)
    try:
        tell(config.control_socket, orders.write(_order(args, verb)))
    except NoAnswerError as error:
        print(f"sentinel {verb}: {error}", file=sys.stderr)
        return error.exit_code
    print(done)
    with suppress(NoAnswerError):
        _say_longer(ask(config.status_socket), _order(args, verb))
    return 0


def hand_over(args: argparse.Namespace, verb: Verb) -> int:
    """Give the order, and wait until no VIP is here and each answers from elsewhere."""
    config = configuration(verb, args.config)
    began_s = time.monotonic()
    try:
        before = ask(config.status_socket)
        held = vips(before, present=True)
        tell(config.control_socket, orders.write(_order(args, verb)))
        _say_longer(before, _order(args, verb))
        if not before.get("vrrp"):
            print(
                "the order stands, but keepalived's instances are not known (see sentinel status),"
                " so whether a VIP is still here cannot be told",
                file=sys.stderr,
            )
            return UNKNOWN
        if not held:
            print(f"this node holds no VIP, and takes none {until(args)}")
            return 0
        gone_s, answer_s = _wait(config.status_socket, before, held, began_s + args.wait)
    except NoAnswerError as error:
        print(f"sentinel {verb}: {error}", file=sys.stderr)
        return error.exit_code
    if answer_s is None:
        print(_stuck(config.status_socket, held, gone=gone_s is not None), file=sys.stderr)
        return 1
    took_ms = round((answer_s - began_s) * 1000)
    print(f"{', '.join(held)} is served by another node, {took_ms} ms after the order")
    return 0


def _say_longer(document: dict[str, Any], order: Order) -> None:
    """Say which orders of the same kind hold on when *order* is over."""
    kind = "paused" if order.verb is Verb.PAUSE else "stepped_down"
    for known in document.get("orders", ()):  # an older daemon knows of one at most
        if known[kind] and _outlasts(known, order):
            print(f"this holds as well: {printable(asked(known))}")


def _outlasts(known: dict[str, Any], order: Order) -> bool:
    left_ms = known["ends_in_ms"]
    if order.for_s is not None:
        return left_ms is None or left_ms > order.for_s * 1000
    return order.until_start and not known["until_start"]


def vips(document: dict[str, Any], *, present: bool) -> list[str]:
    """Return the VIPs that are on this node, or are not."""
    return [
        vip["address"]
        for instance in document.get("vrrp", ())  # an older daemon knows of none
        for vip in instance["vips"]
        if vip["present"] is present
    ]


def _wait(
    path: str, document: dict[str, Any], held: list[str], until_s: float
) -> tuple[float | None, float | None]:
    """Return when the VIPs had gone and when each answered; None for what did not happen."""
    ports = document["haproxy"]["ports"][:PORTS_MAX]
    gone_s = None
    while time.monotonic() < until_s:
        if gone_s is None:
            if not set(held) & set(vips(ask(path), present=True)):
                gone_s = time.monotonic()
        elif not ports or all(_answers(address, ports) for address in held):
            return gone_s, time.monotonic()
        time.sleep(POLL_S)
    return gone_s, None


def _answers(address: str, ports: list[int]) -> bool:
    """Tell whether *address* answers on any of HAProxy's ports; not all of them need be its own."""
    for port in ports:
        with suppress(OSError):
            socket.create_connection((address, port), CONNECT_TIMEOUT_S).close()
            return True
    return False


def _stuck(path: str, held: list[str], *, gone: bool) -> str:
    words = ", ".join(held)
    if gone:
        return f"{words} has left this node, but answers nowhere: look at the other node"
    try:
        reason = ask(path)["hand_over_by_fault"]
    except NoAnswerError:
        reason = ""
    cure = f" ({reason})" if reason else ": is another node there to take it?"
    return f"{words} is still here{cure}; the order stands: sentinel resume takes it back"


def _order(args: argparse.Namespace, verb: Verb) -> Order:
    return Order(
        verb=verb,
        for_s=getattr(args, "for_s", None),
        reason=getattr(args, "reason", "").encode(errors="replace").decode(),
        by=os.environ.get("SUDO_USER") or _user(),
        drain=getattr(args, "drain", False),
        until_start=_until_start(args),
    )


def _until_start(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "until_start", False))


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _lasting(text: str) -> float:
    for_s = _duration(text)
    if not 0 < for_s <= orders.FOR_MAX_S:
        raise argparse.ArgumentTypeError(orders.FOR_REFUSED)
    return for_s


def _duration(text: str) -> float:
    try:
        return read_duration(text)
    except RefusedError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
