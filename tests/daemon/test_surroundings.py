"""What surrounds sentinel fails: its configuration, HAProxy's, stats sockets, frontends, the disk.

HAProxy itself is well all the time: whatever is seen, it is never restarted for it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from daemons import ROOT, Daemon, Node, supervising
from haproxies import DEADLINE_S, answering_config, free_port, running_haproxy, wait_until
from privileges import IS_ROOT
from servers import Behaviour, Connection, answering, serving

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.real

#: Fast enough to be DOWN within a second.
PACE = {
    "inter": "100ms",
    "fastinter": "50ms",
    "downinter": "100ms",
    "timeout": "150ms",
    "rise": 1,
    "fall": 2,
}


# --- its configuration ----------------------------------------------------------------------------


def refused(config: str, prefix: Sequence[str] = (), status: int = os.EX_CONFIG) -> list[str]:
    """Run ``sentinel run``, which must refuse to; return what it says on stderr."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "sentinel", "run", "--config", config],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == status
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


def test_a_missing_configuration_is_refused(tmp_path: Path) -> None:
    """A named file that is not there is no reason to fall back on defaults."""
    (line,) = refused(f"{tmp_path}/none.toml")
    assert line.startswith("sentinel run: ")
    assert f"{tmp_path}/none.toml" in line


@pytest.mark.skipif(not IS_ROOT, reason="only root can become unable to read its own files")
def test_an_unreadable_configuration_is_refused(tmp_path: Path) -> None:
    """The reason is named, not guessed."""
    config = tmp_path / "sentinel.toml"
    config.touch(mode=0)
    os.chown(config, 65534, 65534)
    drop = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    (line,) = refused(str(config), drop)
    assert "Permission denied" in line


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Unknown keys, wrong types and bad values, each on a line of its own with its key."""
    config = tmp_path / "sentinel.toml"
    config.write_text(
        'colour = "red"\n[restart]\nbudget = "three"\nwindow = "-1s"\n[haproxy]\nexecutable = "x"\n'
    )
    lines = refused(str(config))
    for key in ("colour", "restart.budget", "restart.window", "haproxy.executable"):
        assert sum(f"{key}:" in line for line in lines) == 1, lines
    assert len(lines) == 4


def test_a_run_dir_that_cannot_be_used_is_refused(idle: Node) -> None:
    """Without a lock there might be two of them."""
    (idle.folder / "file").touch()
    idle.configure(run_dir=str(idle.folder / "file"))
    (line,) = refused(str(idle.sentinel_toml), status=1)
    assert "cannot lock" in line


# --- no HAProxy -----------------------------------------------------------------------------------


def test_no_haproxy_installed(idle: Node) -> None:
    """The start fails, the budget is spent, the node yields; status says what is missing."""
    idle.executable = str(idle.folder / "haproxy")
    idle.configure(restart={"budget": 1, "window": "3s"})
    idle.command("haproxy-start", f"exec {idle.executable}")
    with supervising(idle, learned=False) as sentinel:
        sentinel.wait_for("haproxy.not_found")
        sentinel.wait_for("action.failed", action="RestartHaproxy", reason="exit code 127")
        sentinel.wait_for("haproxy.failed", reason="budget is spent")
        sentinel.wait_for("keepalived.stopped")
        assert idle.hook() == 1
        assert sentinel.status()["overall"] == "failed"
        assert "haproxy.executable" in sentinel.check("configuration")["last_chk"]
        shutil.copy("/usr/sbin/haproxy", idle.executable)
        idle.start_by()
        sentinel.wait_for("haproxy.restarted")
        sentinel.wait_for("keepalived.started")


def test_haproxy_that_is_down_at_the_start_is_started(idle: Node) -> None:
    """Nobody has to start HAProxy before sentinel."""
    with supervising(idle, learned=False) as sentinel:
        sentinel.wait_for("haproxy.not_found")
        sentinel.wait_for("haproxy.restarted")
        wait_until(lambda: idle.leased == "OK", "the node serves")
        assert idle.answers()
        assert idle.calls("haproxy-start") == 1


# --- haproxy -c -----------------------------------------------------------------------------------

_WRAPPER = """\
#!/bin/bash
[ -e {folder}/hang ] && [ "$1" = -c ] && {{ sleep 60 & wait; }}
exec -a "$0" /usr/sbin/haproxy "$@"
"""


def test_a_configuration_check_that_hangs_holds_nothing_up(idle: Node) -> None:
    """It is killed at its deadline and known to be unknown; a death is mended all the same."""
    wrapper = idle.folder / "haproxy"
    wrapper.write_text(_WRAPPER.format(folder=idle.folder))
    wrapper.chmod(0o755)
    idle.executable = str(wrapper)
    idle.start_by()
    idle.configure(configuration={"timeout": "300ms"})
    idle.start()
    with supervising(idle) as sentinel:
        (idle.folder / "hang").touch()
        os.utime(idle.haproxy_cfg)
        sentinel.wait_for_check("configuration", "PROCTOUT", "killed after 0.3 s")
        assert sentinel.status()["overall"] == "healthy"
        idle.signal(signal.SIGKILL)
        sentinel.wait_for("haproxy.restarted")
        assert idle.calls("haproxy-start") == 1
        (idle.folder / "hang").unlink()
        sentinel.wait_for_check("configuration", "PROCOK", "valid")
        assert sentinel.count("haproxy.start_failed") == 0


# --- the stats socket -----------------------------------------------------------------------------


def mute(connection: Connection) -> None:
    """Take a question and never answer it, nor any other."""
    connection.over.wait()


def serving_well(sentinel: Daemon, node: Node, pids: tuple[int, ...]) -> None:
    """Check that the node serves and HAProxy has been left alone, for a while."""
    sentinel.wait_for_steps(3)
    assert sentinel.status()["serving"] is True
    assert (node.leased, node.tracked) == ("OK", "0")
    assert node.pids == pids
    assert node.calls("haproxy-start") == 0


def test_stats_sockets_that_never_worked_change_nothing(node: Node) -> None:
    """None, a silent one, one that talks nonsense, another HAProxy's: the frontend is enough."""
    pids = node.pids
    with ExitStack() as stack:
        other = stack.enter_context(
            running_haproxy(answering_config(free_port()), node.folder, name="other")
        )
        silent = stack.enter_context(serving(mute, path=node.folder / "silent"))
        nonsense = stack.enter_context(serving(answering(b"220 hi\n"), path=node.folder / "odd"))
        cases = (
            (str(node.folder / "none"), "L4CON", "No such file"),
            (silent, "L7TOUT", "accepted, no answer"),
            (nonsense, "L7RSP", "not an answer of HAProxy's"),
            (str(other.stats_socket), "L7RSP", "not by worker"),
        )
        node.configure(haproxy={"stats_socket": cases[0][0]})
        with supervising(node, learned=False) as sentinel:
            for path, code, words in cases:
                node.configure(haproxy={"stats_socket": path})
                sentinel.reload()
                sentinel.wait_for_check("runtime", code, words)
                serving_well(sentinel, node, pids)


