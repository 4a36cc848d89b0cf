"""``sentinel status``: a page for people, JSON for programs, and an exit status for both."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from documents import AROUND, HEALTHY, HELD, LOWERING, NOW_S, document, down
from privileges import IS_ROOT, as_nobody
from servers import Connection, serving

from sentinel.commands import client, status
from sentinel.core import Intent, Memory, Phase
from sentinel.events import Verb
from sentinel.model import (
    ConfigurationView,
    Instance,
    PeerView,
    PoolView,
    Proc,
    ServerView,
    ServiceState,
)
from sentinel.vrrp import VrrpView

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = ServiceState(known=False, active="unknown", sub="", result="", has_jobs=False)
HUNG = ServiceState(known=False, active="unknown", sub="", detail="killed after 2 s")


def sentinel(*words: str) -> int:
    """Run the subcommand as the command line does."""
    parser = argparse.ArgumentParser(prog="sentinel")
    status.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["status", *words])
    return int(args.run(args))


def saying(made: object) -> Callable[[Connection], None]:
    """Answer as the daemon does."""
    return lambda connection: connection.sock.sendall(json.dumps(made).encode() + b"\n")


def row(page: str, name: str) -> str:
    """Return what stands behind *name* on the page."""
    (line,) = (line for line in page.splitlines() if line.startswith(f"{name} "))
    return line.removeprefix(name).strip()


# --- the page -------------------------------------------------------------------------------------


def page(made: dict[str, Any]) -> str:
    """Render without colour."""
    return status.render(made, colour=False)


def test_a_healthy_node_on_one_page() -> None:
    """Every question of a person on call has its line."""
    shown = page(document())
    assert row(shown, "node") == "lb1  HEALTHY  serving"
    assert row(shown, "phase") == "UP for 90.0s (before: LEARNING): HAProxy is running"
    assert row(shown, "haproxy") == (
        "incarnation 2, master 100 worker 101, old workers 99, version 2.6.12,"
        " connections 3 of 2000, unit active/running"
    )
    assert row(shown, "restarts") == "1 of 3 in 60.0s"
    assert row(shown, "keepalived") == "unit active/running, called the hook 1.5s ago"
    assert row(shown, "lease") == "500ms old, runs out in 2.5s"
    assert row(shown, "pending") == "nothing"
    assert row(shown, "log") == "0 events dropped"
    assert row(shown, "web").split() == ["UP", "L7OK", "60.0s", "250ms", "1.2", "status", "200"]
    assert row(shown, "app") == "1/2  a2=DOWN(but our probe: L7OK status 200) a1=UP"
    assert row(shown, "90.0s") == "phase.changed  LEARNING -> UP HAProxy is running"


def test_columns_stand_below_each_other() -> None:
    """The eye finds a state without reading the names."""
    shown = page(document()).splitlines()
    header, *checks = shown[shown.index("") + 1 : shown.index("") + 4]
    column = header.index("code")
    assert [line[column - 2 : column + 3] for line in checks] == ["  PRO", "  L7O"]
    assert not any(line.endswith(" ") for line in shown)


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"haproxy": COMMANDS}, "haproxy", "connections 3 of 2000"),
        ({"haproxy": HUNG}, "haproxy", "unit unknown: killed after 2 s"),
        ({"haproxy": ServiceState(masked=True)}, "haproxy", "(masked)"),
        ({"keepalived": COMMANDS}, "keepalived", "run by plain commands, called the hook"),
        ({"keepalived": None}, "keepalived", "not asked yet"),
        ({"hook_silent": True}, "keepalived", "NO LONGER CALLS THE HOOK"),
        ({"memory": Memory(keepalived_stopped=True)}, "keepalived", "STOPPED BY SENTINEL"),
        ({"saturated_s": NOW_S}, "haproxy", "SATURATED"),
        ({"configuration": ConfigurationView(valid=False, error="bad")}, "haproxy", "INVALID: bad"),
        ({"instance": None}, "haproxy", "master - worker -"),
        ({"instance": Instance(master=None, worker=Proc(pid=7, start_ticks=1))}, "haproxy", "- wo"),
        ({"phase": Phase.DEAD}, "restarts", "next attempt not before 1.0s from now"),
        ({"phase": Phase.DEAD, "reason": "it died"}, "node", "FAILED  yielding: it died"),
        ({"process_seen_s": None}, "node", "UNKNOWN  undecided"),
        ({"checks": {"web": down("web")}}, "node", "yielding: web is DOWN: L4CON"),
    ],
)
def test_what_is_amiss_is_told(changes: dict[str, Any], name: str, words: str) -> None:
    """In the line where it is looked for."""
    shown = page(document(replace(HEALTHY, **changes)))
    assert words in row(shown, name)
    assert "unknown/" not in shown


SEEN = VrrpView(instances=(HELD,), pids=(200,))
AWAY = VrrpView(instances=(replace(HELD, present=()),), pids=(200,))
SILENT = VrrpView(instances=(replace(HELD, claim=None),))
MASTER = "VI_1 on eth0: MASTER (claimed by its FIFO) for 60.0s, priority 254, now 254"
LB2 = PeerView(node="lb2", overall="degraded", serving=True, servers_up=1, servers_total=2)


def asked(*intents: Intent) -> dict[str, Any]:
    """Return what changes when an administrator has asked for this."""
    return {"vrrp": SEEN, "memory": Memory(intents=intents)}


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        (
            {"vrrp": SEEN},
            "vrrp",
            f"{MASTER}, VIP here: 192.168.1.99",
        ),
        (
            {"vrrp": AWAY},
            "vrrp",
            f"{MASTER}, VIP not here: 192.168.1.99",
        ),
        (
            {"vrrp": SILENT},
            "vrrp",
            "VI_1 on eth0: state unknown, priority 254, VIP here: 192.168.1.99",
        ),
        (
            {"vrrp": SEEN, "peer": LB2},
            "peer",
            "lb2  DEGRADED  serving, 1 of 2 servers up",
        ),
        (
            {"vrrp": SEEN, "peer": replace(LB2, serving=None)},
            "peer",
            "lb2  DEGRADED  undecided, 1 of 2 servers up",
        ),
        (
            {"phase": Phase.HOLDING, "healthy_since_s": NOW_S - 4},
            "hold",
            "ends in 6.0s, if all stays well",
        ),
        (asked(Intent(verb=Verb.PAUSE)), "asked", "paused, until sentinel resume"),
        (
            asked(Intent(verb=Verb.PAUSE, drain=True, by="eve", reason="kernel")),
            "asked",
            "paused and stepped down by eve, until sentinel resume: kernel",
        ),
        (
            asked(Intent(verb=Verb.STEPDOWN, until_s=NOW_S + 90, reason="a\x1bb")),
            "asked",
            "stepped down, for another 90.0s: a?b",
        ),
        (
            asked(Intent(verb=Verb.STEPDOWN, until_worker=2, by="root")),
            "asked",
            "stepped down by root, until HAProxy has been started",
        ),
        (
            asked(Intent(verb=Verb.STEPDOWN, by="eve")),
            "node",
            "lb1  DEGRADED  serving, priority lowered by 253: stepped down by eve",
        ),
    ],
)
def test_the_pair_is_told(changes: dict[str, Any], name: str, words: str) -> None:
    """Who has the VIP by keepalived's word and by the kernel's, and what keeps it away."""
    assert row(page(document(replace(HEALTHY, **changes), policy=LOWERING)), name) == words


def test_two_orders_are_told_one_by_one() -> None:
    """Each with its own end, whose it is, and why."""
    pause = Intent(verb=Verb.PAUSE, by="eve", reason="disks")
    stepdown = Intent(verb=Verb.STEPDOWN, until_worker=2, by="root")
    shown = page(document(replace(HEALTHY, **asked(pause, stepdown))))
    assert [line for line in shown.splitlines() if line.startswith("asked")] == [
        "asked      paused by eve, until sentinel resume: disks",
        "asked      stepped down by root, until HAProxy has been started",
    ]


def test_a_node_without_a_pair_has_no_lines_for_it() -> None:
    """What is not there, nobody has to read."""
    names = {line.split()[0] for line in page(document()).splitlines() if line}
    assert not names & {"vrrp", "peer", "asked", "hold", "hand-over", "advice"}


def test_why_a_hand_over_would_cost_is_told() -> None:
    """Where there is something to be handed over."""
    shown = page(document(replace(HEALTHY, vrrp=SEEN)))
    assert row(shown, "hand-over").startswith("by FAULT: no priority file is configured")
    shown = page(document(replace(HEALTHY, vrrp=SEEN), policy=LOWERING))
    assert "hand-over" not in shown


def test_advice_is_told() -> None:
    """One line each."""
    shown = page(document(HEALTHY, replace(AROUND, advice=("set weight 1", "add a fifo"))))
    lines = [line for line in shown.splitlines() if line.startswith("advice")]
    assert lines == ["advice     set weight 1", "advice     add a fifo"]


def test_errors_and_losses_are_told() -> None:
    """What sentinel itself could not do stands on the page, one line each."""
    around = replace(AROUND, errors=("lease: No space left", "x"), log_dropped=3, dry_run=True)
    shown = page(document(HEALTHY, around))
    assert [line for line in shown.splitlines() if line.startswith("error")] == [
        "error      lease: No space left",
        "error      x",
    ]
    assert row(shown, "log") == "3 events dropped"
    assert "dry run: acts on nothing" in row(shown, "node")


def test_an_ill_server_is_never_left_out() -> None:
    """Of many servers those that are well are counted, not shown."""
    servers = tuple(
        ServerView(name=f"s{n}", status="DOWN" if n == 70 else "UP", up=n != 70, probe=None)
        for n in range(99)
    )
    pools = (PoolView(name="many", up=98, total=99, servers=servers),)
    shown = row(page(document(replace(HEALTHY, pools=pools))), "many")
    assert "s70=DOWN" in shown
    assert shown.endswith("+91")


def test_a_page_cannot_steer_the_terminal() -> None:
    """What a server or a configuration said may hold anything."""
    nasty = "a\x1b[2Jb\nc\x07\x9b31m"
    state = replace(HEALTHY, reason=nasty, checks={"web": down("web", nasty)})
    shown = page(document(state))
    assert "a?[2Jb?c??31m" in row(shown, "phase")
    assert not set(shown) & set("\x1b\x07\x9b")


def test_colour_is_for_one_word() -> None:
    """The word for the node, and nothing else."""
    shown = status.render(document(), colour=True)
    assert shown.count("\x1b[") == 2
    assert "\x1b[1;32mHEALTHY\x1b[0m" in shown


# --- asking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"hook_silent": True}, 1),
        ({"phase": Phase.FAILED}, 1),
        ({"process_seen_s": None}, 4),
    ],
)
def test_the_exit_status_says_how_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], code: int
) -> None:
    """With a page and with JSON; piped, neither holds an escape."""
    made = document(replace(HEALTHY, **changes))
    with serving(saying(made), path=tmp_path / "sock") as path:
        assert sentinel("--socket", path) == code
        assert made["overall"].upper() in capsys.readouterr().out
        assert sentinel("--socket", path, "--json") == code
        out, err = capsys.readouterr()
        assert json.loads(out) == made
        assert (out.count("\n"), err, "\x1b" in out) == (1, "", False)


def test_the_configured_socket_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --socket; a configuration that cannot be used is told."""
    config = tmp_path / "sentinel.toml"
    config.write_text(f'[status]\nsocket = "{tmp_path}/sock"\n')
    with serving(saying(document()), path=tmp_path / "sock"):
        assert sentinel("--config", str(config)) == 0
    config.write_text("colour = 1\n")
    sentinel("--config", str(config))
    assert f"sentinel config check {config}" in capsys.readouterr().err


