"""The log: what an event looks like, and that nobody who reads it can hold sentinel up."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rsyslogds import Rsyslogd, rsyslogd_in, wait_until

from sentinel.config import Facility, Level, Log
from sentinel.log import JSON_BYTES_MAX, EventLog, configure
from sentinel.log.outlet import BACKLOG_MAX


@dataclass
class Line:
    """One syslog message, taken apart."""

    priority: int
    pid: int
    event: dict[str, Any]


def read_line(message: bytes) -> Line:
    """Take a message apart, as rsyslog does."""
    match = re.fullmatch(rb"<(\d+)>sentinel\[(\d+)\]: @cee: (\{.*\})", message)
    assert match, message
    return Line(priority=int(match[1]), pid=int(match[2]), event=json.loads(match[3]))


def read_all(receiver: socket.socket) -> list[Line]:
    """Take all datagrams that wait."""
    lines = []
    with suppress(BlockingIOError):
        while True:
            lines.append(read_line(receiver.recv(65536)))
    return lines


def datagram_receiver(path: Path) -> socket.socket:
    """Listen as a syslog daemon does on /dev/log."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(path))
    receiver.settimeout(0)
    return receiver


def log_to(target: object, *, level: Level = Level.INFO, stderr: int | None = None) -> EventLog:
    """Open a log for node lb1."""
    return configure(Log(target=str(target), level=level), node="lb1", stderr=stderr)


@pytest.fixture
def dev_log(tmp_path: Path) -> Iterator[socket.socket]:
    """Yield a syslog daemon's datagram socket at tmp_path/log."""
    with datagram_receiver(tmp_path / "log") as receiver:
        yield receiver


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    """Yield a log that goes to tmp_path/log."""
    with closing(log_to(tmp_path / "log")) as log:
        yield log


def numbers(lines: list[Line]) -> list[int]:
    """Return the field ``n`` of each event that has one."""
    return [line.event["n"] for line in lines if "n" in line.event]


def gaps(lines: list[Line]) -> list[int]:
    """Return the counts told by log.dropped."""
    return [line.event["count"] for line in lines if line.event["event"] == "log.dropped"]


# --- one event --------------------------------------------------------------------------------


def test_event_is_one_json_object_after_the_cee_cookie(
    dev_log: socket.socket, log: EventLog
) -> None:
    """An event carries its name, level, UTC time in milliseconds, node and fields, in order."""
    log.emit("haproxy.died", "error", {"pid": 7, "reason": "SIGKILL", "sure": True, "age_s": 0.5})
    [line] = read_all(dev_log)
    assert line.priority == 19 * 8 + 3
    assert line.pid == os.getpid()
    assert list(line.event) == ["event", "level", "time", "node", "pid", "reason", "sure", "age_s"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.event.pop("time"))
    assert line.event == {
        "event": "haproxy.died",
        "level": "error",
        "node": "lb1",
        "pid": 7,
        "reason": "SIGKILL",
        "sure": True,
        "age_s": 0.5,
    }


@pytest.mark.parametrize(
    ("facility", "level", "priority"),
    [
        (Facility.KERN, "critical", 2),
        (Facility.DAEMON, "warning", 28),
        (Facility.LOCAL3, "info", 158),
        (Facility.LOCAL7, "debug", 191),
    ],
)
def test_priority_is_facility_times_eight_plus_severity(
    dev_log: socket.socket, tmp_path: Path, facility: Facility, level: str, priority: int
) -> None:
    """The number in front follows RFC 5424, section 6.2.1."""
    settings = Log(target=str(tmp_path / "log"), facility=facility, level=Level.DEBUG)
    with closing(configure(settings, node="lb1", stderr=None)) as log:
        log.emit("check.failed", level)
    assert [line.priority for line in read_all(dev_log)] == [priority]


def test_events_below_the_level_are_not_logged(dev_log: socket.socket, tmp_path: Path) -> None:
    """A log at warning passes warnings and leaves info out."""
    with closing(log_to(tmp_path / "log", level=Level.WARNING)) as log:
        log.emit("check.passed", "info")
        log.emit("check.failed", "warning")
    assert [line.event["event"] for line in read_all(dev_log)] == ["check.failed"]


