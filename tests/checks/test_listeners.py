"""Who holds the listening sockets, asked of real HAProxies that share them on purpose."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hanging import hanging
from haproxies import (
    DEADLINE_S,
    EXECUTABLE,
    Haproxy,
    answering_config,
    free_port,
    running_haproxy,
    start_haproxy,
    stopped,
    wait_until,
)
from heldsockets import launcher
from hypothesis import given
from hypothesis import strategies as st
from privileges import IS_ROOT, as_nobody

from sentinel import config
from sentinel.aside import Aside
from sentinel.checks.listeners import PACE, ListenersCheck, find_holders, share
from sentinel.model import Code, Instance, Listener, ListenersView, Proc, Verdict
from sentinel.processes import procfs
from sentinel.processes.sockdiag import ListeningSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sentinel.model import Observation

needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root")


def proc(pid: int) -> Proc:
    """Return the identity of a living process."""
    stat = procfs.read_stat(pid)
    assert stat is not None
    return stat.proc


def instance_of(haproxy: Haproxy) -> Instance:
    """Return the instance as the process check would see it."""
    worker = haproxy.answering_pid()
    others = set(haproxy.pids()) - {haproxy.main_pid, worker}
    return Instance(
        master=proc(haproxy.main_pid) if worker != haproxy.main_pid else None,
        worker=proc(worker),
        old=tuple(proc(pid) for pid in sorted(others)),
    )


def checking(haproxy: Haproxy, instance: Callable[[], Instance | None]) -> ListenersCheck:
    """Make a check for *haproxy*."""
    settings = config.Haproxy(config=(str(haproxy.config),), pidfile=str(haproxy.pidfile))
    return ListenersCheck(settings, replace(PACE, timeout_s=DEADLINE_S), instance, Aside("looking"))


def view(seen: Observation) -> ListenersView:
    """Return the view of an observation that has one."""
    assert isinstance(seen.view, ListenersView)
    return seen.view


def where(listeners: tuple[Listener, ...]) -> set[tuple[str, int]]:
    """Return the addresses of listeners."""
    return {(listener.address, listener.port) for listener in listeners}


def wait_until_older(first: Proc) -> None:
    """Wait until whatever starts now is younger than *first*: ages count in ticks of 10 ms."""
    younger_s = (first.start_ticks + 2) / procfs.TICKS_PER_S
    wait_until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > younger_s, "the next tick")


# --- on held sockets ------------------------------------------------------------------------------


@pytest.mark.real
async def test_a_held_listener_is_nobody_elses(tmp_path: Path) -> None:
    """The service manager and the master have the same socket, and do not accept from it."""
    port = free_port()
    text = answering_config(port).replace(f"bind 127.0.0.1:{port}", "bind fd@3")
    held = launcher(tmp_path, port)
    with running_haproxy(text, tmp_path, flags=("-Ws",), executable=held) as haproxy:
        instance = Instance(master=proc(haproxy.main_pid), worker=proc(haproxy.answering_pid()))
        check = checking(haproxy, lambda: instance)
        seen = await check()
        assert (seen.verdict, view(seen).foreign, view(seen).orphans) == (Verdict.PASS, (), ())
        assert ("127.0.0.1", port) in where(view(seen).listeners)
        inodes = {at.inode for at in view(seen).listeners if at.port}
        assert inodes <= set(procfs.socket_inodes(haproxy.main_pid))

        instance = replace(instance, worker=proc(haproxy.reload()))
        seen = await check()
        assert (seen.verdict, view(seen).foreign) == (Verdict.PASS, ())
        assert {at.inode for at in view(seen).listeners if at.port} == inodes


# --- on tables ------------------------------------------------------------------------------------


def listening(inode: int, address: str = "127.0.0.1", port: int = 80) -> ListeningSocket:
    """Make a row."""
    return ListeningSocket(address=address, port=port, inode=inode)


def test_only_the_same_address_is_foreign() -> None:
    """Another port, another address and a wildcard are other listeners."""
    own = listening(1)
    others = [listening(2, port=81), listening(3, "127.0.0.2"), listening(4, "0.0.0.0")]
    shared = share([own, *others, twin := listening(5)], {1})
    assert (shared.own, shared.foreign) == ((own,), (twin,))


def test_shards_of_one_process_are_all_own() -> None:
    """Several sockets on one address are fine as long as one process has them all."""
    rows = (listening(1), listening(2), listening(3))
    assert share(rows, {1, 2, 3}).own == rows
    assert share(rows, {1, 2, 3}).foreign == ()


def test_a_unix_socket_is_known_by_its_lasting_name() -> None:
    """HAProxy binds under a temporary name that holds its pid."""
    rows = [listening(1, "/run/a.sock.12.tmp", 0), listening(2, "/run/a.sock.13.tmp", 0)]
    assert share(rows, {2}).foreign == (rows[0],)


@given(
    st.lists(
        st.builds(
            listening,
            st.integers(1, 8),
            st.sampled_from(["127.0.0.1", "::", "/a"]),
            st.integers(0, 2),
        )
    ),
    st.sets(st.integers(1, 8)),
)
def test_own_and_foreign_never_overlap(rows: list[ListeningSocket], own: set[int]) -> None:
    """Own is what was called own; foreign is on an address of own; without own nothing is."""
    shared = share(rows, own)
    assert {row.inode for row in shared.own} == own & {row.inode for row in rows}
    assert not own & {row.inode for row in shared.foreign}
    assert shared.own or not shared.foreign


def test_a_holder_is_found_by_inode() -> None:
    """The first process asked that has the socket is its holder; strangers are passed over."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        inode = os.fstat(server.fileno()).st_ino
        me = proc(os.getpid())
        found = find_holders(frozenset({inode, 1}), [procfs.PID_MAX, os.getppid(), me.pid])
    assert found == {inode: me}