def fails(path: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Ask in vain; return the exit status and what is said on stderr."""
    code = sentinel("--socket", path)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return code, err


def test_not_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No socket, and one that a killed daemon has left: exit 3 and the cure."""
    path = str(tmp_path / "sock")
    for _ in range(2):
        code, said = fails(path, capsys)
        assert code == client.NOT_RUNNING
        assert "systemctl start sentinel" in said
        assert "could not listen (journalctl -u sentinel)" in said
        with socket.socket(socket.AF_UNIX) as left_behind, contextlib.suppress(OSError):
            left_behind.bind(path)


@pytest.mark.skipif(not IS_ROOT, reason="only root can become someone else")
def test_not_permitted(capsys: pytest.CaptureFixture[str]) -> None:
    """Another user is told whom to become: exit 4, because nothing is known."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with serving(saying(document()), path=folder / "sock") as path:
            Path(path).chmod(0o600)
            with as_nobody():
                code, said = fails(path, capsys)
            assert code == client.UNKNOWN
            assert "status.group" in said


def mute(connection: Connection) -> None:
    """Say nothing until the test is over."""
    connection.over.wait()


def endless(connection: Connection) -> None:
    """Begin a document that has no end."""
    connection.flood(b'{"a": "' + b"a" * 65536)


@pytest.mark.parametrize(
    "behaviour",
    [
        lambda _: None,
        lambda connection: connection.sock.sendall(b"220 mail.example.org ESMTP\r\n"),
        lambda connection: connection.sock.sendall(b"[]\n"),
        lambda connection: connection.sock.sendall(b"{}\n"),
        lambda connection: connection.sock.sendall(b"\xff\xfe{"),
        lambda connection: connection.sock.sendall(json.dumps(document()).encode()[:-9]),
        endless,
    ],
    ids=["nothing", "mail", "list", "empty", "bytes", "half", "endless"],
)
def test_garbage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], behaviour: Callable[[Connection], None]
) -> None:
    """Whoever answers, it is not sentinel, or not whole: exit 4."""
    with serving(behaviour, path=tmp_path / "sock") as path:
        code, said = fails(path, capsys)
    assert code == client.UNKNOWN
    assert path in said


@pytest.mark.parametrize("behaviour", [mute, lambda c: c.trickle(b" " * 100_000)])
def test_a_hung_daemon(tmp_path: Path, behaviour: Callable[[Connection], None]) -> None:
    """Silent, or a byte at a time: the answer has a deadline as a whole."""
    with (
        serving(behaviour, path=tmp_path / "sock") as path,
        pytest.raises(client.NoAnswerError, match="may be hung") as refused,
    ):
        client.ask(path, timeout_s=0.2)
    assert refused.value.exit_code == client.UNKNOWN


def test_another_version_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After an upgrade the old daemon still runs; its JSON is shown all the same."""
    old = document(HEALTHY, replace(AROUND, version="0.0.1"))
    del old["lease"]
    with serving(saying(old), path=tmp_path / "sock") as path:
        code, said = fails(path, capsys)
        assert code == client.UNKNOWN
        assert "sentinel 0.0.1 is running" in said
        assert sentinel("--socket", path, "--json") == 0


def test_watch_shows_it_again_and_again(tmp_path: Path) -> None:
    """Until it is interrupted, which is no error worth a traceback."""
    with serving(saying(document()), path=tmp_path / "sock") as path:
        # whoever runs the tests in the background may have taught us to ignore SIGINT
        argv = ["env", "--default-signal=INT", sys.executable, "-m", "sentinel"]
        argv += ["status", "--socket", path, "--watch", "0.1"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
            try:
                assert watching.stdout is not None
                assert watching.stderr is not None
                seen = 0
                while seen < 3:
                    seen += b"HEALTHY" in watching.stdout.readline()
                watching.send_signal(signal.SIGINT)
                assert watching.wait(20) == 130
                assert watching.stderr.read() == b""
            finally:
                watching.kill()


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_on_a_terminal_only_and_not_against_ones_will(
    tmp_path: Path, no_color: str, *, coloured: bool
) -> None:
    """On a terminal, unless NO_COLOR is set to something (no-color.org)."""
    with serving(saying(document()), path=tmp_path / "sock") as path:
        shown = on_a_terminal(
            [sys.executable, "-m", "sentinel", "status", "--socket", path],
            {**os.environ, "NO_COLOR": no_color},
        )
    assert "HEALTHY" in shown
    assert ("\x1b[" in shown) is coloured


def on_a_terminal(argv: list[str], env: dict[str, str]) -> str:
    """Run *argv* on a pseudo terminal and return what it shows."""
    ours, theirs = os.openpty()
    shown = io.BytesIO()

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: the other side was closed
            while chunk := os.read(ours, 4096):
                shown.write(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        subprocess.run(argv, stdout=theirs, env=env, timeout=20, check=False)
    finally:
        os.close(theirs)
        reader.join(20)
        os.close(ours)
    return shown.getvalue().decode()
