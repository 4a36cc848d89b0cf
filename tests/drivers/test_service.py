"""The service drivers against systemctls that misbehave, and plain commands with a real haproxy.

The real systemd is in test_service_lab.py; here ``systemctl`` is a shell script of the test's own.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import EXECUTABLE, answering_config, free_port, wait_until
from processes import running

from sentinel.config import Haproxy, Keepalived, Manager
from sentinel.drivers.service import CommandService, SystemdService, choose

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLENTY_S: Final = 60.0
SHORT_S: Final = 0.3
ENOUGH_S: Final = 1.5  # for what has to get something done before it is killed
RUNNING: Final = (
    "LoadState=loaded\nActiveState=active\nSubState=running\n"
    "Result=success\nMainPID=77\nNRestarts=2"
)
FAILED: Final = RUNNING.replace("active", "failed").replace("running", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Systemctl:
    """A systemctl of the test's own: a shell script, and the file where it notes its calls."""

    path: Path
    notes: Path

    @property
    def verbs(self) -> list[str]:
        """The verbs it was called with, in order."""
        return self.notes.read_text().split() if self.notes.exists() else []


def script(path: Path, body: str) -> Path:
    """Write an executable shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def systemctl(tmp_path: Path, body: str) -> Systemctl:
    """Return a systemctl that notes its verb and then does *body*, in which it is $verb."""
    notes = tmp_path / "verbs"
    find = 'for word; do case "$word" in --*) ;; *) verb=$word; break;; esac; done'
    path = script(tmp_path / "systemctl", f"{find}\necho $verb >> {notes}\n{body}")
    return Systemctl(path=path, notes=notes)


def service(fake: Systemctl, timeout_s: float = PLENTY_S) -> SystemdService:
    """Return the driver on this systemctl."""
    return SystemdService("haproxy.service", timeout_s, str(fake.path))


def show(answer: str, otherwise: str = "exit 0") -> str:
    """Return the body of a systemctl that shows *answer* and does something else *otherwise*."""
    return f'case $verb in show) echo "{answer}";; *) {otherwise};; esac'


async def test_look_reads_the_state(tmp_path: Path) -> None:
    """A running unit is read as it is shown, and its main process remembered."""
    driver = service(systemctl(tmp_path, show(RUNNING)))
    state = await driver.look()
    assert (state.known, state.active, state.sub, state.result) == (
        True, "active", "running", "success",
    )  # fmt: skip
    assert (state.main_pid, state.restarts, state.job_pending, state.masked) == (
        77,
        2,
        False,
        False,
    )
    assert driver.main_pid == 77
    assert state.detail == ""


async def test_look_sees_a_pending_job(tmp_path: Path) -> None:
    """A job number is a pending job."""
    state = await service(systemctl(tmp_path, show(f"{RUNNING}\nJob=1234"))).look()
    assert state.job_pending


async def test_look_sees_a_masked_unit(tmp_path: Path) -> None:
    """A masked unit is down on purpose."""
    answer = "LoadState=masked\nActiveState=inactive\nSubState=dead\nResult=success"
    state = await service(systemctl(tmp_path, show(answer))).look()
    assert state.intended_stop == "unit is masked"


async def test_a_unit_that_does_not_exist_is_unknown_not_stopped(tmp_path: Path) -> None:
    """Systemd shows a missing unit as inactive with success, which is no administrator's stop."""
    answer = "LoadState=not-found\nActiveState=inactive\nSubState=dead\nResult=success"
    driver = service(systemctl(tmp_path, show(answer)))
    state = await driver.look()
    assert not state.known
    assert not state.intended_stop
    assert state.detail == "systemd has no unit haproxy.service"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("sleep 600", "systemctl show haproxy.service: killed after 0.3 s"),
        ("head -c 3000 /dev/urandom", "systemctl show haproxy.service: its answer names no state"),
        ("exit 0", "systemctl show haproxy.service: its answer names no state"),
        (
            "echo 'Failed to connect to bus: Host is down' >&2; exit 1",
            "systemctl show haproxy.service: exit code 1: Failed to connect to bus: Host is down",
        ),
    ],
    ids=["hangs", "garbage", "silent", "no bus"],
)
async def test_look_at_a_broken_systemctl(tmp_path: Path, body: str, problem: str) -> None:
    """Whatever systemctl does, the answer is that nothing is known, and why."""
    driver = service(systemctl(tmp_path, body), SHORT_S)
    state = await driver.look()
    assert (state.known, state.intended_stop) == (False, "")
    assert state.detail == problem