def test_field_cannot_replace_the_head_of_an_event(dev_log: socket.socket, log: EventLog) -> None:
    """A field that is named as the head is keeps its value under another name."""
    log.emit("haproxy.died", "info", {"event": "x", "level": "y", "time": "z", "node": "w"})
    [line] = read_all(dev_log)
    assert line.event["event"] == "haproxy.died"
    assert [line.event[key] for key in ("event_", "level_", "time_", "node_")] == list("xyzw")


def test_infinity_and_nan_stay_valid_json(dev_log: socket.socket, log: EventLog) -> None:
    """Numbers that JSON lacks are spelt out."""
    log.emit("check.passed", "info", {"a": float("inf"), "b": float("nan")})
    [line] = read_all(dev_log)
    assert (line.event["a"], line.event["b"]) == ("inf", "nan")


def test_crash_is_logged_with_frames_and_without_locals(
    dev_log: socket.socket, log: EventLog
) -> None:
    """An uncaught exception becomes keys, and the values around it stay at home."""
    password = "hunter2"  # noqa: S105  (that it does not leak is the point)
    try:
        int("x" if password else "")
    except ValueError as error:
        log.crashed("sentinel.crashed", error)
    [line] = read_all(dev_log)
    [exception] = line.event["exception"]
    assert exception["exc_type"] == "ValueError"
    assert exception["frames"][-1]["name"] == "test_crash_is_logged_with_frames_and_without_locals"
    assert password not in json.dumps(line.event)
    assert line.event["level"] == "critical"


def fail_because_of(error: BaseException | None) -> None:
    """Raise with a cause."""
    raise ValueError from error


def test_endless_chain_of_exceptions_is_cut(dev_log: socket.socket, log: EventLog) -> None:
    """Too many frames for one line leave the head of the event, and say so."""
    error: BaseException | None = None
    for _ in range(200):
        try:
            fail_because_of(error)
        except ValueError as next_error:
            error = next_error
    assert error is not None
    log.crashed("sentinel.crashed", error)
    [line] = read_all(dev_log)
    assert line.event["event"] == "sentinel.crashed"
    assert line.event["truncated"] is True