def test_a_stats_socket_that_falls_silent_accuses_nobody_alone(node: Node) -> None:
    """Once it worked, its silence is reported; while the frontend answers nothing is done."""
    pids = node.pids
    with supervising(node) as sentinel, serving(mute, path=node.folder / "silent"):
        (node.folder / "silent").replace(node.stats_socket)
        sentinel.wait_for("check.down", check="runtime", check_code="L7TOUT")
        serving_well(sentinel, node, pids)
        assert sentinel.status()["overall"] == "degraded"
        node.signal(signal.SIGKILL)
        sentinel.wait_for("haproxy.restarted")
        sentinel.wait_until(lambda found: found["overall"] == "healthy", "the socket is back")


# --- frontends ------------------------------------------------------------------------------------


def endless_headers(connection: Connection) -> None:
    """Answer with headers for ever."""
    connection.sock.sendall(b"HTTP/1.1 200 OK\r\n")
    connection.flood(b"X-More: and more\r\n" * 64)


FRONTENDS: dict[str, tuple[Behaviour, dict[str, object], set[str]]] = {
    "silent": (Connection.hold, {}, {"L7TOUT"}),
    "trickling": (lambda c: c.trickle(b"HTTP/1.1 200 OK" + b" " * 4000), {}, {"L7TOUT"}),
    "endless": (endless_headers, {}, {"L7RSP", "L7TOUT"}),
    "nonsense": (answering(b"SSH-2.0-x\r\n\r\n"), {}, {"L7RSP"}),
    "failing": (answering(b"HTTP/1.1 500 No\r\n\r\n"), {"expect": ["200"]}, {"L7STS"}),
    "plain": (answering(b"HTTP/1.1 400 Bad\r\n\r\n"), {"type": "https"}, {"L6RSP", "L6TOUT"}),
}


def test_bad_frontends_yield_or_alert_and_never_restart(node: Node) -> None:
    """Seven of them at once: on_fail decides, and the runtime API clears HAProxy."""
    pids = node.pids
    with ExitStack() as stack:
        probes: list[dict[str, object]] = [
            {"name": "refusing", "address": f"127.0.0.1:{free_port()}"}
        ]
        for name, (behaviour, more, _) in FRONTENDS.items():
            address = stack.enter_context(serving(behaviour))
            probes.append({"name": name, "address": address, **more})
        node.configure(probe=[{**probe, **PACE, "on_fail": "yield"} for probe in probes])
        with supervising(node, learned=False) as sentinel:
            sentinel.wait_until(
                lambda found: sum(c["state"] == "DOWN" for c in found["checks"]) == len(probes),
                "all are down",
            )
            for name, (_, _, codes) in FRONTENDS.items():
                assert sentinel.check(name)["check_code"] in codes
            assert sentinel.check("refusing")["check_code"] == "L4CON"
            wait_until(lambda: (node.leased, node.tracked) == ("FAIL", "1"), "the node yields")
            sentinel.wait_for_steps(5)
            assert node.hook() == 1
            assert sentinel.status()["phase"] == "UP"
            node.configure(probe=[{**probe, **PACE, "on_fail": "alert"} for probe in probes])
            sentinel.reload()
            wait_until(lambda: (node.leased, node.tracked) == ("OK", "0"), "the node serves")
            assert sentinel.status()["overall"] == "degraded"
            serving_well(sentinel, node, pids)
            assert node.calls("keepalived-stop") == 0


