"""``sentinel metrics``: what a strict reader of the text exposition format makes of it."""

from __future__ import annotations

import argparse
import json
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from documents import AROUND, HEALTHY, HELD, NOW_S, checked, document, down
from servers import Connection, serving

from sentinel.commands import metrics
from sentinel.core import Intent, Memory, Phase
from sentinel.events import Verb
from sentinel.model import Code, ConfigurationView, PoolView, Verdict
from sentinel.snapshot import Overall
from sentinel.vrrp import VrrpState, VrrpView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')
SAMPLE = re.compile(r"([^{ ]+)(?:\{(.*)\})? ([^ ]+)")
UNESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Labels = frozenset[tuple[str, str]]


@dataclass(slots=True, kw_only=True)
class Read:
    """One metric as it was read."""

    type: str
    samples: dict[Labels, float] = field(default_factory=dict)


def parse(page: str) -> dict[str, Read]:
    """Read the format by its rules, and refuse what breaks any of them.

    prometheus.io, exposition formats: one HELP and one TYPE before the samples of a metric, which
    stand together; nothing twice; escapes in the values of labels; an end of the last line. And
    naming: a counter ends in _total, and nothing else does.
    """
    assert page.endswith("\n")
    found: dict[str, Read] = {}
    helped = ""
    for line in page.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            _, _, helped, words = line.split(" ", 3)
            assert NAME.fullmatch(helped)
            assert helped not in found
            assert words
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == helped
            assert kind == ("counter" if name.endswith("_total") else "gauge")
            found[name] = Read(type=kind)
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            name, labels, value = match.groups()
            assert name == next(reversed(found)), f"{name} does not stand with its own"
            read = parse_labels(labels or "")
            assert read not in found[name].samples
            found[name].samples[read] = float(value)
    assert all(metric.samples for metric in found.values())
    return found


def parse_labels(text: str) -> Labels:
    """Read what stands between the braces."""
    pairs = LABEL.findall(text)
    assert ",".join(f'{name}="{value}"' for name, value in pairs) == text
    assert len({name for name, _ in pairs}) == len(pairs)
    return frozenset(
        (name, re.sub(r"\\.", lambda escape: UNESCAPED[escape[0]], value)) for name, value in pairs
    )


def told(made: Mapping[str, Any]) -> dict[str, Read]:
    """Return what the metrics of a status document say."""
    return parse(metrics.render(metrics.families(dict(made))))


def value(read: dict[str, Read], name: str, **labels: str) -> float:
    """Return one number."""
    return read[f"sentinel_{name}"].samples[frozenset(labels.items())]


# --- what is told ---------------------------------------------------------------------------------


def test_a_healthy_node() -> None:
    """Every question that an alarm may ask has its number."""
    read = told(document(replace(HEALTHY, vrrp=VrrpView(instances=(HELD,), pids=(200,)))))
    assert value(read, "serving") == 1
    assert value(read, "lowered") == 0
    assert value(read, "phase", phase="UP") == 1
    assert value(read, "phase_age_seconds") == 90
    assert value(read, "overall", overall="healthy") == 1
    assert value(read, "uptime_seconds") == 100
    assert value(read, "check_up", check="web", scope="frontend") == 1
    assert value(read, "check_duration_seconds", check="web", scope="frontend") == 0.00125
    assert (value(read, "restarts_used"), value(read, "restarts_budget")) == (1, 3)
    assert (
        value(read, "pool_servers_up", pool="app"),
        value(read, "pool_servers", pool="app"),
    ) == (*(1, 2),)
    assert value(read, "vip_present", instance="VI_1", vip="192.168.1.99", interface="eth0") == 1
    assert value(read, "vrrp_state", instance="VI_1", state="MASTER") == 1
    assert value(read, "vrrp_state", instance="VI_1", state="BACKUP") == 0
    assert value(read, "hook_age_seconds") == 1.5
    assert value(read, "held_for_seconds") == 0
    assert value(read, "log_dropped_total") == 0
    for name in ("saturated", "keepalived_stopped", "hook_silent", "paused", "stepped_down"):
        assert value(read, name) == 0


@pytest.mark.parametrize(
    ("changes", "name", "labels", "number"),
    [
        ({"phase": Phase.DEAD}, "serving", {}, 0),
        ({"phase": Phase.DEAD}, "phase", {"phase": "DEAD"}, 1),
        ({"phase": Phase.DEAD}, "overall", {"overall": "failed"}, 1),
        ({"phase": Phase.DEAD}, "overall", {"overall": "healthy"}, 0),
        ({"phase": Phase.HOLDING, "healthy_since_s": NOW_S - 4}, "held_for_seconds", {}, 6),
        ({"saturated_s": NOW_S}, "saturated", {}, 1),
        ({"hook_silent": True}, "hook_silent", {}, 1),
        ({"memory": Memory(keepalived_stopped=True)}, "keepalived_stopped", {}, 1),
        ({"memory": Memory(intents=(Intent(verb=Verb.PAUSE),))}, "paused", {}, 1),
        ({"memory": Memory(intents=(Intent(verb=Verb.STEPDOWN),))}, "stepped_down", {}, 1),
        ({"configuration": ConfigurationView(valid=False)}, "configuration_valid", {}, 0),
        ({"checks": {"web": down("web")}}, "check_up", {"check": "web", "scope": "frontend"}, 0),
        (
            {"checks": {"web": checked("web", Verdict.UNKNOWN, Code.UNK)}},
            *("check_unknown", {"check": "web", "scope": "frontend"}, 1),
        ),
    ],
)
def test_what_is_amiss_has_its_number(
    changes: dict[str, Any], name: str, labels: dict[str, str], number: float
) -> None:
    """Each alarm of the runbook rests on one."""
    assert value(told(document(replace(HEALTHY, **changes))), name, **labels) == number


