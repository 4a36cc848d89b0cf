"""The process check against real HAProxies, in every process model, alive, dying and dead."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from calls import counting_calls
from haproxies import (
    DEADLINE_S,
    EXECUTABLE,
    Haproxy,
    answering_config,
    free_port,
    running_haproxy,
    start_haproxy,
    wait_until,
)
from pidreuse import running_as
from privileges import IS_ROOT, NOBODY, as_nobody, folder_for_all
from processes import descriptors

from sentinel import config
from sentinel.checks.process import STRANGERS_MAX, ProcessCheck
from sentinel.model import Code, Observation, Proc, ProcessView, Verdict
from sentinel.processes import procfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = pytest.mark.real
needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root")

MASTER_WORKER = (("-W",), ("-Ws",), ("-W", "-D"))
ALONE = (("-D",), ())


class Deaths:
    """Counts the calls of ``on_change``, and lets a test wait for one."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        """Count one."""
        self.count += 1


@contextmanager
def running(
    argv: Sequence[str], executable: str | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that is talked to through pipes, and killed at the end."""
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, executable=executable, cwd=cwd, stdin=pipe, stdout=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def copied(program: str, name: Path) -> str:
    """Copy a program under another name, which its processes then bear."""
    shutil.copy(Path(program).resolve(), name)
    return str(name)


@contextmanager
def checking(
    haproxy: Haproxy,
    *,
    main_pid: Callable[[], int] = lambda: 0,
    on_change: Callable[[], None] = lambda: None,
    pidfile: str = "",
) -> Iterator[ProcessCheck]:
    """Make a check for *haproxy*, closed at the end."""
    settings = config.Haproxy(
        config=(str(haproxy.config),), pidfile=pidfile or str(haproxy.pidfile)
    )
    with closing(ProcessCheck(settings, config.PROCESS_PACE, main_pid, on_change)) as check:
        yield check


@contextmanager
def checking_for(cfg: Path, pidfile: Path, main_pid: int = 0) -> Iterator[ProcessCheck]:
    """Make a check for whatever runs *cfg*, closed at the end."""
    settings = config.Haproxy(config=(str(cfg),), pidfile=str(pidfile))
    check = ProcessCheck(settings, config.PROCESS_PACE, lambda: main_pid, lambda: None)
    with closing(check):
        yield check


def proc(pid: int) -> Proc:
    """Return the identity of a living process."""
    stat = procfs.read_stat(pid)
    assert stat is not None
    return stat.proc


def view(seen: Observation) -> ProcessView:
    """Return the view of an observation that has one."""
    assert isinstance(seen.view, ProcessView)
    return seen.view


def roles(seen: Observation) -> tuple[int | None, int | None, tuple[int, ...]]:
    """Return the pids of master, worker and old workers."""
    instance = view(seen).instance
    if instance is None:
        return None, None, ()
    master, worker = instance.master, instance.worker
    return (
        master.pid if master else None,
        worker.pid if worker else None,
        tuple(old.pid for old in instance.old),
    )


async def until(
    check: ProcessCheck, wanted: Callable[[Observation], object], what: str
) -> Observation:
    """Look again and again until an observation that knows anything is *wanted*."""
    async with asyncio.timeout(DEADLINE_S):
        # nothing tells of a SIGSTOP
        while (seen := await check()).view is None or not wanted(seen):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert what
    return seen


async def woken(deaths: Deaths, count: int = 1) -> None:
    """Wait until the check has been told of *count* deaths, without looking."""
    async with asyncio.timeout(DEADLINE_S):
        while deaths.count < count:  # noqa: ASYNC110  (an Event would need a loop to be made)
            await asyncio.sleep(0.001)


def has_code(code: Code) -> Callable[[Observation], bool]:
    """Return a condition: the observation carries *code*."""
    return lambda seen: seen.code is code