def test_a_removed_probe_is_forgotten(node: Node) -> None:
    """What a reload takes out of the configuration neither yields nor stays in the status."""
    probe = {"name": "gone", "address": f"127.0.0.1:{free_port()}", **PACE}
    node.configure(probe=[probe])
    with supervising(node, learned=False) as sentinel:
        wait_until(lambda: node.leased == "FAIL", "the node yields")
        node.configure()
        sentinel.reload()

        def renewed(found: dict[str, Any]) -> bool:
            names = {check["name"] for check in found["checks"]}
            return found["overall"] == "healthy" and f"frontend/fe:{node.port}" in names

        document = sentinel.wait_until(renewed, "all is well, and the frontend is probed instead")
        assert "gone" not in {check["name"] for check in document["checks"]}


# --- the disk -------------------------------------------------------------------------------------


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


@pytest.mark.skipif(not IS_ROOT, reason="only root may mount a file system")
def test_a_full_disk_cannot_hide_a_hang(node: Node) -> None:
    """The lease is written over where no new file can be; the rest is told, and made up for."""
    state = node.folder / "state"
    state.mkdir()
    node.configure(
        run_dir=str(state),
        hook={name: str(state / name) for name in ("lease_file", "track_file", "sign")},
        status={"socket": str(node.folder / "status.sock")},
    )
    mount = f'mount -t tmpfs -o size=64k sentinel-test {state} && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", mount, "sh")
    with supervising(node, prefix=prefix, learned=False) as sentinel:
        sentinel.wait_until(lambda found: found["overall"] == "healthy", "all is well")
        inside = Path(f"/proc/{sentinel.process.pid}/root{state}")

        def lease() -> str:
            return (inside / "lease_file").read_text().split()[0]

        fill(inside / "ballast")
        wait_until(lambda: lease() == "OK", "the lease is renewed")
        node.signal(signal.SIGSTOP)
        wait_until(lambda: lease() == "FAIL", "the hang is told")
        sentinel.wait_for("haproxy.restarted")
        wait_until(lambda: lease() == "OK", "the node serves")
        errors = sentinel.status()["errors"]
        assert any("memory.json" in error and "No space" in error for error in errors)
        (inside / "ballast").unlink()
        sentinel.wait_until(
            lambda found: not any("memory.json" in error for error in found["errors"]),
            "it is written again",
        )
        assert '"attempt": 1' in (inside / "memory.json").read_text()


# --- the log --------------------------------------------------------------------------------------


def flapping(node: Node) -> dict[str, object]:
    """Return a check that fails every other time: an event at each run."""
    odd = node.folder / "odd"
    toggle = f"if [ -e {odd} ]; then rm {odd}; else touch {odd}; false; fi"
    return {"name": "flap", "argv": ["/bin/sh", "-c", toggle], **PACE, "fall": 1, "timeout": "5s"}


def _more_than(sentinel: Daemon, count: int) -> bool:
    return sentinel.count("check.down") > count


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_log_receiver_that_goes_away_holds_nothing_up(node: Node, protocol: str) -> None:
    """Events go on as soon as it is back; until then sentinel works, and counts what is lost."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    port = free_port()
    node.configure(log={"target": f"{protocol}://127.0.0.1:{port}"}, command=[flapping(node)])

    def heard() -> bytes:
        """Listen for a moment: what comes first of an event."""
        with socket.socket(socket.AF_INET, kind) as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            receiver.settimeout(DEADLINE_S)
            receiver.bind(("127.0.0.1", port))
            if protocol == "udp":
                return receiver.recv(65536)
            receiver.listen()
            connection, _ = receiver.accept()
            with connection:
                return connection.recv(65536)

    with supervising(node, learned=False) as sentinel:
        for _ in range(2):
            assert b'@cee: {"event"' in heard()
            seen = sentinel.count("check.down")
            wait_until(partial(_more_than, sentinel, seen + 3), "events go on")
            sentinel.wait_for_steps(2)
        if protocol == "udp":  # TCP keeps them until its backlog is full
            assert sentinel.status()["log_dropped"] > 0


def test_a_stopped_reader_of_stderr_holds_nothing_up(node: Node) -> None:
    """A full pipe holds back lines, and never what they tell of."""
    node.configure(command=[flapping(node)])
    with supervising(node, learned=False) as sentinel:
        assert sentinel.process.stderr is not None
        fcntl.fcntl(sentinel.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        sentinel.reading.clear()
        before = sentinel.wait_until(bool, "it answers")["uptime_ms"]
        try:
            sentinel.wait_until(lambda found: found["uptime_ms"] > before + 3000, "it lives on")
            sentinel.wait_for_steps(2)
            pids = node.pids
            node.signal(signal.SIGKILL)
            wait_until(lambda: node.answers() and not set(pids) & set(node.pids), "it is mended")
        finally:
            sentinel.reading.set()
        sentinel.wait_for("haproxy.restarted")