async def test_numbers_that_are_none(tmp_path: Path) -> None:
    """Garbage where a number belongs reads as 0, however long it is."""
    answer = f"LoadState=loaded\nActiveState=active\nMainPID=x\nNRestarts={'9' * 5000}"
    state = await service(systemctl(tmp_path, show(answer))).look()
    assert (state.known, state.main_pid, state.restarts) == (True, 0, 0)


async def test_the_last_known_main_process_is_kept(tmp_path: Path) -> None:
    """A systemctl that breaks later does not take the main process away."""
    broken = tmp_path / "broken"
    driver = service(systemctl(tmp_path, f"[ -e {broken} ] && exit 1\n{show(RUNNING)}"))
    await driver.look()
    broken.touch()
    assert not (await driver.look()).known
    assert driver.main_pid == 77


async def test_restart_after_a_look_is_one_call(tmp_path: Path) -> None:
    """After a crash every call costs milliseconds: what was just seen is not asked again.

    The look at the end is for the new main process.
    """
    fake = systemctl(tmp_path, show(RUNNING))
    driver = service(fake)
    await driver.look()
    assert (await driver.restart()).ok
    assert fake.verbs == ["show", "restart", "show"]


async def test_a_second_restart_looks_again(tmp_path: Path) -> None:
    """What was seen before an action of ours is not believed after it."""
    fake = systemctl(tmp_path, show(RUNNING))
    driver = service(fake)
    await driver.look()
    await driver.restart()
    await driver.restart()
    assert fake.verbs == ["show", "restart", "show"] * 2


async def test_a_pending_stop_is_never_replaced(tmp_path: Path) -> None:
    """Start and restart use the job mode in which systemd refuses to reverse a pending job."""
    words = tmp_path / "words"
    driver = service(systemctl(tmp_path, f'echo "$*" >> {words}\n{show(RUNNING)}'))
    await driver.restart()
    await driver.start()
    lines = [line for line in words.read_text().splitlines() if " show " not in line]
    assert len(lines) == 2
    assert all("--job-mode=fail" in line and "--no-ask-password" in line for line in lines)


async def test_a_failed_unit_is_reset_and_started_once(tmp_path: Path) -> None:
    """A failed unit refuses every start until it is reset."""
    fake = systemctl(tmp_path, show(FAILED))
    assert (await service(fake).restart()).ok
    assert fake.verbs == ["show", "reset-failed", "start", "show"]


async def test_a_start_limit_hit_is_reset_once(tmp_path: Path) -> None:
    """A restart that hits the start limit is followed by one reset and one start, not more."""
    limit = FAILED.replace("success", "start-limit-hit")
    restarted = tmp_path / "restarted"
    body = f"""
    case $verb in
      show) [ -e {restarted} ] && echo "{limit}" || echo "{RUNNING}";;
      restart) touch {restarted}; exit 1;;
      start) exit 1;;
    esac"""
    fake = systemctl(tmp_path, body)
    outcome = await service(fake).restart()
    assert not outcome.ok
    assert fake.verbs == ["show", "restart", "show", "reset-failed", "start", "show"]


async def test_a_start_that_fails_is_not_repeated(tmp_path: Path) -> None:
    """A unit that tried and failed is left to the next attempt of the budget."""
    answer = "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=exit-code"
    fake = systemctl(tmp_path, show(answer, "echo Job failed. >&2; exit 1"))
    outcome = await service(fake).restart()
    assert fake.verbs == ["show", "restart", "show"]
    assert outcome.detail == (
        "systemctl restart haproxy.service: exit code 1: Job failed.; "
        "unit is activating (auto-restart), result exit-code"
    )


async def test_a_cancelled_start_is_an_administrators_stop(tmp_path: Path) -> None:
    """A stop kills what is being started, so the unit looks failed; a later start ends that."""
    shown, stopped = tmp_path / "shown", FAILED.replace("success", "signal")
    shown.write_text(RUNNING)
    cancel = f"echo '{stopped}' >{shown}; echo Job for haproxy.service canceled. >&2; exit 1"
    body = f"case $verb in show) cat {shown};; restart) {cancel};; esac"
    driver = service(systemctl(tmp_path, body))
    assert "canceled" in (await driver.restart()).detail
    assert (await driver.look()).intended_stop == "unit was stopped during its start"
    shown.write_text(RUNNING)
    await driver.look()
    shown.write_text(stopped)
    assert not (await driver.look()).intended_stop


