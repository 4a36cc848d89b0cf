"""keepalived's JSON dump: its text in every version, and a real keepalived that is asked for it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import keepaliveds
import pytest
from keepaliveds import (
    contained_under_its_name,
    proc_of,
    running_keepalived,
    running_under_its_name,
)
from namespaces import apart, needs_root
from privileges import NOBODY, folder_for_all
from processes import running

from sentinel.model import Proc
from sentinel.vrrp import VrrpState
from sentinel.vrrpstate.dump import Dump, Dumps, Level, parse, waits_for


def instance(**changed: Any) -> dict[str, object]:
    """Return one instance of a dump, as far as it is read."""
    data = {
        "iname": "VI_1",
        "state": 2,
        "effective_priority": 150,
        "vips": ["192.0.2.1 dev v0 scope global set", "192.0.2.2/24 dev v1 scope global"],
        "evips": ["2001:db8::5/64 dev v0@eth0 scope global preferred_lft forever set"],
    }
    return {"data": data | changed, "stats": {"become_master": 1}}


#: Signals that wait, of one thread and of the whole process (proc_pid_status(5)).
PENDING = ("SigPnd:", "ShdPnd:")

EXPECTED = Level(
    name="VI_1",
    state=VrrpState.MASTER,
    priority=150,
    vips=frozenset({("192.0.2.1", "v0"), ("2001:db8::5", "v0")}),
)


@pytest.mark.parametrize("whole", [[instance()], {"vrrp": [instance()], "track_process": []}])
def test_both_versions_of_a_dump_are_understood(whole: object) -> None:
    """The array of all releases, and ``json_version 2`` (since 2.2.8)."""
    assert list(parse(json.dumps(whole).encode())) == [EXPECTED]


def test_an_instance_without_addresses_is_understood() -> None:
    """Older dumps leave out what is empty."""
    raw = json.dumps([instance(vips=None, evips=None, state=1)]).encode()
    assert list(parse(raw)) == [
        Level(name="VI_1", state=VrrpState.BACKUP, priority=150, vips=frozenset())
    ]


def test_no_beginning_of_a_dump_is_taken_for_a_whole_one() -> None:
    """It is written bit by bit under its final name."""
    raw = json.dumps([instance()]).encode()
    for end in range(len(raw)):
        with pytest.raises(ValueError, match=r"."):
            list(parse(raw[:end]))


@pytest.mark.parametrize(
    "whole",
    [
        {},
        7,
        [{}],
        [7],
        [instance(state=42)],
        [instance(state="MASTER")],
        [instance(effective_priority=None)],
        [instance(vips=["192.0.2.1 set"])],
        [instance(vips=["set dev"])],
        [instance(vips=[7])],
    ],
)
def test_what_is_not_understood_is_refused(whole: object) -> None:
    """A state that is guessed would be worse than none."""
    with pytest.raises(ValueError, match=r"."):
        list(parse(json.dumps(whole).encode()))


async def dumped(dumps: Dumps, parent: Proc, *fits: Level) -> None:
    """Ask until there is an answer, and it is this one; a fresh keepalived may not be ready."""
    for _ in range(2000):
        levels = (await dumps.ask(parent)).levels
        if levels is not None and levels == (fits or levels):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(levels)


async def signalled(pid: int) -> None:
    """Wait until a realtime signal waits for a stopped process."""
    for _ in range(2000):
        status = Path(f"/proc/{pid}/status").read_text()  # noqa: ASYNC240  (proc(5) does not hang)
        masks = [line.split()[1] for line in status.splitlines() if line[:7] in PENDING]
        if any(int(mask, 16) >> (signal.SIGRTMIN - 1) for mask in masks):
            return
        await asyncio.sleep(0.001)
    raise AssertionError(masks)


@pytest.mark.real
@needs_root
def test_a_real_keepalived_answers_from_a_tmp_of_its_own() -> None:
    """Each time anew: the second answer is not the first one's file."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf()) as keepalived:
            dumps, parent = Dumps(), proc_of(keepalived.pid)
            vips = frozenset({("192.0.2.1", "v0")})
            master = Level(name="VI_1", state=VrrpState.MASTER, priority=150, vips=vips)
            await dumped(dumps, parent, master)
            keepalived.reload(keepaliveds.conf(priority=120))
            await dumped(dumps, parent, replace(master, priority=120))
            assert running(keepalived.vrrp_pid), "no signal has killed it"

    apart(body)


