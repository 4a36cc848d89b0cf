"""``sentinel why``: the story of each move of a VIP, out of what the daemon remembers."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import pytest
from documents import AROUND, HEALTHY, NOW_S, POLICY
from servers import Connection, serving

from sentinel.actions import Report
from sentinel.commands import client, why
from sentinel.snapshot import snapshot

if TYPE_CHECKING:
    from pathlib import Path

A, B = "192.0.2.1/32 dev eth0", "192.0.2.2/32 dev eth0"
DIED = ("haproxy.died", {"reason": "worker 100 died"})
YIELDS = ("verdict.changed", {"from": "serving", "to": "yielding", "reason": "worker 100 died"})
LOWERED = (
    "verdict.changed",
    {"from": "serving", "to": "serving, priority lowered by 253", "reason": "stepped down by eve"},
)
SERVES = ("verdict.changed", {"from": "yielding", "to": "serving", "reason": "it serves again"})
BACKUP = ("vrrp.changed", {"instance": "VI_1", "from": "MASTER", "to": "BACKUP"})
MASTER = ("vrrp.changed", {"instance": "VI_1", "from": "BACKUP", "to": "MASTER"})
FENCED = ("vip.fenced", {"vips": A, "reason": "keepalived is dead and has left 192.0.2.1 here"})


def left(vip: str = A) -> tuple[str, dict[str, str]]:
    """Return the event of a VIP that leaves."""
    return "vip.left", {"instance": "VI_1", "vip": vip}


def arrived(vip: str = A) -> tuple[str, dict[str, str]]:
    """Return the event of a VIP that comes."""
    return "vip.arrived", {"instance": "VI_1", "vip": vip}


def document(*told: tuple[str, dict[str, str]] | float) -> dict[str, Any]:
    """Return the status of a daemon that reported this, a second apart; a number is a pause."""
    at_s, history = 0.0, []
    for entry in told:
        if isinstance(entry, float):
            at_s += entry
            continue
        at_s += 1.0
        report = Report(name=entry[0], level="info", fields=tuple(entry[1].items()))
        history.append((at_s, report))
    return snapshot(POLICY, HEALTHY, history, AROUND, NOW_S)


def stories(*told: tuple[str, dict[str, str]] | float) -> list[tuple[str, list[str]]]:
    """Return of each move the reason and the names of the events that led to it."""
    return [
        (move.why, [event["event"] for event in move.story])
        for move in why.moves(document(*told)["history"])
    ]


def test_a_failure_and_the_way_back_are_two_stories() -> None:
    """Each with what was told to keepalived last, and all that happened since the one before."""
    restarted = ("haproxy.restarted", {"reason": "it serves again"})
    assert stories(DIED, YIELDS, BACKUP, left(), restarted, SERVES, MASTER, arrived()) == [
        (
            "this node yields: worker 100 died",
            ["haproxy.died", "verdict.changed", "vrrp.changed", "vip.left"],
        ),
        (
            "this node serves: it serves again",
            ["haproxy.restarted", "verdict.changed", "vrrp.changed", "vip.arrived"],
        ),
    ]


def test_what_moves_together_has_one_story() -> None:
    """Both VIPs of an instance; keepalived may tell of its state between them or afterwards."""
    found = stories(DIED, YIELDS, left(A), BACKUP, left(B), SERVES, arrived(A), MASTER, arrived(B))
    assert [len(story) for _, story in found] == [3, 5, 2, 4]
    assert {reason for reason, _ in found[:2]} == {"this node yields: worker 100 died"}
    assert {reason for reason, _ in found[2:]} == {"this node serves: it serves again"}


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (
            (LOWERED, BACKUP, left()),
            "this node serves, priority lowered by 253: stepped down by eve",
        ),
        ((FENCED, left()), "vip.fenced: keepalived is dead and has left 192.0.2.1 here"),
        ((SERVES, BACKUP, left()), "nothing was wrong here"),
        ((BACKUP, left()), "nothing was wrong here"),
        ((MASTER, arrived()), "this node was well all the time"),
        ((YIELDS, MASTER, arrived()), "this node was well all the time"),
    ],
)
def test_reasons(told: tuple[tuple[str, dict[str, str]], ...], reason: str) -> None:
    """What was told, what was done, or that the cause is elsewhere."""
    ((found, _),) = stories(*told)
    assert found.startswith(reason)


def test_the_way_back_without_any_cause_is_not_explained_by_what_was_before() -> None:
    """The verdict that made the VIP leave is no reason for its coming."""
    found = stories(SERVES, MASTER, arrived(), BACKUP, left(), MASTER, arrived())
    assert [reason.partition(":")[0] for reason, _ in found] == [
        "this node serves",
        "nothing was wrong here",
        "this node was well all the time",
    ]


def test_what_happened_long_before_is_no_part_of_it() -> None:
    """A minute without any event ends a story."""
    ((reason, story),) = stories(DIED, YIELDS, 61.0, BACKUP, left())
    assert story == ["vrrp.changed", "vip.left"]
    assert reason.startswith("nothing was wrong here")
    ((reason, _),) = stories(DIED, YIELDS, 58.0, BACKUP, left())
    assert reason == "this node yields: worker 100 died"


# --- the command ----------------------------------------------------------------------------------


def sentinel(tmp_path: Path, made: object, *words: str) -> int:
    """Run the subcommand beside a daemon that answers *made*."""
    parser = argparse.ArgumentParser(prog="sentinel")
    why.add_parser(parser.add_subparsers(required=True))

    def answer(connection: Connection) -> None:
        connection.sock.sendall(json.dumps(made).encode() + b"\n")

    with serving(answer, path=tmp_path / "sock") as path:
        args = parser.parse_args(["why", "--socket", path, *words])
        return int(args.run(args))


def test_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """When, what and why, then the story in its order; a hostile word moves no cursor."""
    hostile = ("haproxy.died", {"reason": "\x1b[2J"})
    assert sentinel(tmp_path, document(hostile, YIELDS, BACKUP, left())) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"VI_1: {A} left this node")
    assert lines[1] == "this node yields: worker 100 died"
    assert [line.split()[1] for line in lines[3:]] == [
        *("haproxy.died", "verdict.changed", "vrrp.changed", "vip.left")
    ]
    assert "?[2J" in lines[3]


def test_the_last_moves_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many as are asked for, the newest last."""
    made = document(DIED, YIELDS, left(), SERVES, arrived(), LOWERED, left())
    assert sentinel(tmp_path, made, "--json", "--last", "2") == 0
    found = json.loads(capsys.readouterr().out)
    assert [move["event"] for move in found] == ["vip.arrived", "vip.left"]
    assert found[1]["why"].endswith("stepped down by eve")
    assert found[1]["story"][-1]["event"] == "vip.left"


def test_no_move_is_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing has moved, as far as is remembered."""
    assert sentinel(tmp_path, document(DIED)) == 0
    assert "no VIP has come or left, as far as sentinel on lb1 remembers" in capsys.readouterr().out


def test_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status and the cure of ``sentinel status``."""
    parser = argparse.ArgumentParser(prog="sentinel")
    why.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["why", "--socket", str(tmp_path / "none")])
    assert args.run(args) == client.NOT_RUNNING
    assert "sentinel is not running" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_how_many(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At least one."""
    parser = argparse.ArgumentParser(prog="sentinel")
    why.add_parser(parser.add_subparsers(required=True))
    with pytest.raises(SystemExit):
        parser.parse_args(["why", "--last", number])
    assert f'--last: "{number}" is no number of moves: write 1 or more' in capsys.readouterr().err