async def test_a_unit_hung_in_its_stop_says_so(tmp_path: Path) -> None:
    """A restart that waits for a stop without end is given up at its deadline, in clear words."""
    answer = (
        "LoadState=loaded\nActiveState=deactivating\nSubState=stop-sigterm\nResult=success\nJob=9"
    )
    outcome = await service(systemctl(tmp_path, show(answer, "sleep 600")), SHORT_S).restart()
    assert not outcome.ok
    assert outcome.detail == (
        "systemctl restart haproxy.service: killed after 0.3 s; "
        "unit is deactivating (stop-sigterm), result success, a job is pending"
    )


async def test_a_systemctl_that_hangs_on_everything(tmp_path: Path) -> None:
    """Nothing but time is lost when systemd answers nothing at all."""
    driver = service(systemctl(tmp_path, "trap '' TERM; while :; do sleep 1; done"), SHORT_S)
    outcomes = [await driver.restart(), await driver.start(), await driver.stop()]
    assert [outcome.ok for outcome in outcomes] == [False, False, False]
    assert outcomes[2].detail == "systemctl stop haproxy.service: killed after 0.3 s"


async def test_a_missing_systemctl(tmp_path: Path) -> None:
    """A machine without systemctl gives words, not an exception."""
    driver = SystemdService("haproxy.service", PLENTY_S, str(tmp_path / "none"))
    assert not (await driver.look()).known
    outcome = await driver.restart()
    assert not outcome.ok
    assert outcome.detail == (
        f"systemctl restart haproxy.service: No such file or directory: {tmp_path}/none"
    )


async def test_stop_takes_what_is_pending_with_it(tmp_path: Path) -> None:
    """A stop is one call, in systemd's default mode, which replaces a pending start."""
    fake = systemctl(tmp_path, show(RUNNING))
    assert (await service(fake).stop()).ok
    assert fake.verbs == ["stop"]


# --- plain commands -----------------------------------------------------------------------------


def commands(tmp_path: Path, *, alive: bool, restart: bool = True) -> CommandService:
    """Return a driver whose commands note that they ran."""
    path = script(tmp_path / "init", f'echo "$1" >> {tmp_path / "notes"}; echo done')
    return CommandService(
        start=(str(path), "start"),
        stop=(str(path), "stop"),
        restart=(str(path), "restart") if restart else (),
        timeout_s=PLENTY_S,
        alive=lambda: alive,
    )


def noted(tmp_path: Path) -> list[str]:
    """Return which commands ran."""
    notes = tmp_path / "notes"
    return notes.read_text().split() if notes.exists() else []


async def test_commands_restart_what_lives(tmp_path: Path) -> None:
    """A living service is restarted by its restart command."""
    assert (await commands(tmp_path, alive=True).restart()).ok
    assert noted(tmp_path) == ["restart"]


async def test_commands_start_what_is_dead(tmp_path: Path) -> None:
    """A dead service is started: init scripts may refuse to restart what does not run."""
    assert (await commands(tmp_path, alive=False).restart()).ok
    assert noted(tmp_path) == ["start"]


async def test_commands_without_a_restart(tmp_path: Path) -> None:
    """Without a restart command a restart is a stop and a start."""
    assert (await commands(tmp_path, alive=True, restart=False).restart()).ok
    assert noted(tmp_path) == ["stop", "start"]


async def test_commands_do_not_start_what_did_not_stop(tmp_path: Path) -> None:
    """A stop that failed is not followed by a start: there would be two."""
    started = tmp_path / "started"
    driver = CommandService(
        start=("touch", str(started)),
        stop=("/bin/sh", "-c", "echo cannot; exit 4"),
        timeout_s=PLENTY_S,
        alive=lambda: True,
    )
    outcome = await driver.restart()
    assert outcome.detail == "/bin/sh -c echo cannot; exit 4: exit code 4: cannot"
    assert not started.exists()


async def test_commands_know_nothing_and_ask_nobody(tmp_path: Path) -> None:
    """A look at plain commands runs nothing and never claims an administrator's stop."""
    driver = commands(tmp_path, alive=False)
    state = await driver.look()
    assert (state.known, state.has_jobs, state.intended_stop) == (False, False, "")
    assert driver.main_pid == 0
    assert noted(tmp_path) == []


async def test_a_hung_command_dies_with_what_it_started(tmp_path: Path) -> None:
    """A stop command that hangs is killed at its deadline, with its children."""
    pid = tmp_path / "pid"
    driver = CommandService(
        start=(),
        stop=("/bin/sh", "-c", f"sleep 600 & echo $! > {pid}; wait"),
        timeout_s=ENOUGH_S,
        alive=lambda: True,
    )
    outcome = await driver.stop()
    assert not outcome.ok
    assert outcome.detail.endswith("killed after 1.5 s")
    wait_until(lambda: not running(int(pid.read_text())), "the command's child is dead")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitScript:
    """An init script for a real haproxy as a daemon with a pidfile, without any systemd."""

    path: Path
    pidfile: Path

    @property
    def pid(self) -> int:
        """The running haproxy, 0 when there is none."""
        with suppress(FileNotFoundError):
            pid = int(self.pidfile.read_text().split()[0])
            return pid if running(pid) else 0
        return 0


