"""The command line as a whole: what it teaches, what it refuses, and what it does not load."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from daemons import ROOT

from sentinel import __version__
from sentinel.__main__ import parser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_S = 30.0


def choices(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands right below *top*; argparse has no other way to list them."""
    for action in top._actions:  # noqa: SLF001  (see above)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  (see above)
            return dict(action.choices)
    return {}


def commands(top: argparse.ArgumentParser, *name: str) -> Iterator[tuple[str, ...]]:
    """Yield the name of every command, and of those below it."""
    yield name
    for word, under in choices(top).items():
        yield from commands(under, *name, word)


def below(top: argparse.ArgumentParser, *name: str) -> argparse.ArgumentParser:
    """Return the command of this name."""
    for word in name:
        top = choices(top)[word]
    return top


COMMANDS = tuple(commands(parser()))


def sentinel(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process."""
    argv = [sys.executable, "-m", "sentinel", *words]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=DEADLINE_S, cwd=ROOT, check=False
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    """Every command says what it is for, and every option what it does and its default."""
    with pytest.raises(SystemExit) as exited:
        parser().parse_args([*command, "--help"])
    assert exited.value.code == 0
    shown = capsys.readouterr().out
    assert "``" not in shown
    described = below(parser(), *command)
    assert described.description
    for action in described._actions:  # noqa: SLF001  (see above)
        assert action.help or isinstance(action, argparse._SubParsersAction)  # noqa: SLF001  (see above)
    if command in {("run",), ("check",), ("status",)}:
        assert "/etc/sentinel/sentinel.toml" in shown


@pytest.mark.parametrize("command", ["run", "check", "status", "metrics", "config", "drill"])
def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """With a line each, and where to start."""
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    shown = capsys.readouterr().out
    assert any(
        line.split()[:1] == [command] and len(line.split()) > 3 for line in shown.splitlines()
    )
    assert "sentinel config check" in shown


def test_the_exit_statuses_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that calls status needs them."""
    with pytest.raises(SystemExit):
        parser().parse_args(["status", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "0 healthy, 1 degraded or failed, 3 sentinel is not running, 4 unknown" in shown


def test_what_ends_the_restarts_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A service manager needs it."""
    with pytest.raises(SystemExit):
        parser().parse_args(["run", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{os.EX_CONFIG} the configuration is wrong" in shown


def test_the_version_is_told() -> None:
    """On stdout, and that is all."""
    done = sentinel("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"sentinel {__version__}\n", "")


@pytest.mark.parametrize("words", [[], ["bogus"], ["run", "--bogus"], ["check", "more"]])
def test_what_is_not_understood_is_refused(words: list[str]) -> None:
    """On stderr, with the usage, as exit status 2; nothing is done."""
    done = sentinel(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: sentinel")
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    """``sentinel config schema | head -1``: no traceback, and the usual exit status."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "sentinel", "config", "schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 141
        assert process.stderr.read() == b""


LOADED = """\
import json, sys
from sentinel.__main__ import main
sys.argv = ["sentinel", *sys.argv[1:]]
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
#: A short command must not pay for what only the daemon needs.
HEAVY = {"asyncio", "h11", "psutil", "pyroute2", "sdnotify", "ssl", "structlog", "subprocess"}


@pytest.mark.parametrize(
    "words", [["check"], ["status"], ["metrics"], ["config", "schema"]], ids=" ".join
)
def test_a_short_command_stays_short(tmp_path: Path, words: list[str]) -> None:
    """Judged by what it has loaded at its end: whoever calls it often pays for no daemon."""
    config = [] if words[0] == "config" else ["--config", str(tmp_path / "sentinel.toml")]
    (tmp_path / "sentinel.toml").write_text(
        f'[status]\nsocket = "{tmp_path}/sock"\n[hook]\nlease_file = "{tmp_path}/lease"\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words, *config],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=ROOT,
        check=False,
    )
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "sentinel.commands" in loaded
    assert not loaded & HEAVY