# --- finding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", MASTER_WORKER, ids=" ".join)
async def test_master_and_worker_are_told_apart(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """The process of the pidfile is the master, its child the worker."""
    with (
        running_haproxy(answering_config(free_port()), tmp_path, flags=flags) as haproxy,
        checking(haproxy) as check,
    ):
        seen = await check()
        worker = haproxy.answering_pid()
        assert roles(seen) == (haproxy.main_pid, worker, ())
        assert (seen.verdict, seen.code) == (Verdict.PASS, Code.PROCOK)
        assert seen.detail == f"worker {worker}, master {haproxy.main_pid}"
        assert check.instance == view(seen).instance


@pytest.mark.parametrize("flags", ALONE, ids=["-D", "foreground"])
async def test_a_single_process_is_its_own_worker(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Without master-worker mode there is no master; in the foreground there is no pidfile."""
    with (
        running_haproxy(answering_config(free_port()), tmp_path, flags=flags) as haproxy,
        checking(haproxy) as check,
    ):
        assert haproxy.pidfile.exists() == bool(flags)
        seen = await check()
        assert roles(seen) == (None, haproxy.answering_pid(), ())
        assert seen.code is Code.PROCOK


async def test_master_worker_mode_may_stand_in_the_configuration(tmp_path: Path) -> None:
    """A child that listens where its parent does not makes a master, whatever the arguments."""
    text = answering_config(free_port()) + "\nglobal\n    master-worker\n"
    with running_haproxy(text, tmp_path, flags=()) as haproxy, checking(haproxy) as check:
        seen = await check()
        assert roles(seen) == (haproxy.main_pid, haproxy.answering_pid(), ())


async def test_systemds_main_process_wins(tmp_path: Path) -> None:
    """The service manager's word counts more than pidfile and configured file."""
    other = answering_config(free_port())
    with (
        running_haproxy(answering_config(free_port()), tmp_path) as haproxy,
        running_haproxy(other, tmp_path, name="other") as unit,
        checking(haproxy, main_pid=lambda: unit.main_pid) as check,
    ):
        assert roles(await check()) == (unit.main_pid, unit.answering_pid(), ())


async def test_a_main_pid_that_is_not_haproxy_is_not_believed(tmp_path: Path) -> None:
    """A wrapper as the unit's main process leads on to the pidfile."""
    with (
        running_haproxy(answering_config(free_port()), tmp_path) as haproxy,
        checking(haproxy, main_pid=os.getpid) as check,
    ):
        assert roles(await check())[0] == haproxy.main_pid


@pytest.mark.parametrize("arguments", ["-f FOLDER", "-f NAME", "-- PATH", "-C FOLDER -f NAME"])
async def test_every_way_to_name_the_configuration_counts(tmp_path: Path, arguments: str) -> None:
    """A folder, a relative name, a bare name after --, and a changed folder all mean our file."""
    folder = tmp_path / "conf"
    folder.mkdir()
    file = folder / "haproxy.cfg"
    file.write_text(answering_config(port := free_port()))
    words = {"FOLDER": str(folder), "NAME": file.name, "PATH": str(file)}
    argv = [EXECUTABLE, "-db", *(words.get(word, word) for word in arguments.split())]
    cwd = tmp_path if "FOLDER" in arguments else folder
    with running(argv, cwd=cwd) as process, checking_for(file, tmp_path / "none") as check:
        wait_until(lambda: connects(port), "HAProxy listens")
        assert roles(await check()) == (None, process.pid, ())


def connects(port: int) -> bool:
    """Tell whether something listens on *port*."""
    with closing(socket.socket()) as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def test_no_haproxy_at_all(tmp_path: Path) -> None:
    """Nothing found is a failure that names what was sought."""
    with checking_for(tmp_path / "a.cfg", tmp_path / "a.pid") as check:
        seen = await check()
    assert (seen.verdict, seen.code) == (Verdict.FAIL, Code.PROCERR)
    assert view(seen) == ProcessView(instance=None)
    assert seen.detail == f"no process runs {tmp_path / 'a.cfg'}"


# --- not ours -------------------------------------------------------------------------------------


async def test_another_haproxy_is_not_ours(tmp_path: Path) -> None:
    """One with another configuration stays unseen, even when our stale pidfile names it."""
    with running_haproxy(answering_config(free_port()), tmp_path) as haproxy:
        haproxy.kill()
        with (
            running_haproxy(answering_config(free_port()), tmp_path, name="other") as other,
            checking(haproxy) as check,
        ):
            assert roles(await check()) == (None, None, ())
            haproxy.pidfile.write_text(f"{other.main_pid}\n")
            assert roles(await check()) == (None, None, ())


async def test_namesakes_are_not_haproxy(tmp_path: Path) -> None:
    """Editors, greps and scripts called haproxy are not, though the pidfile names them."""
    cfg = tmp_path / "haproxy.cfg"
    script = tmp_path / "haproxy"
    script.write_text("#!/bin/sh\nread line\n")
    script.chmod(0o755)
    args = ["-W", "-f", str(cfg)]
    for argv, program in (
        (["haproxy", "60"], "/bin/sleep"),
        (["vi", "-f", str(cfg)], "/bin/cat"),
        ([str(script), *args], None),
    ):
        with running(argv, program) as process:
            pidfile = tmp_path / f"{process.pid}.pid"
            pidfile.write_text(f"{process.pid}\n")
            with checking_for(cfg, pidfile, process.pid) as check:
                assert roles(await check()) == (None, None, ())


@pytest.mark.parametrize("content", ["", "x\n", "-1\n", "0\n", f"{10**30}\n", "4194304\n", "\0"])
async def test_a_pidfile_of_nonsense_names_nobody(tmp_path: Path, content: str) -> None:
    """Whatever a pidfile says, nothing is raised and nobody found."""
    pidfile = tmp_path / "haproxy.pid"
    pidfile.write_text(content)
    with checking_for(tmp_path / "none.cfg", pidfile) as check:
        assert roles(await check()) == (None, None, ())


@needs_root
@pytest.mark.parametrize("heir", ["sleep", "haproxy"])
async def test_a_reused_pid_is_nobody_of_ours(tmp_path: Path, heir: str) -> None:
    """Neither the watch nor the pidfile is fooled by a process that really got the pid."""
    other = tmp_path / "other.cfg"
    other.write_text(answering_config(free_port()))
    argv = {"sleep": ["haproxy", "60"], "haproxy": [EXECUTABLE, "-db", "-f", str(other)]}[heir]
    program = {"sleep": "/bin/sleep", "haproxy": EXECUTABLE}[heir]
    text = answering_config(free_port())
    with (
        running_haproxy(text, tmp_path, flags=("-D",)) as haproxy,
        checking(haproxy) as watching,
    ):
        pid = haproxy.main_pid
        assert roles(await watching()) == (None, pid, ())
        haproxy.kill()
        wait_until(lambda: procfs.read_stat(pid) is None, "the pid is free")
        with running_as(pid, argv, program), checking(haproxy) as fresh:
            wait_until(lambda: procfs.argv(pid) == tuple(argv), "the heir runs its program")
            for check in (watching, fresh):
                seen = await check()
                assert (roles(seen), seen.code) == ((None, None, ()), Code.PROCERR)


#: What a single process becomes; a master stays root.
CHANGING_USER = f"global\n    uid {NOBODY}\n"


@needs_root
async def test_roots_pidfile_names_a_haproxy_that_has_become_another_user(tmp_path: Path) -> None:
    """A single process with ``user``, that no service manager speaks of."""
    text = f"{answering_config(free_port())}{CHANGING_USER}"
    with running_haproxy(text, tmp_path, flags=("-D",)) as haproxy, checking(haproxy) as check:
        assert procfs.uids(haproxy.main_pid) == {NOBODY}
        assert roles(await check()) == (None, haproxy.main_pid, ())


@needs_root
async def test_the_service_manager_names_a_haproxy_of_another_user(tmp_path: Path) -> None:
    """In the foreground there is no pidfile."""
    text = f"{answering_config(free_port())}{CHANGING_USER}"
    with running_haproxy(text, tmp_path, flags=()) as haproxy:
        main_pid = haproxy.main_pid
        with checking(haproxy, main_pid=lambda: main_pid) as check:
            assert roles(await check()) == (None, main_pid, ())


@needs_root
@pytest.mark.parametrize("pidfile", ["none", "haproxy.pid"])
async def test_a_haproxy_that_only_its_own_user_names_is_not_ours(
    tmp_path: Path, pidfile: str
) -> None:
    """Anybody may start one, with a pidfile of his own: that is said, and not believed."""
    text = f"{answering_config(free_port())}{CHANGING_USER}"
    with (
        running_haproxy(text, tmp_path, flags=("-D",)) as haproxy,
        checking(haproxy, pidfile=str(tmp_path / pidfile)) as check,
    ):
        os.chown(haproxy.pidfile, NOBODY, 0)
        seen = await check()
        assert (roles(seen), seen.code) == ((None, None, ()), Code.PROCERR)
        assert seen.detail == (
            f"process {haproxy.main_pid} of user {NOBODY} runs its configuration, but neither"
            " haproxy.service nor a pidfile of root's (haproxy.pidfile) names it"
        )


@needs_root
async def test_strangers_cannot_hold_up_a_look(tmp_path: Path) -> None:
    """Of a few the first words are read and none of their paths is followed, however many."""
    cfg = tmp_path / "haproxy.cfg"
    with folder_for_all() as folder, ExitStack() as stack:
        claimant = stack.enter_context(stranger(folder, "-f", str(cfg)))
        younger_s = (proc(claimant).start_ticks + 2) / procfs.TICKS_PER_S
        wait_until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > younger_s, "the next tick")
        others = [ExitStack() for _ in range(STRANGERS_MAX)]
        for other in others:
            stack.enter_context(other)
            other.enter_context(stranger(folder, *["-f", f"{tmp_path}/x/"] * 2000))
        with checking_for(cfg, tmp_path / "none") as check:
            with counting_calls() as calls:
                seen = await check()
            assert seen.detail == f"no process runs {cfg}"
            assert calls["lstat"] + calls["stat"] + calls["normpath"] < 200
        others[0].close()
        with checking_for(cfg, tmp_path / "none") as check:
            seen = await check()
        assert (roles(seen), seen.code) == ((None, None, ()), Code.PROCERR)
        assert seen.detail.startswith(f"process {claimant} of user {NOBODY} runs its configuration")


@contextmanager
def stranger(folder: Path, *words: str) -> Iterator[int]:
    """Run another user's program under the name of HAProxy, with these arguments."""
    program = folder / "haproxy"
    if not program.exists():
        shutil.copy(Path("/bin/sh").resolve(), program)
    argv = (str(program), "-s", *words)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, user=NOBODY) as process:
        wait_until(lambda: procfs.argv(process.pid)[1:2] == ("-s",), "it executes")
        yield process.pid