@pytest.fixture
def init_script(tmp_path: Path) -> Iterator[InitScript]:
    """Write the init script and end its haproxy after the test."""
    config, pidfile = tmp_path / "haproxy.cfg", tmp_path / "haproxy.pid"
    config.write_text(answering_config(free_port()))
    body = f"""
    alive() {{ grep -qs '^State:.[^ZX]' /proc/"$(cat {pidfile})"/status; }} 2>/dev/null
    case $1 in
      start) alive || exec {EXECUTABLE} -D -f {config} -p {pidfile};;
      stop) alive || exit 0; kill "$(cat {pidfile})"; while alive; do sleep 0.01; done;;
      restart) alive || exit 1; "$0" stop && "$0" start;;
    esac"""
    init = InitScript(path=script(tmp_path / "init", body), pidfile=pidfile)
    yield init
    if init.pid:
        os.kill(init.pid, signal.SIGKILL)


@pytest.mark.real
async def test_commands_run_a_real_haproxy(init_script: InitScript) -> None:
    """Start, crash, restart and stop of a daemon, without waiting for the pipe that it may hold."""
    driver = CommandService(
        start=(str(init_script.path), "start"),
        stop=(str(init_script.path), "stop"),
        restart=(str(init_script.path), "restart"),
        timeout_s=PLENTY_S,
        alive=lambda: init_script.pid != 0,
    )
    assert (await driver.start()).ok
    first = init_script.pid
    assert first
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not init_script.pid, "haproxy is dead")
    assert (await driver.restart()).ok
    second = init_script.pid
    assert second not in {0, first}
    assert (await driver.restart()).ok
    assert init_script.pid not in {0, first, second}
    assert (await driver.stop()).ok
    assert init_script.pid == 0


# --- which manager ------------------------------------------------------------------------------


async def chosen(
    tmp_path: Path, manager: Manager, answer: str = "LoadState=loaded", *, booted: bool = True
) -> type:
    """Return the kind of driver that is chosen on a machine where systemctl shows *answer*."""
    folder = tmp_path / "system"
    if booted:
        folder.mkdir()
    fake = systemctl(tmp_path, show(answer))
    driver = await choose(
        Haproxy(manager=manager, command_timeout_s=PLENTY_S),
        alive=lambda: False,
        systemctl=str(fake.path),
        booted=folder,
    )
    return type(driver)


async def test_auto_is_systemd_where_it_has_the_unit(tmp_path: Path) -> None:
    """A loaded unit belongs to systemd."""
    assert await chosen(tmp_path, Manager.AUTO) is SystemdService


async def test_auto_is_systemd_where_it_masks_the_unit(tmp_path: Path) -> None:
    """A masked unit belongs to systemd too: it must not be started behind its back."""
    assert await chosen(tmp_path, Manager.AUTO, "LoadState=masked") is SystemdService


async def test_auto_is_systemd_when_it_cannot_answer(tmp_path: Path) -> None:
    """A systemd that is too busy to answer keeps its units."""
    assert await chosen(tmp_path, Manager.AUTO, "garbage") is SystemdService


async def test_auto_is_commands_without_the_unit(tmp_path: Path) -> None:
    """A unit that systemd does not have is run by commands."""
    assert await chosen(tmp_path, Manager.AUTO, "LoadState=not-found") is CommandService


async def test_auto_is_commands_without_systemd(tmp_path: Path) -> None:
    """Where systemd is not the init system nothing of it is asked."""
    assert await chosen(tmp_path, Manager.AUTO, booted=False) is CommandService


async def test_a_named_manager_is_taken_as_it_is(tmp_path: Path) -> None:
    """Who names the manager gets it, whatever the machine looks like."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert await chosen(tmp_path / "a", Manager.SYSTEMD, booted=False) is SystemdService
    assert await chosen(tmp_path / "b", Manager.COMMANDS) is CommandService


async def test_keepalived_has_no_restart_command() -> None:
    """The settings of keepalived name no restart command, and need none."""
    driver = await choose(Keepalived(manager=Manager.COMMANDS), alive=lambda: True)
    assert isinstance(driver, CommandService)
