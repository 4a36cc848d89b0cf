"""The configuration check with the real ``haproxy -c``, and with programs in its place."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from hanging import hanging
from haproxies import EXECUTABLE, answering_config, free_port, running_haproxy, wait_until
from heldsockets import launcher
from namespaces import needs_root
from privileges import folder_for_all
from threadless import run_threadless

from sentinel.aside import Aside
from sentinel.checks.configuration import ConfigurationCheck
from sentinel.config import CONFIGURATION_PACE, Haproxy, Pace
from sentinel.model import Code, ConfigurationView, Observation, Scope, Verdict
from sentinel.processes.invocation import Invocation
from sentinel.processes.trust import runs_as_us

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PACE: Final = replace(CONFIGURATION_PACE, timeout_s=60.0)
SHORT: Final = replace(CONFIGURATION_PACE, timeout_s=0.3)


def nobody() -> int:
    """Say that no HAProxy runs."""
    return 0


def configuration(
    *files: Path, executable: str = EXECUTABLE, pid: Callable[[], int] = nobody
) -> ConfigurationCheck:
    """Return a check of these files by the settings alone."""
    config = tuple(str(file) for file in files)
    return check_of(Haproxy(executable=executable, config=config), pid=pid)


def check_of(
    settings: Haproxy,
    *,
    pace: Pace = PACE,
    pid: Callable[[], int] = nobody,
    aside: Aside | None = None,
    invocation: Invocation | None = None,
) -> ConfigurationCheck:
    """Return a check by these settings."""
    aside = aside or Aside("looking")
    return ConfigurationCheck(settings, pace, pid, aside, invocation)


async def judges(check: ConfigurationCheck) -> bool:
    """Tell whether a run of *check* asks HAProxy, instead of repeating its last verdict."""
    return (await check()).duration_ms > 0


def view(seen: Observation) -> ConfigurationView:
    """Return the view of an observation that has to have one."""
    assert isinstance(seen.view, ConfigurationView)
    return seen.view


def program(path: Path, body: str) -> str:
    """Write an executable shell script in haproxy's place."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def change(config: Path, old: str, new: str) -> None:
    """Replace a word of a configuration in place; the empty word is its beginning."""
    text = config.read_text()
    config.write_text(text.replace(old, new) if old else new + text)


def swap(config: Path) -> None:
    """Replace a configuration by a copy with the same size and time, as some tools deploy."""
    before, copy = config.stat(), config.with_name("copy")
    copy.write_bytes(config.read_bytes())
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    copy.rename(config)


def running_nowhere(config: Path) -> Invocation:
    """Return how a program that is not there was run."""
    argv = ("-f", str(config))
    return Invocation(executable="/nowhere/haproxy", argv=argv, env=(), cwd="/")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a valid configuration."""
    path = tmp_path / "haproxy.cfg"
    path.write_text(answering_config(free_port()))
    return path


@pytest.fixture
def counted(tmp_path: Path) -> tuple[str, Callable[[], int]]:
    """Give a haproxy that is the real one and notes its runs, and a count of them."""
    runs = tmp_path / "runs"
    runs.touch()
    path = program(tmp_path / "haproxy", f'echo run >> {runs}\nexec {EXECUTABLE} "$@"')
    return path, lambda: len(runs.read_text().split())


@pytest.mark.real
async def test_a_valid_configuration_passes(config: Path) -> None:
    """A valid configuration passes and names its files."""
    seen = await configuration(config)()
    assert (seen.check, seen.scope) == ("configuration", Scope.CONFIGURATION)
    assert (seen.verdict, seen.code, seen.detail) == (Verdict.PASS, Code.PROCOK, "valid")
    assert view(seen) == ConfigurationView(valid=True, files=(str(config),))
    assert seen.duration_ms > 0


@pytest.mark.real
async def test_the_failing_line_is_kept(config: Path) -> None:
    """Of several errors the first is kept, with its file and line, without HAProxy's preface."""
    change(config, "", "global\n    nonsense here\n    more of it\n")
    seen = await configuration(config)()
    assert (seen.verdict, seen.code) == (Verdict.FAIL, Code.PROCERR)
    assert not view(seen).valid
    assert view(seen).error == seen.detail
    assert seen.detail == f"parsing [{config}:2] : unknown keyword 'nonsense' in 'global' section"


