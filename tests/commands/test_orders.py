"""``sentinel pause``, ``stepdown`` and ``resume`` against a daemon that does as the test says."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import socket
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from documents import HEALTHY, NOW_S, document
from privileges import IS_ROOT, as_nobody
from servers import Connection, serving

from sentinel import orders
from sentinel.commands import pause, resume, stepdown
from sentinel.core import Intent, Memory
from sentinel.events import Order, Verb

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The VIPs of these tests are on loopback, so that somebody can answer on them.
VIP: Final = "127.0.0.1"
OTHER: Final = "127.0.0.2"
REFUSAL: Final = "that is no order: for once"


@dataclass(slots=True)
class Daemon:
    """Tells a status and takes orders, on two sockets in *folder*, as sentinel does.

    *moves*: an order takes the VIPs off this node. *ports* are HAProxy's. *intents* is what holds.
    """

    folder: Path
    held: tuple[str, ...] = (VIP,)
    knows_instances: bool = True
    moves: bool = True
    ports: tuple[int, ...] = ()
    by_fault: str = ""
    intents: tuple[Intent, ...] = ()
    answer: str = orders.TAKEN
    taken: list[Order] = field(default_factory=list)

    @property
    def config(self) -> str:
        """A configuration that leads to it."""
        path = self.folder / "sentinel.toml"
        path.write_text(f'[status]\nsocket = "{self.folder}/status.sock"\n')
        return str(path)

    def status(self, connection: Connection) -> None:
        """Tell how it is."""
        connection.sock.sendall(json.dumps(self.document()).encode() + b"\n")

    def document(self) -> dict[str, Any]:
        """Return what is true now."""
        here = not (self.moves and self.taken)
        vips = [
            {"address": vip, "prefix": 32, "interface": "lo", "present": here} for vip in self.held
        ]
        made = document(replace(HEALTHY, memory=Memory(intents=self.intents)))
        instances = [{"vips": vips}] if self.knows_instances else []
        made |= {"vrrp": instances, "hand_over_by_fault": self.by_fault}
        made["haproxy"]["ports"] = list(self.ports)
        return made

    def control(self, connection: Connection) -> None:
        """Take an order."""
        line = connection.sock.makefile().readline()
        if self.answer == orders.TAKEN:
            self.taken.append(orders.read(line))
        connection.sock.sendall(self.answer.encode() + b"\n")


@contextmanager
def running(folder: Path, **kwargs: Any) -> Iterator[Daemon]:
    """Run a daemon."""
    daemon = Daemon(folder, **kwargs)
    with (
        serving(daemon.status, path=folder / "status.sock"),
        serving(daemon.control, path=folder / "control.sock"),
    ):
        yield daemon


@contextmanager
def listening(address: str) -> Iterator[int]:
    """Be the other node, which answers on *address*; yields the port."""
    with socket.create_server((address, 0)) as listener:
        yield listener.getsockname()[1]


def closed_port() -> int:
    """Return a port that nobody listens on."""
    with listening(VIP) as port:
        return port


def sentinel(*words: str) -> int:
    """Run the subcommand as the command line does."""
    parser = argparse.ArgumentParser(prog="sentinel")
    subparsers = parser.add_subparsers(required=True)
    for command in (pause, resume, stepdown):
        command.add_parser(subparsers)
    args = parser.parse_args(words)
    return int(args.run(args))


# --- what is ordered ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "order"),
    [
        (("pause",), Order(verb=Verb.PAUSE)),
        (("pause", "--for", "30m"), Order(verb=Verb.PAUSE, for_s=1800.0)),
        (("pause", "--reason", "köln \udcff"), Order(verb=Verb.PAUSE, reason="köln ?")),
        (("pause", "--drain"), Order(verb=Verb.PAUSE, drain=True)),
        (("stepdown",), Order(verb=Verb.STEPDOWN)),
        (("stepdown", "--for", "2s"), Order(verb=Verb.STEPDOWN, for_s=2.0)),
        (("stepdown", "--until-start"), Order(verb=Verb.STEPDOWN, until_start=True)),
        (("resume",), Order(verb=Verb.RESUME)),
    ],
)
def test_words_become_an_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], order: Order
) -> None:
    """Signed by whoever is behind sudo."""
    monkeypatch.setenv("SUDO_USER", "eve")
    with running(tmp_path) as daemon:
        assert sentinel(*words, "--config", daemon.config) == 0
        (taken,) = daemon.taken
        assert taken == Order(**({n: getattr(order, n) for n in order.__slots__} | {"by": "eve"}))


def test_without_sudo_it_is_signed_by_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By his name."""
    monkeypatch.delenv("SUDO_USER", raising=False)
    with running(tmp_path) as daemon:
        sentinel("resume", "--config", daemon.config)
        assert daemon.taken[0].by == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize("time_", ["30", "soon", "-1s", ""])