@given(
    fields=st.dictionaries(
        st.text(max_size=40),
        st.one_of(
            st.text(st.characters(), max_size=200),
            st.text(st.characters(), min_size=1, max_size=20).map(lambda text: text * 2000),
            st.integers(),
            st.floats(),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_every_event_is_valid_json_of_bounded_size(fields: dict[str, Any]) -> None:
    """Whatever the fields hold, lone surrogates included, a line can be read and is short."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "log")
        with datagram_receiver(path) as receiver, closing(log_to(path)) as log:
            log.emit("check.failed", "info", fields)
            message = receiver.recv(65536)
    assert read_line(message).event["event"] == "check.failed"
    assert len(message) <= JSON_BYTES_MAX + 40


def configure_on(stderr: socket.socket) -> EventLog:
    """Open a log whose stderr is a socket."""
    return configure(Log(target="none"), node="lb1", stderr=stderr.fileno())


def test_longest_text_is_shortened_first(dev_log: socket.socket, log: EventLog) -> None:
    """A huge field is cut and marked, and the short ones beside it stay whole."""
    log.emit("check.failed", "info", {"detail": "ä" * 100_000, "check": "web"})
    [line] = read_all(dev_log)
    assert line.event["check"] == "web"
    assert line.event["detail"].startswith("äää")
    assert line.event["detail"].endswith("…")
    assert len(json.dumps(line.event, ensure_ascii=False).encode()) <= JSON_BYTES_MAX


def test_rich_is_not_imported_even_where_it_is_installed(tmp_path: Path) -> None:
    """Structlog would import rich, which costs the daemon 6 MB."""
    (tmp_path / "rich.py").write_text("raise SystemExit('rich was imported')\n")
    code = "import sys, sentinel.log; print('rich' in sys.modules, 'structlog' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("False True\n", "")


# --- a Unix datagram socket, as /dev/log ------------------------------------------------------


def test_receiver_that_does_not_read_holds_nothing_up(
    dev_log: socket.socket, log: EventLog
) -> None:
    """Events beyond the kernel's queue wait, then drop; the others arrive in order."""
    for n in range(1000):
        log.emit("check.failed", "info", {"n": n})
    assert log.waiting == BACKLOG_MAX
    lines = read_all(dev_log)
    taken = len(lines)
    assert log.dropped.busy == log.dropped.total == 1000 - taken - BACKLOG_MAX
    while log.waiting:
        log.retry()
        lines += read_all(dev_log)
    assert numbers(lines) == list(range(taken + BACKLOG_MAX))
    assert gaps(lines) == [1000 - taken - BACKLOG_MAX]
    assert lines[-1].event["event"] == "log.dropped"


def test_events_after_a_gap_follow_the_line_that_tells_of_it(
    dev_log: socket.socket, log: EventLog
) -> None:
    """Once a receiver reads again, log.dropped stands exactly between before and after."""
    for n in range(500):
        log.emit("check.failed", "info", {"n": n})
    lines = read_all(dev_log)
    while log.waiting:
        log.retry()
        lines += read_all(dev_log)
    log.emit("check.passed", "info", {"n": 500})
    lines += read_all(dev_log)
    [gap] = gaps(lines)
    assert numbers(lines) == [*range(500 - gap), 500]
    assert [line.event["event"] for line in lines[-2:]] == ["log.dropped", "check.passed"]


def test_missing_socket_is_waited_for(tmp_path: Path, log: EventLog) -> None:
    """Events from before the syslog daemon's start arrive once it is there."""
    for n in range(300):
        log.emit("check.failed", "info", {"n": n})
    assert log.waiting == BACKLOG_MAX
    assert log.dropped.unreachable == log.dropped.total == 300 - BACKLOG_MAX
    with datagram_receiver(tmp_path / "log") as receiver:
        lines = []
        while log.waiting:
            log.retry()
            lines += read_all(receiver)
    assert numbers(lines) == list(range(BACKLOG_MAX))
    assert gaps(lines) == [300 - BACKLOG_MAX]


def test_restarted_receiver_loses_nothing(
    tmp_path: Path, dev_log: socket.socket, log: EventLog
) -> None:
    """A socket that is removed and made again, as rsyslogd does at a restart, is followed."""
    log.emit("check.failed", "info", {"n": 0})
    lines = read_all(dev_log)
    dev_log.close()
    (tmp_path / "log").unlink()
    log.emit("check.failed", "info", {"n": 1})
    assert log.waiting == 1
    with datagram_receiver(tmp_path / "log") as receiver:
        log.retry()
        log.emit("check.failed", "info", {"n": 2})
        lines += read_all(receiver)
    assert numbers(lines) == [0, 1, 2]
    assert log.dropped.total == 0


def test_receiver_restarted_between_two_events_is_not_noticed(
    tmp_path: Path, dev_log: socket.socket, log: EventLog
) -> None:
    """The first event after a restart reconnects at once, without waiting for a tick."""
    log.emit("check.failed", "info", {"n": 0})
    dev_log.close()
    (tmp_path / "log").unlink()
    with datagram_receiver(tmp_path / "log") as receiver:
        log.emit("check.failed", "info", {"n": 1})
        assert numbers(read_all(receiver)) == [1]


def test_hung_receiver_that_was_replaced_is_left(
    tmp_path: Path, dev_log: socket.socket, log: EventLog
) -> None:
    """A daemon that hangs with its socket open does not keep the events from its successor."""
    for n in range(50):
        log.emit("check.failed", "info", {"n": n})
    assert log.waiting
    (tmp_path / "log").unlink()
    with datagram_receiver(tmp_path / "log") as successor:
        lines = []
        while log.waiting:
            log.retry()
            lines += read_all(successor)
    assert numbers(read_all(dev_log) + lines) == list(range(50))


def test_removed_path_keeps_a_living_receiver(
    tmp_path: Path, dev_log: socket.socket, log: EventLog
) -> None:
    """Where only the name /dev/log is gone, the connection still stands and is used."""
    log.emit("check.failed", "info", {"n": 0})
    (tmp_path / "log").unlink()
    log.emit("check.failed", "info", {"n": 1})
    assert numbers(read_all(dev_log)) == [0, 1]


def test_closing_counts_what_is_left(log: EventLog) -> None:
    """Events that never found a receiver are dropped at the end, and counted."""
    log.emit("sentinel.stopped", "info")
    log.close()
    assert log.dropped.unreachable == 1
    assert log.waiting == 0


# --- streams and networks ---------------------------------------------------------------------


def read_frames(data: bytes) -> list[Line]:
    """Read octet-counted frames (RFC 6587, section 3.4.1)."""
    lines = []
    while data:
        length, _, rest = data.partition(b" ")
        lines.append(read_line(rest[: int(length)]))
        data = rest[int(length) :]
    return lines


@pytest.fixture(params=["127.0.0.1", "::1"])
def tcp_receiver(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Yield a listening TCP socket on loopback, IPv4 and IPv6."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((request.param, 0))
        listener.listen()
        listener.settimeout(10)
        yield listener


def url(scheme: str, listener: socket.socket) -> str:
    """Write a listener's address as a log target."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def drain_into(log: EventLog, peer: socket.socket) -> bytes:
    """Read from *peer* until the log has nothing left, then to the end."""
    data = bytearray()
    while log.waiting:
        log.retry()
        with suppress(BlockingIOError):
            data += peer.recv(1 << 20, socket.MSG_DONTWAIT)
    log.close()
    while chunk := peer.recv(1 << 20):
        data += chunk
    return bytes(data)


def test_tcp_carries_octet_counted_frames(tcp_receiver: socket.socket) -> None:
    """Events reach a TCP receiver, those from before the connection stood included."""
    log = log_to(url("tcp", tcp_receiver))
    for n in range(3):
        log.emit("check.failed", "info", {"n": n, "detail": "line one\nline two"})
    peer, _ = tcp_receiver.accept()
    with peer:
        assert numbers(read_frames(drain_into(log, peer))) == [0, 1, 2]


def test_tcp_peer_that_does_not_read_holds_nothing_up(tcp_receiver: socket.socket) -> None:
    """Full buffers on both sides are counted, and no frame is torn when reading begins again."""
    log = log_to(url("tcp", tcp_receiver))
    log.emit("check.failed", "info", {"n": 0})
    peer, _ = tcp_receiver.accept()
    with peer:
        n = 1
        while not log.dropped.busy:
            log.emit("check.failed", "info", {"n": n, "detail": "x" * 5000})
            n += 1
        assert log.waiting == BACKLOG_MAX
        lines = read_frames(drain_into(log, peer))
    assert numbers(lines) == list(range(n - 1))
    assert gaps(lines) == [1]


def test_tcp_peer_that_went_away_is_found_before_the_next_event(
    tcp_receiver: socket.socket,
) -> None:
    """After a receiver's restart the first event is sent on a new connection, not into the old."""
    log = log_to(url("tcp", tcp_receiver))
    log.emit("check.failed", "info", {"n": 0})
    peer, _ = tcp_receiver.accept()
    log.retry()
    with peer:
        peer.settimeout(10)
        assert numbers(read_frames(peer.recv(65536))) == [0]
    log.emit("check.failed", "info", {"n": 1})
    peer, _ = tcp_receiver.accept()
    with peer:
        assert numbers(read_frames(drain_into(log, peer))) == [1]
    assert log.dropped.total == 0


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_closed_port_is_counted_and_recovered_from(scheme: str) -> None:
    """A port that nobody listens on costs drops, never a wait or an exception."""
    kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as unused:
        unused.bind(("127.0.0.1", 0))
        target = url(scheme, unused)
        port = unused.getsockname()[1]
    with closing(log_to(target)) as log:
        for n in range(300):
            log.emit("check.failed", "info", {"n": n})
        while not log.dropped.unreachable:
            log.retry()
            log.emit("check.failed", "info", {"n": 300})
        with socket.socket(socket.AF_INET, kind) as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            receiver.bind(("127.0.0.1", port))
            if scheme == "tcp":
                receiver.listen()
            log.emit("check.passed", "info")
            while log.waiting:
                log.retry()


def test_unanswered_tcp_connection_is_not_waited_for() -> None:
    """While a connection is neither made nor refused, events wait in the backlog."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in (first, second):  # a full accept queue leaves further SYNs unanswered
            filler.settimeout(0)
            filler.connect_ex(listener.getsockname())
        with closing(log_to(url("tcp", listener))) as log:
            for n in range(BACKLOG_MAX + 5):
                log.emit("check.failed", "info", {"n": n})
                log.retry()
            assert log.waiting == BACKLOG_MAX
            assert log.dropped.busy == log.dropped.total == 5


def test_udp_carries_one_event_a_datagram() -> None:
    """Events reach a UDP receiver."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        with closing(log_to(url("udp", receiver))) as log:
            log.emit("check.failed", "info", {"n": 1})
        assert read_line(receiver.recv(65536)).event["n"] == 1


def test_unix_stream_socket_is_found_and_used(tmp_path: Path) -> None:
    """Where /dev/log is a stream socket, lines end in NUL as those of syslog(3) do."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "log"))
        listener.listen()
        log = log_to(tmp_path / "log")
        log.emit("check.failed", "info", {"n": 1})
        log.emit("check.failed", "info", {"n": 2})
        peer, _ = listener.accept()
        with peer:
            *messages, end = drain_into(log, peer).split(b"\0")
    assert [read_line(message).event["n"] for message in messages] == [1, 2]
    assert end == b""


def test_host_name_is_refused() -> None:
    """A target that needs a resolver is refused with the cure."""
    with pytest.raises(ValueError, match="must not wait for a resolver: write its numeric address"):
        log_to("udp://loghost.example:514")


# --- stderr -----------------------------------------------------------------------------------


def test_stderr_carries_readable_lines() -> None:
    """People see time, level, name and fields; whatever is odd is quoted and escaped."""
    reader, writer = os.pipe()
    with closing(log_to("none", stderr=writer)) as log:
        log.emit(
            "haproxy.died", "error", {"pid": 7, "why": "a b", "odd": "\x1b[31m\n\x9b", "q": '"'}
        )
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as lines:
        [line] = lines
    assert re.fullmatch(
        r"\S+Z error    haproxy\.died pid=7 why=\"a b\" "
        r"odd=\"\\u001b\[31m\\n\\u009b\" q=\"\\\"\"\n",
        line,
    )


def test_journal_gets_levels_and_keeps_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stderr that is the journal's socket is written with sd-daemon(3) prefixes."""
    journal, stderr = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    status = os.fstat(stderr.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    with journal, stderr, closing(configure_on(stderr)) as log:
        log.emit("haproxy.died", "error", {"pid": 7})
        assert journal.recv(4096) == b"<3>haproxy.died pid=7\n"


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_reader_of_stderr_that_stopped_holds_nothing_up(kind: str) -> None:
    """A full pipe, a stopped journal and a stopped terminal are dropped on, counted, recovered."""
    reader, writer = {
        "pipe": os.pipe,
        "socket": lambda: tuple(end.detach() for end in socket.socketpair()),
        "terminal": os.openpty,
    }[kind]()
    flags_before = os.get_blocking(writer)
    with closing(log_to("none", stderr=writer)) as log:
        while log.dropped_stderr.busy < 10:
            log.emit("check.failed", "info", {"detail": "x" * 5000})
        os.set_blocking(reader, False)
        text = b""
        while b"log.dropped" not in text:
            log.retry()
            with suppress(BlockingIOError):
                text += os.read(reader, 1 << 20)
        assert re.search(rb"log\.dropped count=10\r?\n", text)
        assert os.get_blocking(writer) is flags_before is True
    os.close(reader)
    os.close(writer)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user for a moment")
def test_stderr_that_may_not_be_opened_again_holds_nothing_up() -> None:
    """A pipe made by another user is written only as far as poll(2) promises to take it."""
    reader, writer = os.pipe()
    os.seteuid(65534)
    try:
        log = log_to("none", stderr=writer)
    finally:
        os.seteuid(0)
    with closing(log):
        while not log.dropped_stderr.busy:
            log.emit("check.failed", "info", {"detail": "x" * 5000})
        os.set_blocking(reader, False)
        text = b""
        while b"log.dropped" not in text:
            log.retry()
            with suppress(BlockingIOError):
                text += os.read(reader, 1 << 20)
    assert text.count(b"check.failed") > BACKLOG_MAX
    assert b"log.dropped count=1\n" in text
    os.close(reader)
    os.close(writer)


def test_reader_of_stderr_that_went_away_raises_nothing() -> None:
    """A closed pipe is an unreachable receiver like any other."""
    reader, writer = os.pipe()
    with closing(log_to("none", stderr=writer)) as log:
        os.close(reader)
        for _ in range(BACKLOG_MAX + 1):
            log.emit("check.failed", "info")
        log.retry()
        assert log.dropped_stderr.unreachable == 1
    os.close(writer)


@pytest.mark.parametrize("kind", [os.pipe, os.openpty])
def test_a_closed_log_writes_into_nobody_elses_file(
    kind: Callable[[], tuple[int, int]], tmp_path: Path
) -> None:
    """What it wrote into is closed, and its number is given to whoever opens next."""

    def descriptors() -> set[str]:
        return set(os.listdir("/proc/self/fd"))  # noqa: PTH208  (the numbers themselves)

    reader, writer = kind()
    before = descriptors()
    log = log_to("none", stderr=writer)
    own = descriptors() - before
    log.close()
    with ExitStack() as stack:
        path = tmp_path / "other"
        while not own <= descriptors():
            stack.enter_context(path.open("wb"))
        log.emit("check.failed", "info")
        assert path.read_bytes() == b""
    os.close(reader)
    os.close(writer)


def test_stderr_in_a_file_is_appended_to(tmp_path: Path) -> None:
    """A plain file is written where its own offset stands."""
    with (tmp_path / "err").open("wb", buffering=0) as file:
        file.write(b"before\n")
        with closing(log_to("none", stderr=file.fileno())) as log:
            log.emit("check.failed", "info")
        file.write(b"after\n")
    before, event, after = (tmp_path / "err").read_text().splitlines()
    assert (before, after) == ("before", "after")
    assert event.endswith("check.failed")


# --- a real rsyslogd --------------------------------------------------------------------------


@pytest.fixture
def rsyslogd(tmp_path: Path) -> Rsyslogd:
    """Return an rsyslogd that can be run."""
    return rsyslogd_in(tmp_path)


def sent(log: EventLog) -> bool:
    """Try again, and tell whether the backlog is empty."""
    log.retry()
    return not log.waiting


@pytest.mark.real
@pytest.mark.parametrize("transport", ["unix", "udp", "tcp"])
def test_rsyslogd_reads_events_as_json(rsyslogd: Rsyslogd, transport: str) -> None:
    """Events of every size arrive as JSON through /dev/log, UDP and TCP."""
    target = rsyslogd.path if transport == "unix" else f"{transport}://127.0.0.1:{rsyslogd.port}"
    details = ["plain", 'quotes " and \\', "lines\nand\ttabs", "Zürich ✓", "x" * 100_000]
    with rsyslogd.running(), closing(log_to(target)) as log:
        for n, detail in enumerate(details):
            log.emit("check.failed", "error", {"n": n, "detail": detail, "code": "L7STS"})
        wait_until(lambda: sent(log) and len(rsyslogd.events()) == len(details))
        assert [event["n"] for event in rsyslogd.events()] == list(range(len(details)))
        assert [event["detail"] for event in rsyslogd.events()][:4] == details[:4]
        assert {event["event"] for event in rsyslogd.events()} == {"check.failed"}
        assert rsyslogd.other() == ""


@pytest.mark.real
def test_stopped_rsyslogd_holds_nothing_up(rsyslogd: Rsyslogd) -> None:
    """Under SIGSTOP events wait, then drop; after SIGCONT what waited arrives, and the count."""
    with rsyslogd.running() as process, closing(log_to(rsyslogd.path)) as log:
        log.emit("check.failed", "info", {"n": 0})
        wait_until(lambda: len(rsyslogd.events()) == 1)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        for n in range(1, 2001):
            log.emit("check.failed", "info", {"n": n})
        dropped = log.dropped.busy
        assert log.waiting == BACKLOG_MAX
        assert dropped > 2000 - BACKLOG_MAX - 1000
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: sent(log) and len(rsyslogd.events()) == 2002 - dropped)
        events = rsyslogd.events()
        assert [event["n"] for event in events[:-1]] == list(range(2001 - dropped))
        assert (events[-1]["event"], events[-1]["count"]) == ("log.dropped", dropped)


@pytest.mark.real
@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_restarted_rsyslogd_loses_nothing(rsyslogd: Rsyslogd, transport: str) -> None:
    """Events from before, during and after a restart of rsyslogd all arrive in order."""
    target = rsyslogd.path if transport == "unix" else f"tcp://127.0.0.1:{rsyslogd.port}"
    with closing(log_to(target)) as log:
        with rsyslogd.running():
            log.emit("check.failed", "info", {"n": 0})
            wait_until(lambda: sent(log) and len(rsyslogd.events()) == 1)
        log.emit("check.failed", "info", {"n": 1})
        log.retry()
        assert log.waiting == 1
        with rsyslogd.running():
            log.emit("check.failed", "info", {"n": 2})
            wait_until(lambda: sent(log) and len(rsyslogd.events()) == 3)
        assert [event["n"] for event in rsyslogd.events()] == [0, 1, 2]
        assert log.dropped.total == 0