@pytest.mark.real
async def test_a_missing_file_fails(tmp_path: Path) -> None:
    """Without its configuration HAProxy does not start."""
    seen = await configuration(tmp_path / "none.cfg")()
    assert seen.verdict is Verdict.FAIL
    assert "none.cfg : No such file or directory" in seen.detail


@pytest.mark.real
async def test_a_configuration_without_listener_fails(tmp_path: Path) -> None:
    """A configuration without error that would not start all the same is invalid too."""
    empty = tmp_path / "empty.cfg"
    empty.write_text("global\n    maxconn 10\n")
    seen = await configuration(empty)()
    assert seen.verdict is Verdict.FAIL
    assert "will not start (no listener)" in seen.detail


@pytest.mark.real
async def test_warnings_are_told(config: Path) -> None:
    """A valid configuration with warnings passes and tells the first of them."""
    change(config, "timeout client 5s", "")
    seen = await configuration(config)()
    assert seen.verdict is Verdict.PASS
    assert "missing timeouts for frontend" in seen.detail
    assert seen.detail.startswith("valid, ")


@pytest.mark.real
async def test_zero_warning_tells_the_warning(config: Path) -> None:
    """Where warnings are fatal the warning is the reason."""
    change(config, "", "global\n    zero-warning\n")
    change(config, "timeout client 5s", "")
    seen = await configuration(config)()
    assert seen.verdict is Verdict.FAIL
    assert seen.detail.startswith("missing timeouts for frontend")


@pytest.mark.real
async def test_nothing_is_run_until_a_file_changes(
    config: Path, counted: tuple[str, Callable[[], int]]
) -> None:
    """An unchanged configuration costs no process; each kind of change costs one."""
    executable, runs = counted
    check = configuration(config, executable=executable)
    for _ in range(5):
        assert (await check()).verdict is Verdict.PASS
    assert runs() == 1
    change(config, "", "# a comment\n")
    assert (await check()).verdict is Verdict.PASS
    assert runs() == 2
    swap(config)
    await check()
    assert runs() == 3


@pytest.mark.real
async def test_a_failure_is_remembered_too(
    config: Path, counted: tuple[str, Callable[[], int]]
) -> None:
    """An invalid configuration is not parsed again every second, and its line stays."""
    executable, runs = counted
    change(config, "", "nonsense\n")
    check = configuration(config, executable=executable)
    first, second = await check(), await check()
    assert runs() == 1
    assert (first.verdict, first.detail) == (second.verdict, second.detail)
    assert second.duration_ms == 0


@pytest.mark.real
async def test_a_file_that_appears_in_a_folder(tmp_path: Path) -> None:
    """A new *.cfg in a configuration folder is a change, another file is none."""
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "a.cfg").write_text(answering_config(free_port()))
    check = configuration(folder)
    assert (await check()).verdict is Verdict.PASS
    (folder / "b.cfg.bak").write_text("nonsense\n")
    assert not await judges(check)
    (folder / "b.cfg").write_text("nonsense\n")
    seen = await check()
    assert seen.verdict is Verdict.FAIL
    assert view(seen).files == (str(folder / "a.cfg"), str(folder / "b.cfg"))


@pytest.mark.real
async def test_a_new_program_is_a_change(
    config: Path, counted: tuple[str, Callable[[], int]], tmp_path: Path
) -> None:
    """A package upgrade may refuse what the old program took."""
    executable, runs = counted
    check = configuration(config, executable=executable)
    await check()
    program(tmp_path / "haproxy", "echo '[ALERT] (1) : config : too new for you'; exit 1")
    seen = await check()
    assert (seen.verdict, seen.detail) == (Verdict.FAIL, "too new for you")
    assert runs() == 1


@pytest.mark.real
async def test_a_verdict_belongs_to_the_files_before_it(config: Path, tmp_path: Path) -> None:
    """A file that changes while -c reads it is judged again."""
    body = f'echo "# changed" >> {shlex.quote(str(config))}\nexec {EXECUTABLE} "$@"'
    check = configuration(config, executable=program(tmp_path / "haproxy", body))
    assert (await check()).verdict is Verdict.PASS
    assert await judges(check)