def test_a_time_needs_a_unit(time_: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before anything is ordered."""
    with pytest.raises(SystemExit) as refused:
        sentinel("pause", f"--for={time_}")
    assert refused.value.code == 2
    assert "write a whole number and a unit" in capsys.readouterr().err


def test_waiting_is_for_the_hand_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A --wait that would be ignored is refused as wrong usage, before anything is ordered."""
    with running(tmp_path) as daemon, pytest.raises(SystemExit) as refused:
        sentinel("pause", "--wait", "5s", "--config", daemon.config)
    assert (refused.value.code, daemon.taken) == (2, [])
    assert "--wait is for the hand-over: give --drain with it" in capsys.readouterr().err


# --- what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pause",), "sentinel is paused: it mends nothing until sentinel resume\n"),
        (("pause", "--for", "90s"), "sentinel is paused: it mends nothing for 90s\n"),
        (("resume",), "sentinel goes on as configured\n"),
    ],
)
def test_an_order_without_waiting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    """Exit 0, and what holds now in one line."""
    with running(tmp_path, moves=False) as daemon:
        assert sentinel(*words, "--config", daemon.config) == 0
        assert capsys.readouterr() == (said, "")


OPEN: Final = Intent(verb=Verb.PAUSE, drain=True, by="eve", reason="disks")
MINUTE: Final = Intent(verb=Verb.STEPDOWN, until_s=NOW_S + 60, by="bob")
START: Final = Intent(verb=Verb.STEPDOWN, until_worker=1, by="root")


@pytest.mark.parametrize(
    ("words", "intents", "said"),
    [
        (("pause", "--for", "90s"), (OPEN, MINUTE), [OPEN]),
        (("pause",), (OPEN, MINUTE), []),
        (("stepdown", "--for", "30s"), (OPEN, MINUTE, START), [OPEN, MINUTE, START]),
        (("stepdown", "--for", "90s"), (MINUTE, START), [START]),
        (("stepdown", "--until-start"), (OPEN, MINUTE, START), [OPEN, MINUTE]),
        (("pause", "--for", "90s"), (MINUTE,), []),
        (("resume",), (), []),
    ],
)
def test_what_holds_on_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    intents: tuple[Intent, ...],
    said: list[Intent],
) -> None:
    """An order does not end another one: who gives it learns which one outlasts his."""
    words_ = {
        OPEN: "paused and stepped down by eve, until sentinel resume: disks",
        MINUTE: "stepped down by bob, for another 60.0s",
        START: "stepped down by root, until HAProxy has been started",
    }
    with running(tmp_path, held=(), intents=intents) as daemon:
        assert sentinel(*words, "--config", daemon.config) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if "holds as well" in line]
    assert told == [f"this holds as well: {words_[intent]}" for intent in said]
    assert len(lines) == len(told) + 1


@pytest.mark.parametrize("words", [("stepdown",), ("pause", "--drain")])
def test_handed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Exit 0 when the VIPs have gone and each answers, on any of HAProxy's ports."""
    with listening("0.0.0.0") as port:
        ports = (closed_port(), port)
        with running(tmp_path, held=(VIP, OTHER), ports=ports) as daemon:
            assert sentinel(*words, "--config", daemon.config) == 0
    out, err = capsys.readouterr()
    words_, took, rest = out.partition(f"{VIP}, {OTHER} is served by another node, ")
    assert (words_, err) == ("", "")
    assert took
    number, _, end = rest.partition(" ")
    assert int(number) >= 0
    assert end == "ms after the order\n"


def test_without_known_ports_gone_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to be asked."""
    with running(tmp_path) as daemon:
        assert sentinel("stepdown", "--config", daemon.config) == 0
    assert "is served by another node" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "until"),
    [
        ((), "until sentinel resume"),
        (("--for", "30m"), "for 30m"),
        (("--until-start",), "until HAProxy has been started"),
    ],
)
def test_a_node_without_vips_does_not_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], until: str
) -> None:
    """It says what the order is good for all the same, and for how long."""
    with running(tmp_path, held=(), moves=False) as daemon:
        assert sentinel("stepdown", *words, "--config", daemon.config) == 0
        assert len(daemon.taken) == 1
    said = f"this node holds no VIP, and takes none {until}\n"
    assert capsys.readouterr() == (said, "")


# --- what does not happen -------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("stepdown",), ("pause", "--drain")])
def test_a_node_whose_instances_are_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Nobody may take it for handed over: the VIP may well be here."""
    with running(tmp_path, knows_instances=False) as daemon:
        assert sentinel(*words, "--config", daemon.config) == 4
        assert len(daemon.taken) == 1
    out, err = capsys.readouterr()
    assert not out
    assert "the order stands, but keepalived's instances are not known" in err