# --- on real HAProxies ----------------------------------------------------------------------------

real = pytest.mark.real


@real
@pytest.mark.parametrize("flags", [("-W",), ("-D",), ()], ids=["-W", "-D", "foreground"])
async def test_the_worker_has_its_listeners_for_itself(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """TCP over IPv4 and IPv6, stats socket and bound Unix socket, all of the worker."""
    port, port6 = free_port(), free_port("::1")
    text = answering_config(port) + f"    bind [::1]:{port6}\n    bind {tmp_path}/web.sock\n"
    with running_haproxy(text, tmp_path, flags=flags) as haproxy:
        instance = instance_of(haproxy)
        seen = await checking(haproxy, lambda: instance)()
        assert (seen.verdict, seen.code) == (Verdict.PASS, Code.PROCOK)
        assert where(view(seen).listeners) == {
            ("127.0.0.1", port),
            ("::1", port6),
            (f"{tmp_path}/web.sock", 0),
            (str(haproxy.stats_socket), 0),
        }
        assert {listener.holder for listener in view(seen).listeners} == {instance.worker}
        assert (view(seen).foreign, view(seen).orphans) == ((), ())


@real
async def test_a_reload_is_followed(tmp_path: Path) -> None:
    """The new worker inherits the very sockets; the old one that drains holds none."""
    port = free_port()
    with running_haproxy(answering_config(port), tmp_path) as haproxy:
        check = checking(haproxy, lambda: instance_of(haproxy))
        before = view(await check()).listeners
        with haproxy.holding_open(port):
            worker = proc(haproxy.reload())
            seen = await check()
            assert seen.verdict is Verdict.PASS
            assert {listener.inode for listener in before} == {
                listener.inode for listener in view(seen).listeners
            }
            assert {listener.holder for listener in view(seen).listeners} == {worker}


@real
async def test_a_hung_old_worker_keeps_its_listeners(tmp_path: Path) -> None:
    """A reload does not cure a hang: the stopped worker still takes its share of connections."""
    port = free_port()
    with running_haproxy(answering_config(port), tmp_path) as haproxy:
        old = proc(haproxy.answering_pid())
        os.kill(old.pid, signal.SIGSTOP)
        os.kill(haproxy.main_pid, signal.SIGUSR2)
        wait_until(lambda: len(haproxy.worker_pids) == len((old, "new")), "the new worker runs")
        new = next(proc(pid) for pid in haproxy.worker_pids if pid != old.pid)
        instance = Instance(master=proc(haproxy.main_pid), worker=new, old=(old,))
        check = checking(haproxy, lambda: instance)
        seen = await until(check, lambda seen: seen.view and view(seen).listeners, Verdict.FAIL)
        assert seen.code is Code.PROCERR
        assert ("127.0.0.1", port) in where(view(seen).foreign)
        assert {listener.holder for listener in view(seen).foreign} == {old}
        assert view(seen).orphans == ()  # it is no orphan: its master answers for it
        assert f"127.0.0.1:{port} is also held by old worker {old.pid}" in seen.detail
        os.kill(old.pid, signal.SIGKILL)
        wait_until(lambda: procfs.read_stat(old.pid) is None, "the old worker is gone")
        instance = Instance(master=instance.master, worker=new)
        assert (await check()).verdict is Verdict.PASS


async def until(
    check: ListenersCheck, wanted: Callable[[Observation], object], verdict: Verdict
) -> Observation:
    """Look again and again until an observation is *wanted* and has *verdict*."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen = await check()
            if seen.verdict is verdict and wanted(seen):
                return seen
            await asyncio.sleep(0.01)


@real
async def test_an_orphan_on_our_port_is_proven(tmp_path: Path) -> None:
    """An older HAProxy with our configuration and no master of ours is left over from us."""
    port = free_port()
    with running_haproxy(answering_config(port), tmp_path, flags=("-D",)) as orphan:
        left = proc(orphan.main_pid)
        wait_until_older(left)
        haproxy = start_haproxy(orphan.config)
        try:
            wait_until(lambda: haproxy.answering_pid() not in {0, left.pid}, "it answers")
            seen = await checking(haproxy, lambda: instance_of(haproxy))()
            assert (seen.verdict, seen.code) == (Verdict.FAIL, Code.PROCERR)
            assert ("127.0.0.1", port) in where(view(seen).foreign)
            assert view(seen).orphans == (left,)
            assert f"127.0.0.1:{port} is also held by orphan {left.pid}" in seen.detail
        finally:
            haproxy.kill()


@real
async def test_a_younger_haproxy_is_told_and_not_condemned(tmp_path: Path) -> None:
    """One that started after our worker may be a start under way: it is foreign, no orphan."""
    port = free_port()
    with running_haproxy(answering_config(port), tmp_path, flags=("-D",)) as haproxy:
        instance = instance_of(haproxy)
        assert instance.worker is not None
        wait_until_older(instance.worker)
        younger = start_haproxy(haproxy.config)
        try:
            wait_until(lambda: haproxy.answering_pid() in younger.pids(), "the younger answers")
            seen = await checking(haproxy, lambda: instance)()
            assert seen.verdict is Verdict.FAIL
            assert view(seen).orphans == ()
            holders = {listener.holder for listener in view(seen).foreign}
            assert holders == {proc(pid) for pid in younger.worker_pids}
        finally:
            younger.kill()


@real
async def test_another_program_on_our_port_is_foreign_and_no_orphan(tmp_path: Path) -> None:
    """Whoever it is, he is named; only our own leftovers may ever be killed."""
    port = free_port()
    with closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        with running_haproxy(answering_config(port), tmp_path) as haproxy:
            seen = await checking(haproxy, lambda: instance_of(haproxy))()
    assert seen.detail == f"127.0.0.1:{port} is also held by process {os.getpid()}"
    assert [listener.holder for listener in view(seen).foreign] == [proc(os.getpid())]
    assert view(seen).orphans == ()


@real
async def test_a_service_with_a_file_in_common_is_no_orphan(tmp_path: Path) -> None:
    """It has another file besides, and lives: whatever it shares with ours, it is not ours."""
    port = free_port()
    files = {name: tmp_path / f"{name}.cfg" for name in ("common", "theirs", "ours")}
    files["common"].write_text(f"global\n    stats socket {tmp_path}/common.sock mode 600\n")
    files["theirs"].write_text(f"{answering_config(free_port())}    bind 127.0.0.1:{port}\n")
    files["ours"].write_text(answering_config(port))
    other = start_haproxy(files["common"], flags=("-db", "-f", str(files["theirs"])))
    try:
        wait_until(lambda: other.answering_pid() == other.process.pid, "it answers")
        left = proc(other.process.pid)
        wait_until_older(left)
        ours = start_haproxy(files["common"], flags=("-db", "-f", str(files["ours"])))
        try:
            wait_until(lambda: ours.answering_pid() == ours.process.pid, "ours answers")
            instance = Instance(master=None, worker=proc(ours.process.pid))
            seen = await checking(ours, lambda: instance)()
            assert seen.verdict is Verdict.FAIL
            assert {listener.holder for listener in view(seen).foreign} == {left}
            assert ("127.0.0.1", port) in where(view(seen).foreign)
            assert view(seen).orphans == ()
        finally:
            ours.kill()
    finally:
        other.kill()


@real
@pytest.mark.parametrize("shares", [True, False], ids=["with its port", "alone"])
async def test_a_unix_socket_alone_makes_no_orphan(
    tmp_path: Path,
    shares: bool,  # noqa: FBT001  (a parameter of pytest's)
) -> None:
    """The same service may be run twice, on other ports: one environment each."""
    ports = [port := free_port(), port if shares else free_port()]
    config = tmp_path / "haproxy.cfg"
    text = answering_config(port).replace(str(port), '"$PORT"')
    config.write_text(f"{text}global\n    stats socket {tmp_path}/haproxy.sock mode 600\n")
    launchers = [with_port(tmp_path, port) for port in ports]
    other = start_haproxy(config, flags=("-db",), executable=launchers[0])
    try:
        wait_until(lambda: other.answering_pid() == other.process.pid, "it answers")
        left = proc(other.process.pid)
        wait_until_older(left)
        ours = start_haproxy(config, flags=("-db",), executable=launchers[1])
        try:
            wait_until(lambda: ours.answering_pid() == ours.process.pid, "ours answers")
            instance = Instance(master=None, worker=proc(ours.process.pid))
            seen = await checking(ours, lambda: instance)()
            assert seen.verdict is Verdict.FAIL
            assert (str(tmp_path / "haproxy.sock"), 0) in where(view(seen).foreign)
            assert view(seen).orphans == ((left,) if shares else ())
        finally:
            ours.kill()
    finally:
        other.kill()


def with_port(folder: Path, port: int) -> str:
    """Return a program that starts HAProxy with $PORT in its environment."""
    return script(folder / f"on-{port}", f'PORT={port} exec {EXECUTABLE} "$@"')


def script(path: Path, command: str) -> str:
    """Return a program that executes a command of the shell's."""
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)
    return str(path)