@pytest.mark.real
async def test_a_verdict_stands_until_a_file_changes(config: Path) -> None:
    """From when it was given, a failure as well as a pass."""
    check = configuration(config)
    assert [await judges(check) for _ in range(2)] == [True, False]
    change(config, "", "nonsense\n")
    assert [await judges(check) for _ in range(2)] == [True, False]


@pytest.mark.real
async def test_a_disk_that_hangs_is_unknown(tmp_path: Path) -> None:
    """Nothing is looked at beside what hangs, be it of a new process; then all is as before."""
    aside, settings = Aside("looking at it"), Haproxy(config=("/nonexistent",))
    with running_haproxy(answering_config(free_port()), tmp_path) as haproxy:
        check = check_of(settings, pid=lambda: haproxy.main_pid, aside=aside)
        before = check.invocation
        async with hanging(aside, tmp_path / "pipe"):
            seen = await check()
            assert (seen.verdict, seen.code) == (Verdict.UNKNOWN, Code.UNK)
            assert (seen.detail, seen.view) == ("looking at it hangs", None)
            assert check.invocation is before
        assert view(await check()).files == (str(haproxy.config),)


@pytest.mark.real
async def test_the_running_services_own_arguments(tmp_path: Path) -> None:
    """The files of the running process are judged, even beyond its death."""
    with running_haproxy(answering_config(free_port()), tmp_path) as haproxy:
        settings = Haproxy(config=("/nonexistent/haproxy.cfg",))
        check = check_of(settings, pid=lambda: haproxy.main_pid)
        seen = await check()
        assert view(seen).files == (str(haproxy.config),)
        assert seen.verdict is Verdict.PASS
        haproxy.reload()
        assert (await check()).duration_ms == 0
    assert (await check()).duration_ms == 0
    change(haproxy.config, "", "nonsense\n")
    assert (await check()).verdict is Verdict.FAIL
    restored = check_of(settings, invocation=check.invocation)
    assert view(await restored()).files == (str(haproxy.config),)


@pytest.mark.real
async def test_a_broken_file_after_a_reload_is_found(tmp_path: Path) -> None:
    """A reloaded master's environment must not keep -c from reading the configuration."""
    with running_haproxy(answering_config(free_port()), tmp_path) as haproxy:
        haproxy.reload()
        check = configuration(pid=lambda: haproxy.main_pid)
        assert (await check()).verdict is Verdict.PASS
        change(haproxy.config, "", "nonsense\n")
        seen = await check()
    assert seen.verdict is Verdict.FAIL
    assert "'nonsense'" in seen.detail