@pytest.mark.parametrize(
    ("state", "around", "name"),
    [
        (replace(HEALTHY, process_seen_s=None), AROUND, "serving"),
        (HEALTHY, replace(AROUND, hook_age_s=None), "hook_age_seconds"),
        (replace(HEALTHY, configuration=None), AROUND, "configuration_valid"),
        (replace(HEALTHY, pools=()), AROUND, "pool_servers"),
        (HEALTHY, AROUND, "vrrp_state"),
    ],
)
def test_what_is_not_known_is_left_out(state: Any, around: Any, name: str) -> None:
    """A number would be a guess, and a head without samples is none."""
    assert f"sentinel_{name}" not in told(document(state, around))


def test_one_state_is_true_of_each() -> None:
    """The words are those of the core, and exactly one of them is 1."""
    assert {phase.value for phase in Phase} == set(metrics.PHASES)
    assert {overall.value for overall in Overall} == set(metrics.OVERALLS)
    assert set(VrrpState) == set(metrics.VRRP_STATES)
    read = told(document())
    for name in ("phase", "overall"):
        assert sum(read[f"sentinel_{name}"].samples.values()) == 1


def test_names_that_need_escapes() -> None:
    """A backend may be called what it likes, and no two samples become the same."""
    names = ('a"b', "a\\b", "a\\nb", "ä,}= #", "same", "same")
    pools = tuple(PoolView(name=name, up=1, total=1) for name in names)
    samples = told(document(replace(HEALTHY, pools=pools)))["sentinel_pool_servers"].samples
    assert [dict(labels)["pool"] for labels in samples] == list(dict.fromkeys(names))


# --- the command ----------------------------------------------------------------------------------


def sentinel(*words: str) -> int:
    """Run the subcommand as the command line does."""
    parser = argparse.ArgumentParser(prog="sentinel")
    metrics.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["metrics", *words])
    return int(args.run(args))


def saying(made: object) -> Callable[[Connection], None]:
    """Answer as the daemon does."""
    return lambda connection: connection.sock.sendall(json.dumps(made).encode() + b"\n")


def test_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it, with the node's name; what is no UTF-8 spoils nothing."""
    made = document() | {"node": "lb\udcff1"}
    with serving(saying(made), path=tmp_path / "sock") as path:
        assert sentinel("--socket", path) == 0
    out, err = capsys.readouterr()
    read = parse(out)
    assert err == ""
    assert value(read, "up") == 1
    assert value(read, "info", node="lb?1", version="0.1.0") == 1
    assert value(read, "serving") == 1


def test_a_file_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By rename, readable for the collector whatever the umask, and nothing else is left."""
    file = tmp_path / "sentinel.prom"
    file.write_text("old")
    (tmp_path / "sentinel.prom.new").write_text("of one that was killed")
    mask = os.umask(0o077)
    try:
        with file.open() as reader, serving(saying(document()), path=tmp_path / "sock") as path:
            assert sentinel("--socket", path, "--output", str(file)) == 0
            assert reader.read() == "old", "whoever has it open reads the whole old one"
    finally:
        os.umask(mask)
    assert value(parse(file.read_text()), "up") == 1
    assert file.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.glob("*prom*")) == ["sentinel.prom"]
    assert capsys.readouterr() == ("", "")


def test_without_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file says so instead of what was true yesterday; it was written, so the exit is 0."""
    file = tmp_path / "sentinel.prom"
    file.write_text("sentinel_up 1\n")
    assert sentinel("--socket", str(tmp_path / "none"), "--output", str(file)) == 0
    read = parse(file.read_text())
    assert (list(read), value(read, "up")) == (["sentinel_up"], 0)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("sentinel metrics: sentinel is not running")


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 and the reason, whatever sentinel says."""
    file = tmp_path / "none" / "sentinel.prom"
    with serving(saying(document()), path=tmp_path / "sock") as path:
        assert sentinel("--socket", path, "--output", str(file)) == 1
    assert capsys.readouterr().err == f"sentinel metrics: {file}: No such file or directory\n"


def test_another_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That it runs is told; what it knows, in words of its own, is not guessed at."""
    made = document() | {"version": "9.9"}
    del made["lowered"]
    with serving(saying(made), path=tmp_path / "sock") as path:
        assert sentinel("--socket", path) == 0
    out, err = capsys.readouterr()
    assert list(parse(out)) == ["sentinel_up", "sentinel_info"]
    assert "sentinel 9.9 is running" in err
