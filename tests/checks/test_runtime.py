"""RuntimeCheck against stats sockets of every kind, and against a real HAProxy."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from contextlib import AsyncExitStack, ExitStack, closing
from pathlib import Path
from typing import Final

import pytest
from haproxies import answering_config, free_port, running_haproxy, stopped, wait_until
from nameservers import NAME, silent_name_server
from namespaces import apart, needs_root
from statssockets import full_stats_socket, recorded, stats_socket

from sentinel.checks.runtime import RuntimeCheck
from sentinel.config import Pace
from sentinel.exchange.deadline import HELD_UP_S
from sentinel.model import Code, Observation, RuntimeView, Scope, Verdict
from sentinel.runtimeapi import ANSWER_MAX_BYTES

PATIENT: Final = Pace(timeout_s=20.0)
HASTY: Final = Pace(timeout_s=0.15)

INFO: Final = "Name: HAProxy\nVersion: 2.6\nPid: 7\nMaxconn: 9\nCurrConns: 1\nStopping: 0\n"


def check(path: str, pace: Pace = PATIENT, worker_pid: int = 0) -> RuntimeCheck:
    """Return a check of the stats socket at *path*."""
    return RuntimeCheck(lambda: path, pace, lambda: worker_pid)


def seen(observation: Observation) -> RuntimeView:
    """Return what a passing observation saw."""
    assert observation.verdict is Verdict.PASS, observation
    assert isinstance(observation.view, RuntimeView)
    return observation.view


async def test_it_passes_when_the_worker_answers(tmp_path: Path) -> None:
    """An answer with the worker's pid is L7OK, and its numbers become the view."""
    async with stats_socket(tmp_path, recorded("info_1.8")) as path:
        observation = await check(path, worker_pid=811)()
    assert (observation.check, observation.scope) == ("runtime", Scope.RUNTIME)
    assert (observation.verdict, observation.code) == (Verdict.PASS, Code.L7OK)
    assert observation.view == RuntimeView(
        pid=811, version="1.8.30-3f2b1d7", curr_conns=3, maxconn=2000, idle_pct=97
    )


async def test_it_takes_any_pid_while_the_worker_is_unknown(tmp_path: Path) -> None:
    """Pid 0 stands for a worker that nobody has found yet."""
    async with stats_socket(tmp_path, INFO) as path:
        assert seen(await check(path, worker_pid=0)()).pid == 7


async def test_it_fails_when_another_process_answers(tmp_path: Path) -> None:
    """The path may still belong to the worker before the reload."""
    async with stats_socket(tmp_path, INFO) as path:
        observation = await check(path, worker_pid=8)()
    assert (observation.verdict, observation.code) == (Verdict.FAIL, Code.L7RSP)
    assert observation.detail == "answered by pid 7, not by worker 8"
    assert observation.view is None


async def test_it_notes_a_worker_that_is_stopping(tmp_path: Path) -> None:
    """A soft stop is no fault, but it is said."""
    async with stats_socket(tmp_path, INFO.replace("Stopping: 0", "Stopping: 1")) as path:
        observation = await check(path)()
    assert seen(observation).stopping
    assert observation.detail == "stopping"


@pytest.mark.parametrize(
    ("answer", "saturated"),
    [
        (recorded("info_1.8"), ""),
        (recorded("info_1.4"), "frontend http-in scur 2 of slim 2"),
        (recorded("info_3.4"), "frontend api scur 150 of slim 150"),
        (INFO.replace("CurrConns: 1", "CurrConns: 9"), "CurrConns 9 of Maxconn 9"),
        (INFO.replace("Maxconn: 9", "Maxconn: 0"), ""),
        ("Pid: 7\n", ""),
    ],
)
async def test_it_tells_saturation_in_any_version(
    tmp_path: Path, answer: str, saturated: str
) -> None:
    """What is full is named, from the keys and columns that this version has."""
    async with stats_socket(tmp_path, answer) as path:
        assert seen(await check(path)()).saturated == saturated


