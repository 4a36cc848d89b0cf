"""What systemd hears, on a real notification socket."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sentinel.drivers.notify import STATUS_LENGTH_MAX, Notifier


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the service manager that may run these tests."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """Yield systemd's end of $NOTIFY_SOCKET, in the file system and in the abstract namespace."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@sentinel-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0"))
        receiver.settimeout(0)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield receiver


def heard(receiver: socket.socket) -> list[bytes]:
    """Take all messages that wait."""
    messages = []
    with suppress(BlockingIOError):
        while True:
            messages.append(receiver.recv(4096))
    return messages


def test_each_message_is_said_as_sd_notify_defines_it(systemd: socket.socket) -> None:
    """The life of a service, in systemd's words, one datagram each."""
    with closing(Notifier()) as notifier:
        assert notifier.enabled
        notifier.ready()
        notifier.status("haproxy UP, 2/2 probes pass")
        notifier.watchdog()
        notifier.stopping()
    assert heard(systemd) == [
        b"READY=1",
        b"STATUS=haproxy UP, 2/2 probes pass",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


def test_reload_carries_the_monotonic_clock(systemd: socket.socket) -> None:
    """Type=notify-reload wants CLOCK_MONOTONIC in microseconds beside RELOADING=1."""
    before_us = time.monotonic_ns() // 1000
    with closing(Notifier()) as notifier:
        notifier.reloading()
    [message] = heard(systemd)
    match = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", message)
    assert match
    assert before_us <= int(match[1]) <= time.monotonic_ns() // 1000


def test_status_is_one_short_line_of_ascii(systemd: socket.socket) -> None:
    """Characters that sdnotify would choke on are escaped, and no variable is smuggled in."""
    with closing(Notifier()) as notifier:
        notifier.status("probe Zürich ✓\nREADY=1")
        notifier.status("x" * 10_000)
    first, second = heard(systemd)
    assert first == rb"STATUS=probe Z\xfcrich \u2713 READY=1"
    assert second == b"STATUS=" + b"x" * STATUS_LENGTH_MAX


def test_full_socket_holds_nothing_up(systemd: socket.socket) -> None:
    """While systemd does not read, messages are dropped and counted; later ones arrive."""
    with closing(Notifier()) as notifier:
        for _ in range(1000):
            notifier.watchdog()
        assert len(heard(systemd)) == 1000 - notifier.dropped
        assert notifier.dropped > 0
        notifier.watchdog()
        assert heard(systemd) == [b"WATCHDOG=1"]


def test_replaced_socket_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service manager that opened its socket anew is found again by the same message."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with closing(Notifier()) as notifier:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
            first.bind(str(tmp_path / "notify"))
            notifier.ready()
        (tmp_path / "notify").unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
            second.bind(str(tmp_path / "notify"))
            second.settimeout(0)
            notifier.watchdog()
            assert heard(second) == [b"WATCHDOG=1"]
        assert notifier.dropped == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_missing_socket_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is not there costs a count; sdnotify leaves its own half-made one behind."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with closing(Notifier()) as notifier:
        notifier.ready()
        assert (notifier.enabled, notifier.dropped) == (True, 1)


def test_without_a_service_manager_nothing_is_said() -> None:
    """Outside systemd every call is a quiet no, and this is known."""
    with closing(Notifier()) as notifier:
        notifier.ready()
        notifier.watchdog()
        assert (notifier.enabled, notifier.dropped, notifier.watchdog_s) == (False, 0, None)


@pytest.mark.parametrize(
    ("usec", "pid", "watchdog_s"),
    [
        ("2000000", None, 2.0),
        ("500000", os.getpid(), 0.5),
        ("2000000", 1, None),
        ("0", None, None),
        ("soon", None, None),
        ("", None, None),
    ],
)
def test_watchdog_period_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: int | None, watchdog_s: float | None
) -> None:
    """$WATCHDOG_USEC counts only when it is meant for this process."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(pid))
    with closing(Notifier()) as notifier:
        assert notifier.watchdog_s == watchdog_s