@pytest.mark.real
async def test_the_services_environment_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables and relative files of the running process mean the same to -c."""
    port = free_port()
    config = answering_config(port).replace(str(port), "${MY_PORT}")
    monkeypatch.setenv("MY_PORT", str(port))
    monkeypatch.setenv("MY_FILE", "page.txt")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.txt").write_text("HTTP/1.0 503 No\r\n\r\n")
    config += '    errorfile 503 "$MY_FILE"\n'
    with running_haproxy(config, tmp_path) as haproxy:
        monkeypatch.chdir("/")
        monkeypatch.delenv("MY_PORT")
        monkeypatch.delenv("MY_FILE")
        seen = await configuration(pid=lambda: haproxy.main_pid)()
    assert (seen.verdict, seen.detail) == (Verdict.PASS, "valid")


@pytest.mark.real
async def test_a_bind_on_an_inherited_socket_is_valid(tmp_path: Path) -> None:
    """As many stand-ins as the service hands over, and not one more."""
    ports = (free_port(), free_port())
    text = answering_config(ports[0]).replace(f"127.0.0.1:{ports[0]}", "fd@3\n    bind fd@4")
    held = launcher(tmp_path, *ports)
    with running_haproxy(text, tmp_path, flags=("-Ws",), executable=held) as haproxy:
        pid = haproxy.main_pid
        check = configuration(haproxy.config, pid=lambda: pid)
        seen = await check()
        assert (seen.verdict, seen.detail) == (Verdict.PASS, "valid")
        change(haproxy.config, "fd@4", "fd@5")
        seen = await check()
    assert seen.verdict is Verdict.FAIL
    assert "cannot use file descriptor '5'" in seen.detail


@pytest.mark.real
async def test_a_refusal_that_is_in_doubt_says_nothing(
    config: Path, counted: tuple[str, Callable[[], int]]
) -> None:
    """HAProxy may run with what is refused without its environment; a pass stays one."""
    executable, runs = counted
    invocation = Invocation(
        executable=executable, argv=("-f", str(config)), env=(), cwd="/", doubt="mend it"
    )
    check = check_of(Haproxy(), invocation=invocation)
    assert (await check()).verdict is Verdict.PASS
    change(config, "mode http", 'mode "$MODE"')
    seen = await check()
    assert (seen.verdict, seen.view) == (Verdict.UNKNOWN, None)
    assert "unknown proxy mode ''" in seen.detail
    assert seen.detail.endswith("; mend it")
    assert not await judges(check)
    assert runs() == 2


@needs_root
@pytest.mark.real
async def test_a_haproxy_that_has_become_its_user_is_not_called_invalid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its environment is believed no more, and so nothing is known where that matters."""
    port = free_port()
    text = answering_config(port).replace(str(port), "${MY_PORT}")
    with folder_for_all() as folder:
        monkeypatch.setenv("MY_PORT", str(port))
        text = f"global\n    user nobody\n{text}"
        with running_haproxy(text, folder, flags=()) as haproxy:
            monkeypatch.delenv("MY_PORT")
            wait_until(lambda: not runs_as_us(haproxy.main_pid), "it has become its user")
            check = check_of(Haproxy(), pid=lambda: haproxy.main_pid)
            seen = await check()
            assert (seen.verdict, seen.code) == (Verdict.UNKNOWN, Code.PROCERR)
            assert "MY_PORT of HAProxy's service cannot be known" in seen.detail
            monkeypatch.setenv("MY_PORT", str(port))
            again = await check_of(Haproxy(), pid=lambda: haproxy.main_pid)()
            assert (again.verdict, again.detail) == (Verdict.PASS, "valid")
            change(haproxy.config, "", "nonsense\n")
            again = await check_of(Haproxy(), pid=lambda: haproxy.main_pid)()
            assert again.verdict is Verdict.FAIL


@pytest.mark.real
async def test_a_file_that_cannot_be_looked_at_fails(tmp_path: Path) -> None:
    """HAProxy does not start with it; when it is gone all is well again."""
    (tmp_path / "a.cfg").write_text(answering_config(free_port()))
    check = configuration(tmp_path)
    assert (await check()).verdict is Verdict.PASS
    (tmp_path / "z.cfg").symlink_to("n" * 300)
    seen = await check()
    assert seen.verdict is Verdict.FAIL
    assert "File name too long" in seen.detail
    (tmp_path / "z.cfg").unlink()
    assert (await check()).verdict is Verdict.PASS


#: A check that looks where no thread can be had.
REFUSED = """
from sentinel.aside import Aside
from sentinel.checks.configuration import ConfigurationCheck
from sentinel.config import CONFIGURATION_PACE, Haproxy

async def main():
    begin_no_thread()
    check = ConfigurationCheck(Haproxy(), CONFIGURATION_PACE, lambda: 0, Aside("looking"))
    seen = await check()
    assert seen.verdict.name == "UNKNOWN", seen
    assert seen.detail == "cannot look: [Errno 11] no thread for looking", seen

asyncio.run(main())
"""


@needs_root
def test_what_cannot_be_looked_at_is_unknown() -> None:
    """And nothing that ends sentinel; a service at its TasksMax= has no thread to look in."""
    assert run_threadless(REFUSED) == ""


async def test_a_missing_program_with_inherited_sockets_is_unknown(config: Path) -> None:
    """The stand-ins' program cannot execute it either, and does not speak for it."""
    settings = Haproxy(config=(str(config),))
    invocation = replace(running_nowhere(config), inherited=2)
    seen = await check_of(settings, invocation=invocation)()
    assert (seen.verdict, seen.code) == (Verdict.UNKNOWN, Code.UNK)