@real
@needs_root
@pytest.mark.parametrize("apart", [True, False])
async def test_another_file_of_the_same_name_is_not_foreign(
    tmp_path: Path,
    apart: bool,  # noqa: FBT001  (a parameter of pytest's)
) -> None:
    """A container with our network has a /run of its own; a service of systemd's often has not."""
    (folder := tmp_path / "run").mkdir()
    mount = f"mount -t tmpfs none {folder} && " if apart else ""
    command = f"""exec unshare -m sh -c '{mount}exec {EXECUTABLE} "$@"' - "$@" """
    contained = script(tmp_path / "contained", command)
    texts = [f"{answering_config(free_port())}    bind {folder}/web.sock\n" for _ in range(2)]
    with (
        running_haproxy(texts[0], tmp_path, flags=()) as haproxy,
        running_haproxy(texts[1], tmp_path, flags=(), name="other", executable=contained) as other,
    ):
        seen = await checking(haproxy, lambda: instance_of(haproxy))()
        holders = [listener.holder for listener in view(seen).foreign]
        assert holders == ([] if apart else [proc(other.main_pid)])
        assert seen.verdict is (Verdict.PASS if apart else Verdict.FAIL)


#: Anybody may do as much, who may make a user namespace.
JAILED = """import os, socket, sys
jail, path = sys.argv[1:]
os.makedirs(jail + os.path.dirname(path))
with socket.socket(socket.AF_UNIX) as sock:
    os.chroot(jail)
    sock.bind(path)
    sock.listen()
    print(flush=True)
    sys.stdin.read()
"""