@needs_root
@pytest.mark.parametrize("flags", MASTER_WORKER)
async def test_a_master_is_found_whoever_its_workers_are(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """It stays root; and it is found among all others."""
    text = f"{answering_config(free_port())}{CHANGING_USER}"
    with (
        running_haproxy(text, tmp_path, flags=flags) as haproxy,
        checking(haproxy, pidfile=str(tmp_path / "none")) as check,
    ):
        worker = haproxy.answering_pid()
        assert procfs.uids(worker) == {NOBODY}
        assert roles(await check()) == (haproxy.main_pid, worker, ())


@needs_root
@pytest.mark.parametrize("unshare", ["--net", "--pid --fork --kill-child", "--mount"])
async def test_a_container_is_not_this_machine(tmp_path: Path, unshare: str) -> None:
    """The same program and arguments in other namespaces, or reading another file, are not ours."""
    cfg = tmp_path / "haproxy.cfg"
    cfg.write_text(answering_config(free_port()))
    inside = tmp_path / "inside.cfg"
    inside.write_text(answering_config(free_port()))
    wrapper = ["unshare", *unshare.split()]
    command = f"exec {EXECUTABLE} -db -f {cfg}"
    if unshare == "--mount":
        command = f"mount --bind {inside} {cfg}; {command}"
    with (
        running([*wrapper, "sh", "-c", command]),
        checking_for(cfg, tmp_path / "none") as check,
    ):
        wait_until(lambda: runs_haproxy_with(cfg), "the container's HAProxy runs")
        assert roles(await check()) == (None, None, ())


def runs_haproxy_with(cfg: Path) -> bool:
    """Tell whether some process is HAProxy with *cfg*, wherever it is."""
    pids = (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))
    return any(procfs.argv(pid) == (EXECUTABLE, "-db", "-f", str(cfg)) for pid in pids)