async def test_it_sees_maxconn_reached_between_two_looks(tmp_path: Path) -> None:
    """A short burst into maxconn shows in the counter, but not across two processes."""
    path = str(tmp_path / "stats.sock")
    asked = check(path)
    looks = []
    for pid, reached in ((7, 3), (7, 5), (7, 5), (8, 9)):
        answer = INFO.replace("Pid: 7", f"Pid: {pid}") + f"MaxconnReached: {reached}\n"
        async with stats_socket(tmp_path, answer, name="stats.sock"):
            looks.append(seen(await asked()).saturated)
    assert looks == ["", "MaxconnReached rose by 2 to 5", "", ""]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad request\r\n\r\n",
        b"\x00\xff\xfe garbage\n",
        b"Permission denied\n\n",
        b"Pid: many\n",
        b"Pid: 7\n\nno table\n\n",
        b'Pid: 7\n\n# pxname,svname,\n"' + b"x" * 200_000 + b"\n\n",
        b"",
        b"\n\n\n",
    ],
)
async def test_it_fails_on_garbage(tmp_path: Path, answer: bytes) -> None:
    """An answer that is none of HAProxy's is L7RSP."""
    async with stats_socket(tmp_path, answer) as path:
        observation = await check(path)()
    assert (observation.verdict, observation.code) == (Verdict.FAIL, Code.L7RSP)
    assert len(observation.detail) < 200


async def test_it_fails_when_nothing_is_answered(tmp_path: Path) -> None:
    """Accepted, then silence, is L7TOUT."""
    async with stats_socket(tmp_path, "", then="silence") as path:
        observation = await check(path, HASTY)()
    assert (observation.verdict, observation.code) == (Verdict.FAIL, Code.L7TOUT)
    assert observation.detail == "accepted, no answer within the deadline"


async def test_it_fails_on_half_an_answer(tmp_path: Path) -> None:
    """An answer that does not end in time is L7TOUT, whatever it says so far."""
    async with stats_socket(tmp_path, INFO, then="silence") as path:
        observation = await check(path, HASTY)()
    assert (observation.verdict, observation.code) == (Verdict.FAIL, Code.L7TOUT)
    assert f"stopped after {len(INFO)} bytes" in observation.detail


async def test_it_fails_on_an_answer_without_end(tmp_path: Path) -> None:
    """A flood ends at the deadline: L7TOUT while it could still be an answer, L7RSP after."""
    async with stats_socket(tmp_path, "x" * 65536, then="repeat") as path:
        observation = await check(path, Pace(timeout_s=0.3))()
    assert observation.verdict is Verdict.FAIL
    assert observation.code in {Code.L7RSP, Code.L7TOUT}


async def test_it_fails_on_an_answer_that_is_too_long(tmp_path: Path) -> None:
    """What is longer than any answer of HAProxy's is read to its end, and not kept."""
    size_bytes = ANSWER_MAX_BYTES + 1
    async with stats_socket(tmp_path, b"x" * size_bytes) as path:
        observation = await check(path)()
    assert (observation.verdict, observation.code) == (Verdict.FAIL, Code.L7RSP)
    assert observation.detail == f"answer of {size_bytes} bytes is too long"


async def test_it_fails_when_nobody_accepts(tmp_path: Path) -> None:
    """A full backlog is L4TOUT: a Unix socket's connect does not wait for room by itself."""
    with full_stats_socket(tmp_path) as path:
        observation = await check(path, HASTY)()
    assert (observation.verdict, observation.code) == (Verdict.FAIL, Code.L4TOUT)


async def test_it_fails_when_the_socket_has_no_listener(tmp_path: Path) -> None:
    """No such file, and a file whose process has died, are L4CON."""
    stale = tmp_path / "stale.sock"
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(stale))
    for path in (stale, tmp_path / "missing.sock"):
        observation = await check(str(path))()
        assert (observation.verdict, observation.code) == (Verdict.FAIL, Code.L4CON)
        assert str(path) in observation.detail


async def test_it_knows_nothing_without_a_stats_socket() -> None:
    """No known socket says nothing about HAProxy, and the cure is named."""
    observation = await check("")()
    assert (observation.verdict, observation.code) == (Verdict.UNKNOWN, Code.UNK)
    assert "add `stats socket" in observation.detail


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "host:99999", "/" + "x" * 200])
async def test_it_knows_nothing_at_an_address_that_is_none(address: str) -> None:
    """A mistake in our configuration is no fault of HAProxy's."""
    observation = await check(address)()
    assert (observation.verdict, observation.code) == (Verdict.UNKNOWN, Code.UNK)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_it_knows_nothing_without_permission(tmp_path: Path) -> None:
    """A socket that we may not open says nothing about HAProxy, and the cure is named."""
    async with stats_socket(tmp_path, INFO) as path:
        os.seteuid(65534)  # pytest's folders are closed to others
        try:
            observation = await check(path)()
        finally:
            os.seteuid(0)
    assert (observation.verdict, observation.code) == (Verdict.UNKNOWN, Code.UNK)
    assert "mode 660" in observation.detail


