"""Command checks with real programs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from haproxies import wait_until
from processes import running, unreapable

from sentinel.checks.command import CommandCheck
from sentinel.config import COMMAND_PACE, Command
from sentinel.model import Code, Scope, Verdict

if TYPE_CHECKING:
    from pathlib import Path


def command(script: str, timeout_s: float = 60.0) -> CommandCheck:
    """Return a check that runs a line of shell."""
    pace = replace(COMMAND_PACE, timeout_s=timeout_s)
    return CommandCheck(Command(name="disk", argv=("/bin/sh", "-c", script), pace=pace))


@pytest.mark.parametrize(
    ("script", "verdict", "code", "detail"),
    [
        ("echo fine; echo more", Verdict.PASS, Code.PROCOK, "fine"),
        ("true", Verdict.PASS, Code.PROCOK, ""),
        ("echo disk is full >&2; exit 2", Verdict.FAIL, Code.PROCERR, "exit code 2: disk is full"),
        ("exit 1", Verdict.FAIL, Code.PROCERR, "exit code 1"),
        ("kill -KILL $$", Verdict.FAIL, Code.PROCERR, "ended by signal 9"),
    ],
)
async def test_the_exit_code_decides(
    script: str, verdict: Verdict, code: Code, detail: str
) -> None:
    """Exit code 0 passes, any other fails with the first line that was said."""
    seen = await command(script)()
    assert (seen.check, seen.scope) == ("disk", Scope.COMMAND)
    assert (seen.verdict, seen.code, seen.detail) == (verdict, code, detail)
    assert seen.duration_ms > 0


async def test_a_hanging_command_fails_and_dies(tmp_path: Path) -> None:
    """At its deadline a command fails, and all it started dies with it."""
    pid = tmp_path / "pid"
    check = command(f"echo asking; sleep 600 & echo $! > {pid}; wait", timeout_s=1.5)
    seen = await check()
    assert (seen.verdict, seen.code) == (Verdict.FAIL, Code.PROCTOUT)
    assert seen.detail == "killed after 1.5 s: asking"
    child = int(pid.read_text())
    await asyncio.to_thread(wait_until, lambda: not running(child), "the child is dead")


async def test_a_command_that_cannot_be_killed_is_not_run_again(tmp_path: Path) -> None:
    """What it would say is not known, for as long as it hangs."""
    pid = tmp_path / "pid"
    check = command(f"echo $$ > {pid}; exec sleep 600", timeout_s=1.5)
    first = asyncio.ensure_future(check())
    await asyncio.to_thread(wait_until, lambda: pid.exists() and pid.read_text(), "it runs")
    with unreapable(int(pid.read_text())):
        assert (await first).code is Code.PROCTOUT
        seen = await check()
    assert (seen.verdict, seen.code) == (Verdict.UNKNOWN, Code.UNK)
    assert seen.detail == "was killed before and is still not gone: /bin/sh"
    assert (await check()).code is Code.PROCTOUT


async def test_a_missing_command_is_unknown(tmp_path: Path) -> None:
    """A program that cannot be started says nothing about this node."""
    missing = str(tmp_path / "missing")
    seen = await CommandCheck(Command(name="disk", argv=(missing,)))()
    assert (seen.verdict, seen.code) == (Verdict.UNKNOWN, Code.UNK)
    assert seen.detail == f"No such file or directory: {missing}"


async def test_a_command_that_is_not_executable_is_unknown(tmp_path: Path) -> None:
    """A file without the right to execute is the administrator's slip, not a failure."""
    plain = tmp_path / "plain"
    plain.touch()
    seen = await CommandCheck(Command(name="disk", argv=(str(plain),)))()
    assert (seen.verdict, seen.detail) == (Verdict.UNKNOWN, f"Permission denied: {plain}")


async def test_long_lines_are_shortened() -> None:
    """What a command says is bounded."""
    seen = await command("head -c 5000 /dev/zero | tr '\\0' x")()
    assert len(seen.detail) <= 300