async def test_a_hanging_check_is_unknown(config: Path, tmp_path: Path) -> None:
    """A -c that hangs is killed, says nothing about the configuration, and is tried again."""
    executable = program(tmp_path / "haproxy", "trap '' TERM; while :; do sleep 1; done")
    settings = Haproxy(executable=executable, config=(str(config),))
    check = check_of(settings, pace=SHORT)
    for _ in range(2):
        seen = await check()
        assert (seen.verdict, seen.code) == (Verdict.UNKNOWN, Code.PROCTOUT)
        assert seen.detail == "haproxy -c: killed after 0.3 s"
        assert seen.view is None


async def test_a_missing_program_is_unknown(config: Path, tmp_path: Path) -> None:
    """Without the program nothing is known, and the cure is told."""
    missing = str(tmp_path / "none")
    seen = await configuration(config, executable=missing)()
    assert (seen.verdict, seen.code) == (Verdict.UNKNOWN, Code.UNK)
    assert seen.detail == f"No such file or directory: {missing}; set haproxy.executable"


@pytest.mark.real
async def test_a_read_only_sandbox_says_nothing_of_the_file(config: Path, tmp_path: Path) -> None:
    """``haproxy -c`` opens a ring's file for writing, which the shipped unit's sandbox forbids."""
    rings = tmp_path / "rings"
    rings.mkdir()
    change(config, "", f"ring r\n    size 65536\n    backing-file {rings}/r\n")
    assert (await configuration(config)()).verdict is Verdict.PASS
    sandbox = f"mount --bind {rings} {rings}; mount -o remount,ro,bind {rings}"
    body = f'exec unshare -rm sh -c \'{sandbox}; exec {EXECUTABLE} "$@"\' haproxy "$@"'
    seen = await configuration(config, executable=program(tmp_path / "haproxy", body))()
    assert (seen.verdict, seen.code) == (Verdict.UNKNOWN, Code.UNK)
    assert "Read-only file system" in seen.detail
    assert seen.detail.endswith("ReadWritePaths= in a drop-in of sentinel.service")


async def test_a_program_without_its_libraries_is_unknown(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are, the service's environment may say, and only ours is believed in that."""
    (tmp_path / "libc.so.6").write_text("damaged")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    seen = await configuration(config)()
    assert (seen.verdict, seen.code) == (Verdict.UNKNOWN, Code.UNK)
    assert "error while loading shared libraries" in seen.detail
    assert seen.detail.endswith(
        "give sentinel.service the LD_LIBRARY_PATH that haproxy.service has"
    )


async def test_a_check_that_is_shot_is_unknown(config: Path, tmp_path: Path) -> None:
    """A -c that dies by a signal, as of the OOM killer, has not judged anything."""
    executable = program(tmp_path / "haproxy", "kill -KILL $$")
    seen = await configuration(config, executable=executable)()
    assert (seen.verdict, seen.detail) == (Verdict.UNKNOWN, "haproxy -c: ended by signal 9")


async def test_a_refusal_without_words(config: Path, tmp_path: Path) -> None:
    """Only the exit code decides; without any message it is the reason."""
    seen = await configuration(config, executable=program(tmp_path / "haproxy", "exit 3"))()
    assert (seen.verdict, seen.detail) == (Verdict.FAIL, "exit code 3")


async def test_an_older_haproxys_messages(config: Path, tmp_path: Path) -> None:
    """Before 2.4 HAProxy put a date where the section's name is now."""
    body = "echo '[ALERT] 123/101010 (77) : parsing [/x:3] : unknown keyword'; exit 1"
    seen = await configuration(config, executable=program(tmp_path / "haproxy", body))()
    assert seen.detail == "parsing [/x:3] : unknown keyword"


async def test_long_errors_are_shortened(config: Path, tmp_path: Path) -> None:
    """An error of any length is bounded in status and logs."""
    body = "head -c 100000 /dev/zero | tr '\\0' x; exit 1"
    seen = await configuration(config, executable=program(tmp_path / "haproxy", body))()
    assert len(seen.detail) <= 300
    assert len(view(seen).error) <= 300