@pytest.mark.parametrize("full", [True, False], ids=["connecting", "listening"])
async def test_it_knows_nothing_when_sentinel_itself_was_held_up(
    tmp_path: Path, *, full: bool
) -> None:
    """The answer may have lain there all the time."""
    async with AsyncExitStack() as stack:
        if full:
            path = stack.enter_context(full_stats_socket(tmp_path))
        else:
            path = await stack.enter_async_context(stats_socket(tmp_path, "", then="silence"))
        stall_s = HASTY.timeout_s + 2 * HELD_UP_S
        asyncio.get_running_loop().call_later(0.01, time.sleep, stall_s)
        observation = await check(path, HASTY)()
    assert (observation.verdict, observation.code) == (Verdict.UNKNOWN, Code.UNK)
    assert observation.detail == "sentinel itself was held up past the deadline"


@needs_root
def test_it_knows_nothing_while_the_sockets_name_is_not_resolved() -> None:
    """A silent name server says nothing about HAProxy."""

    async def body() -> None:
        with silent_name_server():
            observation = await check(f"{NAME}:9999", HASTY)()
        assert (observation.verdict, observation.code) == (Verdict.UNKNOWN, Code.UNK)
        assert observation.detail == f"{NAME}:9999: not resolved in 0.15 s"

    apart(body)


@pytest.mark.parametrize("family", ["", "ipv4@", "ipv6@"])
async def test_it_asks_over_tcp(family: str) -> None:
    """A stats socket may listen on an address of the network."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"show info;show stat -1 1 -1\n"
        writer.write(INFO.encode())
        await writer.drain()
        writer.close()

    host = "::1" if family == "ipv6@" else "127.0.0.1"
    async with await asyncio.start_server(serve, host, 0) as server:
        port = server.sockets[0].getsockname()[1]
        place = f"[{host}]" if ":" in host else host
        assert seen(await check(f"{family}{place}:{port}")()).pid == 7


@pytest.mark.real
async def test_a_real_worker_answers(tmp_path: Path) -> None:
    """A real HAProxy passes with the pid of its worker, and the stats socket is not counted."""
    with running_haproxy(answering_config(free_port()), tmp_path) as haproxy:
        (worker,) = haproxy.worker_pids
        view = seen(await check(str(haproxy.stats_socket), worker_pid=worker)())
        assert view.pid == worker
        assert view.version.startswith(tuple("123456789"))
        assert (view.curr_conns, view.saturated, view.stopping) == (0, "", False)


@pytest.mark.real
async def test_a_real_saturated_worker_still_answers(tmp_path: Path) -> None:
    """With all of maxconn held, the runtime API answers and says what is full."""
    port = free_port()
    config = f"global\n    maxconn 2\n{answering_config(port)}"
    with running_haproxy(config, tmp_path) as haproxy, ExitStack() as held:
        for _ in range(3):
            held.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
        wait_until(lambda: "CurrConns: 2" in haproxy.ask("show info"), "both places are taken")
        observation = await check(str(haproxy.stats_socket))()
    assert seen(observation).saturated == "CurrConns 2 of Maxconn 2"
    assert observation.detail == "CurrConns 2 of Maxconn 2"


@pytest.mark.real
async def test_a_real_full_frontend_is_named(tmp_path: Path) -> None:
    """A frontend at its own maxconn is saturation too, with the global maxconn far away."""
    port = free_port()
    config = f"{answering_config(port)}    maxconn 1\n"
    with (
        running_haproxy(config, tmp_path) as haproxy,
        closing(socket.create_connection(("127.0.0.1", port))),
    ):
        wait_until(lambda: ",FRONTEND,,,1,1,1," in haproxy.ask("show stat"), "it is full")
        observation = await check(str(haproxy.stats_socket))()
    assert seen(observation).saturated == "frontend fe scur 1 of slim 1"


@pytest.mark.real
async def test_a_real_stopped_worker_is_silent(tmp_path: Path) -> None:
    """The kernel accepts for a stopped worker; nobody answers: L7TOUT."""
    with running_haproxy(answering_config(free_port()), tmp_path) as haproxy:
        (worker,) = haproxy.worker_pids
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: stopped(worker), "every thread of the worker is stopped")
        observation = await check(str(haproxy.stats_socket), HASTY, worker)()
        os.kill(worker, signal.SIGCONT)
    assert (observation.verdict, observation.code) == (Verdict.FAIL, Code.L7TOUT)


@pytest.mark.real
async def test_many_looks_leave_no_slot_behind(tmp_path: Path) -> None:
    """HAProxy serves ten clients at once here, so a leak would show after ten looks."""
    with running_haproxy(answering_config(free_port()), tmp_path) as haproxy:
        ask = check(str(haproxy.stats_socket))
        for _ in range(100):
            seen(await ask())