# --- reloads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", MASTER_WORKER, ids=" ".join)
async def test_a_reload_makes_the_worker_old_until_it_ends(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """The new worker is current; the old one stays listed while it has a connection."""
    port = free_port()
    with (
        running_haproxy(answering_config(port), tmp_path, flags=flags) as haproxy,
        checking(haproxy) as check,
    ):
        first = roles(await check())[1]
        assert first is not None
        with haproxy.holding_open(port):
            second = haproxy.reload()
            seen = await until(check, lambda seen: roles(seen)[1] == second, "it is current")
            assert roles(seen) == (haproxy.main_pid, second, (first,))
            assert seen.code is Code.PROCOK
            assert seen.detail == f"worker {second}, master {haproxy.main_pid}, 1 old"
        seen = await until(check, lambda seen: not roles(seen)[2], "the old one ended")
        assert roles(seen) == (haproxy.main_pid, second, ())


async def test_a_fresh_look_tells_the_old_worker_from_the_current(tmp_path: Path) -> None:
    """One who has not seen the reload knows the current worker by its listeners."""
    port = free_port()
    with running_haproxy(answering_config(port), tmp_path) as haproxy, haproxy.holding_open(port):
        first, second = haproxy.answering_pid(), haproxy.reload()
        with checking(haproxy) as check:
            assert roles(await check()) == (haproxy.main_pid, second, (first,))


async def test_a_failed_reload_leaves_the_worker_current(tmp_path: Path) -> None:
    """An invalid configuration changes nothing for who serves."""
    with (
        running_haproxy(answering_config(free_port()), tmp_path) as haproxy,
        checking(haproxy) as check,
    ):
        worker = haproxy.answering_pid()
        await check()
        haproxy.config.write_text("nonsense\n")
        os.kill(haproxy.main_pid, signal.SIGUSR2)
        wait_until(lambda: "nonsense" in haproxy.log.read_text(), "the reload has failed")
        for _ in range(100):
            seen = await check()
            assert roles(seen)[:2] == (haproxy.main_pid, worker)
            assert seen.code is Code.PROCOK


async def test_a_reload_from_outside_without_a_master(tmp_path: Path) -> None:
    """After ``haproxy -D -sf PID`` the pidfile's process is current and the other one old."""
    port = free_port()
    with (
        running_haproxy(answering_config(port), tmp_path, flags=("-D",)) as haproxy,
        checking(haproxy) as check,
    ):
        first = haproxy.main_pid
        assert roles(await check()) == (None, first, ())
        with haproxy.holding_open(port):
            flags = ("-D", "-sf", str(first))
            start_haproxy(haproxy.config, flags=flags, mark=haproxy.mark).process.wait()
            seen = await until(check, lambda seen: roles(seen)[1] != first, "another is current")
            assert roles(seen) == (None, haproxy.main_pid, (first,))
        await until(check, lambda seen: not roles(seen)[2], "the first one ended")


# --- deaths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [*MASTER_WORKER, *ALONE], ids=" ".join)
async def test_death_wakes_at_once_and_is_told(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A SIGKILLed worker calls on_change without a look, and is named in the next one."""
    deaths = Deaths()
    with (
        running_haproxy(answering_config(free_port()), tmp_path, flags=flags) as haproxy,
        checking(haproxy, on_change=deaths) as check,
    ):
        worker = roles(await check())[1]
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        await woken(deaths)
        seen = await until(check, has_code(Code.PROCERR), "its master follows, or there is none")
        assert seen.verdict is Verdict.FAIL
        assert f"{worker} died" in seen.detail
        seen = await until(check, lambda seen: view(seen).instance is None, "all are dead")
        assert f"{worker} died" in seen.detail


async def test_a_killed_master_is_told(tmp_path: Path) -> None:
    """Without its master the instance is gone, whatever the worker does in its last second."""
    deaths = Deaths()
    with (
        running_haproxy(answering_config(free_port()), tmp_path) as haproxy,
        checking(haproxy, on_change=deaths) as check,
    ):
        await check()
        os.kill(haproxy.main_pid, signal.SIGKILL)
        await woken(deaths)
        # The worker may go first: its end of their socket pair closes before the master is dead.
        seen = await until(check, lambda seen: view(seen).instance is None, "the master is gone")
        assert (seen.verdict, seen.code) == (Verdict.FAIL, Code.PROCERR)
        assert seen.detail.endswith(f"master {haproxy.main_pid} died")


async def test_all_killed_and_started_again(tmp_path: Path) -> None:
    """The next start is found by its pidfile, without a word from anyone."""
    text = answering_config(free_port())
    with running_haproxy(text, tmp_path) as haproxy, checking(haproxy) as check:
        await check()
        haproxy.kill()
        assert (await check()).code is Code.PROCERR
        with running_haproxy(text, tmp_path, flags=("-W", "-D")) as again:
            seen = await check()
            assert roles(seen) == (again.main_pid, again.answering_pid(), ())


async def test_a_soft_stop_is_followed_to_its_end(tmp_path: Path) -> None:
    """After SIGUSR1 the worker has no listeners and is still the worker, until it ends."""
    port = free_port()
    with running_haproxy(answering_config(port), tmp_path) as haproxy, checking(haproxy) as check:
        worker = roles(await check())[1]
        with haproxy.holding_open(port):
            os.kill(haproxy.main_pid, signal.SIGUSR1)
            wait_until(lambda: not connects(port), "nobody listens")
            assert roles(await check())[:2] == (haproxy.main_pid, worker)
        await until(check, lambda seen: view(seen).instance is None, "it has ended")


# --- a master step by step ------------------------------------------------------------------------

#: A master of our own, run by a copy of Python that is called haproxy: it forks when it is told to.
#: Its workers listen after SIGUSR2 and fall silent after SIGUSR1, and say so.
MASTER = """
import os, signal, socket, sys

def work():
    orders = {signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, orders)
    os.write(1, b"%d\\n" % os.getpid())
    held = []
    while True:
        if signal.sigwait(orders) == signal.SIGUSR2:
            held.append(socket.create_server(("127.0.0.1", 0)))
            os.write(1, b"listens\\n")
            continue
        while held:
            held.pop().close()
        os.write(1, b"retired\\n")

while command := sys.stdin.buffer.raw.read(1):
    if command == b"f" and os.fork() == 0:
        work()
    elif command == b"r":
        os.wait()
        os.write(1, b"reaped\\n")
"""


class Master:
    """The master of our own, under a test's control."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self.workers: list[int] = []

    def fork(self, *, listening: bool = True) -> int:
        """Fork a worker and wait until it is ready."""
        worker = int(self._tell(b"f"))
        self.workers.append(worker)
        if listening:
            self.signal(worker, signal.SIGUSR2)
        return worker

    def signal(self, worker: int, number: signal.Signals) -> None:
        """Make a worker listen or retire, and wait until it does."""
        os.kill(worker, number)
        self._hear()

    def kill(self, worker: int) -> None:
        """Kill a worker, and wait until the master has reaped it."""
        os.kill(worker, signal.SIGKILL)
        self.workers.remove(worker)
        self._tell(b"r")

    def _tell(self, command: bytes) -> bytes:
        assert self.process.stdin is not None
        self.process.stdin.write(command)
        self.process.stdin.flush()
        return self._hear()

    def _hear(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    """Run a master of our own."""
    executable = copied(sys.executable, tmp_path / "haproxy")
    with running([executable, "-I", "-S", "-c", MASTER, "-W"]) as process:
        master = Master(process)
        yield master
        for worker in master.workers:
            os.kill(worker, signal.SIGKILL)


@pytest.fixture
def check(master: Master, tmp_path: Path) -> Iterator[ProcessCheck]:
    """Check the master of our own, as systemd's main process."""
    settings = config.Haproxy(executable=str(tmp_path / "haproxy"), pidfile="/nowhere/haproxy.pid")
    with closing(
        ProcessCheck(settings, config.PROCESS_PACE, lambda: master.pid, lambda: None)
    ) as check:
        yield check


async def test_a_starting_worker_is_current_only_once_it_listens(
    master: Master, check: ProcessCheck
) -> None:
    """Since HAProxy 3.1 a new worker reads its files first, and the old one serves meanwhile."""
    first = master.fork()
    assert roles(await check()) == (master.pid, first, ())
    second = master.fork(listening=False)
    assert roles(await check()) == (master.pid, first, (second,))
    master.signal(second, signal.SIGUSR2)
    seen = await until(check, lambda seen: roles(seen)[1] == second, "it is current")
    assert roles(seen) == (master.pid, second, (first,))
    master.signal(first, signal.SIGUSR1)
    master.kill(first)
    assert roles(await check()) == (master.pid, second, ())


async def test_a_new_worker_that_dies_at_once_changes_nothing(
    master: Master, check: ProcessCheck
) -> None:
    """A failed reload that got as far as a worker leaves the old one current."""
    first = master.fork()
    await check()
    second = master.fork(listening=False)
    await check()
    master.kill(second)
    seen = await check()
    assert (roles(seen), seen.code) == ((master.pid, first, ()), Code.PROCOK)


async def test_an_old_worker_never_takes_the_place_of_the_current(
    master: Master, check: ProcessCheck
) -> None:
    """When the current worker dies, one that only finishes its connections serves nobody new."""
    first = master.fork()
    second = master.fork()
    master.signal(first, signal.SIGUSR1)
    assert roles(await check()) == (master.pid, second, (first,))
    master.kill(second)
    assert (await check()).verdict is Verdict.UNKNOWN, "it may be a reload"
    seen = await until(check, has_code(Code.PROCERR), "no other comes")
    assert (seen.code, roles(seen)) == (Code.PROCERR, (master.pid, None, (first,)))
    assert seen.detail == f"worker {second} died"
    third = master.fork()
    assert roles(await check()) == (master.pid, third, (first,))


async def test_a_master_without_a_worker_serves_nobody(master: Master, check: ProcessCheck) -> None:
    """With no-exit-on-failure a master outlives its worker; the next one is taken as it comes."""
    seen = await check()
    assert (seen.code, roles(seen)) == (Code.PROCERR, (master.pid, None, ()))
    assert seen.detail == "master has no worker"
    first = master.fork(listening=False)
    assert roles(await check()) == (master.pid, first, ())
    master.kill(first)
    seen = await until(check, has_code(Code.PROCERR), "no other comes")
    assert (seen.detail, roles(seen)) == (f"worker {first} died", (master.pid, None, ()))


async def test_a_reload_may_end_the_old_worker_before_the_new_one_is_there(
    master: Master, check: ProcessCheck
) -> None:
    """An idle worker is gone at once when it is told to finish, and the new one is forked then."""
    first = master.fork()
    assert roles(await check()) == (master.pid, first, ())
    master.kill(first)
    seen = await check()
    assert (seen.verdict, seen.view) == (Verdict.UNKNOWN, None)
    second = master.fork()
    assert roles(await check()) == (master.pid, second, ())


async def test_a_worker_that_falls_silent_stays_the_worker(
    master: Master, check: ProcessCheck
) -> None:
    """A soft stop closes all listeners; the one that had them last is still the current worker."""
    first, second = master.fork(), master.fork()
    assert roles(await check()) == (master.pid, second, (first,))
    master.signal(first, signal.SIGUSR1)
    master.signal(second, signal.SIGUSR1)
    master.kill(first)
    assert roles(await check()) == (master.pid, second, ())


# --- stuck ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [*MASTER_WORKER, *ALONE], ids=" ".join)
async def test_a_stopped_worker_is_stuck(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """SIGSTOP is seen and told, SIGCONT as well."""
    with (
        running_haproxy(answering_config(free_port()), tmp_path, flags=flags) as haproxy,
        checking(haproxy) as check,
    ):
        worker = roles(await check())[1]
        assert worker is not None
        os.kill(worker, signal.SIGSTOP)
        seen = await until(check, has_code(Code.PROCTOUT), "it is seen stopped")
        assert seen.verdict is Verdict.FAIL
        assert view(seen).stuck == (proc(worker),)
        assert seen.detail == f"worker {worker} is stopped (T)"
        os.kill(worker, signal.SIGCONT)
        seen = await until(check, has_code(Code.PROCOK), "it goes on")
        assert view(seen).stuck == ()


async def test_a_stopped_master_is_told_and_no_failure(tmp_path: Path) -> None:
    """Traffic goes on without the master, so only the stopped process is named."""
    with (
        running_haproxy(answering_config(free_port()), tmp_path) as haproxy,
        checking(haproxy) as check,
    ):
        worker = roles(await check())[1]
        master = proc(haproxy.main_pid)
        os.kill(master.pid, signal.SIGSTOP)
        seen = await until(check, lambda seen: view(seen).stuck, "it is seen stopped")
        assert (seen.verdict, view(seen).stuck) == (Verdict.PASS, (master,))
        expected = f"worker {worker}, master {master.pid}, master {master.pid} is stopped (T)"
        assert seen.detail == expected


async def test_all_stopped(tmp_path: Path) -> None:
    """The whole instance stopped: both processes are stuck, and both are named."""
    with (
        running_haproxy(answering_config(free_port()), tmp_path) as haproxy,
        checking(haproxy) as check,
    ):
        await check()
        procs = {proc(pid) for pid in haproxy.pids()}
        for stopped in procs:
            os.kill(stopped.pid, signal.SIGSTOP)
        seen = await until(check, lambda seen: len(view(seen).stuck) == len(procs), "all stopped")
        assert (seen.code, set(view(seen).stuck)) == (Code.PROCTOUT, procs)


async def test_a_worker_nobody_reaps_is_dead(tmp_path: Path) -> None:
    """A zombie serves nobody: a stopped master does not even notice that its worker died."""
    with (
        running_haproxy(answering_config(free_port()), tmp_path) as haproxy,
        checking(haproxy) as check,
    ):
        worker = roles(await check())[1]
        assert worker is not None
        os.kill(haproxy.main_pid, signal.SIGSTOP)
        await until(check, lambda seen: view(seen).stuck, "the master is stopped")
        os.kill(worker, signal.SIGKILL)
        seen = await until(check, has_code(Code.PROCERR), "the death is seen")
        stat = procfs.read_stat(worker)
        assert stat is not None
        assert stat.state == "Z"
        expected = f"worker {worker} died, master {haproxy.main_pid} is stopped (T)"
        assert (seen.detail, roles(seen)) == (expected, (haproxy.main_pid, None, ()))
        with checking(haproxy) as fresh:
            assert roles(await fresh()) == (haproxy.main_pid, None, ())


async def test_a_hung_old_worker_is_stuck_and_no_failure(tmp_path: Path) -> None:
    """After a reload past a stopped worker the new one serves, and the old one is named."""
    with (
        running_haproxy(answering_config(free_port()), tmp_path) as haproxy,
        checking(haproxy) as check,
    ):
        first = roles(await check())[1]
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        os.kill(haproxy.main_pid, signal.SIGUSR2)
        seen = await until(check, lambda seen: roles(seen)[1] != first, "the new one is current")
        assert (roles(seen)[2], view(seen).stuck) == ((first,), (proc(first),))
        assert seen.verdict is Verdict.PASS
        assert f"old worker {first} is stopped (T)" in seen.detail


# --- unknown --------------------------------------------------------------------------------------


@needs_root
async def test_an_unreadable_pidfile_is_no_death(tmp_path: Path) -> None:
    """What may not be read is unknown, as long as nothing else shows HAProxy."""
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    with checking_for(Path("/nowhere/a.cfg"), hidden / "haproxy.pid") as check:
        with as_nobody():
            seen = await check()
        assert (seen.verdict, seen.code, seen.view) == (Verdict.UNKNOWN, Code.UNK, None)
        assert "Permission denied" in seen.detail


@needs_root
async def test_without_rights_names_and_arguments_are_enough(tmp_path: Path) -> None:
    """A user who may read neither exe nor descriptors still follows HAProxy through a reload."""
    port = free_port()
    with (
        running_haproxy(answering_config(port), tmp_path) as haproxy,
        checking(haproxy, pidfile=str(tmp_path / "none")) as check,
    ):
        with as_nobody():
            assert procfs.link(haproxy.main_pid, "exe") is None
            first = roles(await check())[1]
        assert first == haproxy.answering_pid()
        with haproxy.holding_open(port):
            second = haproxy.reload()
            with as_nobody():
                assert roles(await check()) == (haproxy.main_pid, second, (first,))


async def test_no_descriptors_left_is_unknown(tmp_path: Path) -> None:
    """Our own shortage says nothing about HAProxy, at whichever step it strikes, and passes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    verdicts = []
    with (
        running_haproxy(answering_config(free_port()), tmp_path) as haproxy,
        checking(haproxy) as check,
        ExitStack() as hoard,
    ):
        hoard.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(12)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare) + 1, hard))
        with suppress(OSError):
            while True:
                hoard.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        for descriptor in spare:
            seen = await check()
            verdicts.append(seen.verdict)
            if seen.verdict is Verdict.UNKNOWN:
                assert (seen.view, "Too many open files" in seen.detail) == (None, True)
            os.close(descriptor)
        assert roles(await check()) == (haproxy.main_pid, haproxy.answering_pid(), ())
    assert set(verdicts) == {Verdict.UNKNOWN, Verdict.PASS}
    assert verdicts == sorted(verdicts, key=[Verdict.UNKNOWN, Verdict.PASS].index)


@needs_root
def test_a_hidden_proc_is_unknown(tmp_path: Path) -> None:
    """Where /proc shows a user only his own processes, systemd's main process is not dead."""
    program = textwrap.dedent("""
        import asyncio, os, sys
        from sentinel import config
        from sentinel.checks.process import ProcessCheck
        settings = config.Haproxy(pidfile="/nowhere/haproxy.pid")
        check = ProcessCheck(settings, config.PROCESS_PACE, lambda: int(sys.argv[1]), list)
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        seen = asyncio.run(check())
        print(seen.verdict.name, seen.detail)
    """)
    with running_haproxy(answering_config(free_port()), tmp_path) as haproxy:
        hide = 'mount -t proc -o hidepid=2 proc /proc && exec "$0" "$@"'
        argv = ["unshare", "--mount", "sh", "-c", hide, sys.executable, "-c", program]
        done = subprocess.run(
            [*argv, str(haproxy.main_pid)], capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        expected = f"UNKNOWN cannot look: [Errno 13] /proc hides process {haproxy.main_pid}\n"
        assert done.stdout == expected


# --- descriptors ----------------------------------------------------------------------------------


async def test_close_gives_all_descriptors_back(tmp_path: Path) -> None:
    """Nothing stays open after the end, and closing twice does no harm."""
    with running_haproxy(answering_config(free_port()), tmp_path) as haproxy:
        before = descriptors()
        with checking(haproxy) as check:
            await check()
            assert descriptors() > before
            check.close()
        assert descriptors() == before


#: A master that forks a worker for each line it is sent and ends the one before, as reloads do.
RELOADING_MASTER = """
worker=
while read line; do
    (read line < "$1") &
    [ -z "$worker" ] || { kill -9 $worker; wait $worker; }
    worker=$!
    echo $worker
done 2>/dev/null
"""


async def test_thousands_of_reloads_leave_no_descriptor_behind(tmp_path: Path) -> None:
    """Real forks and deaths, two thousand of them: what is watched stays what lives."""
    executable = copied("/bin/sh", tmp_path / "haproxy")
    never = make_fifo(tmp_path / "never")
    settings = config.Haproxy(executable=executable, pidfile="/nowhere/haproxy.pid")
    with running([executable, "-c", RELOADING_MASTER, "-W", never]) as master:
        assert master.stdin is not None
        assert master.stdout is not None
        pid, worker, counts = master.pid, 0, set()
        check = ProcessCheck(settings, config.PROCESS_PACE, lambda: pid, lambda: None)
        with closing(check):
            for _ in range(2000):
                master.stdin.write(b"reload\n")
                master.stdin.flush()
                worker = int(master.stdout.readline())
                assert roles(await check()) == (pid, worker, ())
                await asyncio.sleep(0)
                counts.add(descriptors())
        assert len(counts) == 1
        os.kill(worker, signal.SIGKILL)


def make_fifo(path: Path) -> str:
    """Make a pipe that nobody writes to: who opens it waits for ever."""
    os.mkfifo(path)
    return str(path)


async def test_waking_again_and_again_is_avoided(tmp_path: Path) -> None:
    """A pidfd stays readable after a death: it must not call for ever."""
    deaths = Deaths()
    with (
        running_haproxy(answering_config(free_port()), tmp_path, flags=("-D",)) as haproxy,
        checking(haproxy, on_change=deaths) as check,
    ):
        await check()
        haproxy.kill()
        await woken(deaths)
        for _ in range(100):
            await asyncio.sleep(0)
        assert deaths.count == 1
