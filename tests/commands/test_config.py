"""``sentinel config``: what is printed where, and the exit status."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from sentinel.commands import CONFIG_DEFAULT, config
from sentinel.config import Config
from sentinel.configfile import load, schema

CONFIGS = Path(__file__).parents[1] / "configs"


def copied(name: str, folder: Path) -> str:
    """Copy a file, so that it is ours, whoever owns the working tree."""
    return str(shutil.copyfile(CONFIGS / name, folder / "sentinel.toml"))


def sentinel(*words: str) -> int:
    """Run the subcommand as the command line does."""
    parser = argparse.ArgumentParser(prog="sentinel")
    config.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(words)
    return int(args.run(args))


def test_check_of_a_good_file_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A configuration that can be used is one line and exit status 0."""
    file = copied("good/typical.toml", tmp_path)
    assert sentinel("config", "check", file) == 0
    assert capsys.readouterr() == (f"{file}: valid\n", "")


@pytest.mark.skipif(Path(CONFIG_DEFAULT).exists(), reason="this machine has a configuration")
def test_check_of_the_missing_default_file_says_what_applies(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a file sentinel runs on its defaults, which nobody should take for a file."""
    assert sentinel("config", "check") == 0
    assert capsys.readouterr().out == (
        f"{CONFIG_DEFAULT}: there is no such file, so the defaults apply\n"
    )


@pytest.mark.parametrize("verb", ["check", "show"])
def test_bad_file_is_explained_on_stderr(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str
) -> None:
    """All that is wrong goes to stderr, one line a mistake, and the exit status is 1."""
    file = copied("bad/backoff.toml", tmp_path)
    assert sentinel("config", verb, file) == 1
    wrong = "restart.backoff: 10s is longer than backoff_max, 5s: raise backoff_max, or lower this"
    assert capsys.readouterr() == ("", f"{file}: {wrong}\n")


def test_show_prints_what_loads_as_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The effective configuration can be taken as a file of its own."""
    file = copied("good/typical.toml", tmp_path)
    assert sentinel("config", "show", file) == 0
    shown = tmp_path / "shown.toml"
    shown.write_text(capsys.readouterr().out)
    assert load(str(shown)) == load(file) != Config()


def test_schema_needs_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Every key is listed without any configuration being read."""
    assert sentinel("config", "schema") == 0
    assert capsys.readouterr().out == schema()


@pytest.mark.parametrize("words", [["config"], ["config", "mend"], ["config", "schema", "file"]])
def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """What the command line does not know is no verdict on the configuration."""
    with pytest.raises(SystemExit) as exited:
        sentinel(*words)
    assert exited.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ")