@pytest.mark.real
@needs_root
def test_a_dump_that_is_not_new_or_not_roots_is_not_believed() -> None:
    """A stopped keepalived answers nothing, whatever lies there; nor is another's file read."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf()) as keepalived:
            dumps, parent = Dumps(), proc_of(keepalived.pid)
            await dumped(dumps, parent)
            os.kill(keepalived.vrrp_pid, signal.SIGSTOP)
            asking = asyncio.create_task(dumps.ask(parent))
            await signalled(keepalived.vrrp_pid)
            forge(keepalived.pid)
            assert (await asking).detail == "keepalived's dump: is not a file of root's"
            silent = await dumps.ask(parent)
            assert silent == Dump(levels=None, detail="keepalived has written no dump")
            os.kill(keepalived.vrrp_pid, signal.SIGCONT)

    apart(body)


@pytest.mark.real
@needs_root
def test_a_keepalived_that_dies_meanwhile_keeps_nobody_waiting() -> None:
    """Its pidfd tells."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf()) as keepalived:
            dumps, parent = Dumps(), proc_of(keepalived.pid)
            await dumped(dumps, parent)
            os.kill(keepalived.vrrp_pid, signal.SIGSTOP)
            asking = asyncio.create_task(dumps.ask(parent))
            await signalled(keepalived.vrrp_pid)
            keepalived.kill()
            assert (await asking).detail == "keepalived died"
            assert (await dumps.ask(parent)).levels is None

    apart(body)


async def test_a_keepalived_without_json_is_told_in_words(tmp_path: Path) -> None:
    """It does not know the signal's name, and so gets no signal."""
    with running_under_its_name(tmp_path, "sleep", "60") as parent:
        for _ in range(2):
            dump = await Dumps().ask(parent)
            assert dump == Dump(levels=None, detail="keepalived was built without JSON")
        assert running(parent.pid)


@pytest.mark.parametrize("hangs", [True, False])
async def test_who_has_not_answered_is_asked_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hangs: bool,  # noqa: FBT001  (a parameter of pytest's)
) -> None:
    """A program whose library hangs, or is damaged, has not said that it knows no JSON."""
    library = tmp_path / "libc.so.6"
    if hangs:
        os.mkfifo(library)
    else:
        library.write_text("damaged")
    with running_under_its_name(tmp_path, "sleep", "60") as parent:
        dumps = Dumps()
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
        for _ in range(2):
            dump = await dumps.ask(parent)
            assert dump == Dump(levels=None, detail="keepalived --signum: did not answer")
        monkeypatch.delenv("LD_LIBRARY_PATH")
        dump = await dumps.ask(parent)
        assert dump == Dump(levels=None, detail="keepalived was built without JSON")


@needs_root
async def test_another_users_program_is_not_executed() -> None:
    """Nor root's that others may write: it would be with our rights."""
    with folder_for_all() as folder:
        with running_under_its_name(folder, "sleep", "60", user=NOBODY) as stranger:
            dump = await Dumps().ask(stranger)
            assert dump.detail == "keepalived --signum: keepalived runs as another user"
        with running_under_its_name(folder, "sleep", "60") as ours:
            (folder / "keepalived").chmod(0o757)
            dump = await Dumps().ask(ours)
            assert dump.detail == "keepalived --signum: not executed, others may write it"


@needs_root
async def test_a_containers_program_is_not_executed(tmp_path: Path) -> None:
    """Whoever is root there may have written it, and would be root here."""
    with contained_under_its_name(tmp_path, "--pid", "sleep", "60") as contained:
        dump = await Dumps().ask(contained)
        assert dump.detail == "keepalived --signum: not executed, it is a container's"


def test_a_signal_that_would_kill_is_told_from_one_that_is_waited_for() -> None:
    """A keepalived that has just started has not blocked its signals yet."""
    assert not waits_for(os.getpid(), signal.SIGRTMIN + 2)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN + 2})
    try:
        assert waits_for(os.getpid(), signal.SIGRTMIN + 2)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGRTMIN + 2})
    handler = signal.signal(signal.SIGRTMIN + 2, lambda *_: None)
    try:
        assert waits_for(os.getpid(), signal.SIGRTMIN + 2), "Python handles it"
    finally:
        signal.signal(signal.SIGRTMIN + 2, handler)


async def test_another_program_gets_no_signal(tmp_path: Path) -> None:
    """Its pid was keepalived's once."""
    with running_under_its_name(tmp_path, "sleep", "60") as parent:
        other = Proc(pid=parent.pid, start_ticks=parent.start_ticks - 1)
        assert (await Dumps().ask(other)).levels is None
        assert running(parent.pid)


def forge(pid: int) -> None:
    """Put a perfect dump of somebody else's where keepalived writes."""
    forged = Path(f"/proc/{pid}/root/tmp/forged")
    forged.write_text(json.dumps([instance()]))
    os.chown(forged, 65534, 65534)
    forged.rename(f"/proc/{pid}/root/tmp/keepalived.json")