@pytest.mark.parametrize("time", ["0s", "400d"])
def test_a_time_that_no_order_may_last(capsys: pytest.CaptureFixture[str], time: str) -> None:
    """It is refused before anybody is asked."""
    with pytest.raises(SystemExit) as refused:
        sentinel("stepdown", "--for", time)
    assert refused.value.code == 2
    assert "argument --for: the time of an order is more than nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("by_fault", "said"),
    [
        ("", f"{VIP} is still here: is another node there to take it?;"),
        ("VI_1 has nopreempt", f"{VIP} is still here (VI_1 has nopreempt);"),
    ],
)
def test_nobody_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], by_fault: str, said: str
) -> None:
    """Exit 1 at the end of --wait; the order stands, and how to take it back is told."""
    with running(tmp_path, moves=False, by_fault=by_fault) as daemon:
        assert sentinel("stepdown", "--wait", "100ms", "--config", daemon.config) == 1
        assert len(daemon.taken) == 1
    cure = " the order stands: sentinel resume takes it back\n"
    assert capsys.readouterr() == ("", said + cure)


def test_gone_but_nobody_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The worst of all: exit 1, and it is said so."""
    with running(tmp_path, ports=(closed_port(),)) as daemon:
        assert sentinel("stepdown", "--wait", "100ms", "--config", daemon.config) == 1
    said = f"{VIP} has left this node, but answers nowhere: look at the other node\n"
    assert capsys.readouterr() == ("", said)


def test_one_of_two_does_not_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every VIP must be served."""
    with listening(VIP) as port, running(tmp_path, held=(VIP, OTHER), ports=(port,)) as daemon:
        assert sentinel("stepdown", "--wait", "100ms", "--config", daemon.config) == 1
    assert "answers nowhere" in capsys.readouterr().err


# --- who does not take it -------------------------------------------------------------------------

EVERY_ORDER: Final = pytest.mark.parametrize(
    "words", [("pause",), ("resume",), ("stepdown",), ("pause", "--drain")], ids=" ".join
)


@EVERY_ORDER
def test_not_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Exit 3 and the cure, with no socket and with those that a killed daemon has left."""
    config = Daemon(tmp_path).config
    for _ in range(2):
        assert sentinel(*words, "--config", config) == 3
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"sentinel {words[0]}: sentinel is not running")
        assert "systemctl start sentinel" in err
        for name in ("status.sock", "control.sock"):
            with socket.socket(socket.AF_UNIX) as left_behind, suppress(OSError):
                left_behind.bind(str(tmp_path / name))


@EVERY_ORDER
def test_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Exit 4 with the daemon's own words; a hand-over does not wait for what is not to come."""
    refusal = orders.refused(ValueError(REFUSAL))
    with running(tmp_path, answer=refusal) as daemon:
        assert sentinel(*words, "--config", daemon.config) == 4
    assert capsys.readouterr() == ("", f"sentinel {words[0]}: {REFUSAL}\n")


@EVERY_ORDER
@pytest.mark.parametrize("answer", ["{}", "nonsense", "[]", ""])
def test_answered_by_a_stranger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], answer: str
) -> None:
    """Exit 4: whoever answers so has not taken it."""
    with running(tmp_path, answer=answer) as daemon:
        assert sentinel(*words, "--config", daemon.config) == 4
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


@EVERY_ORDER
@pytest.mark.skipif(not IS_ROOT, reason="only root can become someone else")
def test_not_permitted(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """Who may only ask for the status may not order: exit 4, and nothing was taken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running(folder) as daemon:
            config = daemon.config
            (folder / "status.sock").chmod(0o666)
            (folder / "control.sock").chmod(0o600)
            with as_nobody():
                assert sentinel(*words, "--config", config) == 4
            assert daemon.taken == []
    out, err = capsys.readouterr()
    assert out == ""
    assert f"you may not read {folder}/control.sock: run it as root" in err


def test_an_older_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It knows no VIPs and takes no orders: it has to be restarted first."""
    old = document()
    del old["vrrp"]

    def tell(connection: Connection) -> None:
        connection.sock.sendall(json.dumps(old).encode())

    with serving(tell, path=tmp_path / "status.sock"):
        assert sentinel("stepdown", "--config", Daemon(tmp_path).config) == 3
    assert f"nobody listens on {tmp_path}/control.sock" in capsys.readouterr().err


def test_it_ends_while_the_vip_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A daemon that is stopped meanwhile says nothing more: exit 3."""
    with ExitStack() as status:
        daemon = Daemon(tmp_path, moves=False)

        def take_and_end(connection: Connection) -> None:
            daemon.control(connection)
            (tmp_path / "status.sock").unlink()

        status.enter_context(serving(daemon.status, path=tmp_path / "status.sock"))
        status.enter_context(serving(take_and_end, path=tmp_path / "control.sock"))
        assert sentinel("stepdown", "--config", daemon.config) == 3
    assert "sentinel is not running" in capsys.readouterr().err