@real
@needs_root
async def test_a_file_in_a_jail_is_not_foreign(tmp_path: Path) -> None:
    """It has the name of ours, and is somewhere else."""
    with running_haproxy(answering_config(free_port()), tmp_path, flags=()) as haproxy:
        argv = (sys.executable, "-c", JAILED, tmp_path / "jail", haproxy.stats_socket)
        with jailed(argv):
            seen = await checking(haproxy, lambda: instance_of(haproxy))()
    assert (seen.verdict, view(seen).foreign) == (Verdict.PASS, ())


@contextmanager
def jailed(argv: Sequence[str | Path]) -> Iterator[None]:
    """Run a program that says when it is ready, until its standard input ends."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield


@real
async def test_a_backlog_is_counted(tmp_path: Path) -> None:
    """Connections that a stopped worker does not accept are seen waiting."""
    port = free_port()
    with running_haproxy(answering_config(port), tmp_path) as haproxy:
        instance = instance_of(haproxy)
        assert instance.worker is not None
        worker = instance.worker.pid
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: stopped(worker), "every thread of the worker is stopped")
        with (
            closing(socket.create_connection(("127.0.0.1", port))),
            closing(socket.create_connection(("127.0.0.1", port))),
        ):
            seen = await checking(haproxy, lambda: instance)()
        assert {sock.port: sock.backlog for sock in view(seen).listeners}[port] == 2


@real
async def test_a_worker_without_listeners_fails(tmp_path: Path) -> None:
    """After a soft stop the worker that drains listens on nothing."""
    port = free_port()
    with running_haproxy(answering_config(port), tmp_path) as haproxy:
        instance = instance_of(haproxy)
        assert instance.worker is not None
        check = checking(haproxy, lambda: instance)
        with haproxy.holding_open(port):
            os.kill(haproxy.main_pid, signal.SIGUSR1)
            seen = await until(check, lambda seen: not view(seen).listeners, Verdict.FAIL)
            assert seen.detail == f"worker {instance.worker.pid} listens on nothing"


@real
@needs_root
async def test_without_rights_nothing_is_known(tmp_path: Path) -> None:
    """Descriptors that may not be read leave the question open."""
    with running_haproxy(answering_config(free_port()), tmp_path) as haproxy:
        instance = instance_of(haproxy)
        with as_nobody():
            seen = await checking(haproxy, lambda: instance)()
    assert (seen.verdict, seen.code, seen.view) == (Verdict.UNKNOWN, Code.UNK, None)
    assert "Permission denied" in seen.detail


@pytest.mark.parametrize("instance", [None, Instance(master=None, worker=None)])
async def test_without_a_worker_nothing_is_known(instance: Instance | None) -> None:
    """There is nobody to compare with."""
    seen = await ListenersCheck(config.Haproxy(), PACE, lambda: instance, Aside("looking"))()
    assert (seen.verdict, seen.code, seen.view) == (Verdict.UNKNOWN, Code.UNK, None)


async def test_a_look_that_hangs_is_not_begun_again(tmp_path: Path) -> None:
    """Each would keep a thread for as long as the kernel does not answer."""
    aside, worker = Aside("looking"), proc(os.getpid())
    instance = Instance(master=None, worker=worker)
    check = ListenersCheck(config.Haproxy(), PACE, lambda: instance, aside)
    with socket.create_server(("127.0.0.1", 0)):
        async with hanging(aside, tmp_path / "pipe"):
            for _ in range(3):
                seen = await check()
                assert (seen.verdict, seen.view) == (Verdict.UNKNOWN, None)
                assert seen.detail == "not seen within 2 s: looking hangs"
            named = [thread.name for thread in threading.enumerate()]
            assert named.count("looking") == 1
        assert (await check()).verdict is Verdict.PASS


async def test_a_worker_that_is_gone_is_unknown() -> None:
    """Between two looks of the process check it may die, and another may have its pid."""
    for worker in (Proc(pid=procfs.PID_MAX, start_ticks=1), Proc(pid=os.getpid(), start_ticks=1)):
        instance = Instance(master=None, worker=worker)
        seen = await ListenersCheck(config.Haproxy(), PACE, lambda: instance, Aside("looking"))()  # noqa: B023
        assert (seen.verdict, seen.detail) == (Verdict.UNKNOWN, f"worker {worker.pid} is gone")
