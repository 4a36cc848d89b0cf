"""keepalived's processes: who is the parent, who speaks VRRP, and who only looks like them.

They are real ones, or played by a shell under keepalived's name.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import keepaliveds
import pytest
from haproxies import wait_until
from keepaliveds import (
    PIDFILE,
    contained_under_its_name,
    proc_of,
    running_keepalived,
    running_under_its_name,
)
from namespaces import apart, needs_root
from privileges import NOBODY, folder_for_all
from processes import descriptors

from sentinel.processes import listing, procfs
from sentinel.vrrpstate.keepalived import (
    VRRP_PIDFILE,
    Keepalived,
    is_keepalived,
    is_ours,
    vrrp_pidfile,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sentinel.model import Proc

#: A parent with two children, who all wait for an end of input that does not come.
FAMILY = "exec 7<&0; (read line <&7) & (read line <&7) & wait"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), VRRP_PIDFILE),
        (("-n", "-l"), VRRP_PIDFILE),
        (("-r", "/run/a"), "/run/a"),
        (("-r/run/a",), "/run/a"),
        (("--vrrp_pid", "/run/a"), "/run/a"),
        (("-n", "--vrrp_pid=/run/a", "-l"), "/run/a"),
        (("-r",), VRRP_PIDFILE),
    ],
)
def test_the_arguments_name_the_pidfile(words: Sequence[str], expected: str) -> None:
    """In every form that getopt_long takes."""
    assert vrrp_pidfile(("keepalived", *words)) == expected


class Family:
    """A parent and its two children."""

    def __init__(self, parent: Proc, folder: Path) -> None:
        self.parent = parent
        self.pidfile = folder / "keepalived.pid"
        self.vrrp_pidfile = folder / "vrrp.pid"

    @property
    def children(self) -> tuple[int, ...]:
        """Those that live, oldest first."""
        return listing.children(self.parent.pid)


@contextmanager
def family(folder: Path) -> Iterator[Family]:
    """Run the three, all of them named keepalived."""
    folder.mkdir(exist_ok=True)
    pidfile = str(folder / "vrrp.pid")
    argv = ("bash", "-c", FAMILY, "keepalived", "-r", pidfile)
    with running_under_its_name(folder, *argv) as parent:
        found = Family(parent, folder)
        wait_until(lambda: len(found.children) == 2, "the children are born")
        children = found.children
        try:
            yield found
        finally:
            for child in children:
                if child in found.children:
                    os.kill(child, signal.SIGKILL)


@contextmanager
def following(main_pid: int, pidfile: Path) -> Iterator[Keepalived]:
    """Follow it, and give everything back."""
    with closing(Keepalived(lambda: main_pid, lambda: None, str(pidfile))) as keepalived:
        yield keepalived


async def test_its_own_pidfile_names_the_vrrp_process(tmp_path: Path) -> None:
    """The other child checks servers; it comes last."""
    with family(tmp_path) as them, following(them.parent.pid, them.pidfile) as keepalived:
        for vrrp, other in (them.children, them.children[::-1]):
            them.vrrp_pidfile.write_text(f"{vrrp}\n")
            seen = keepalived.look()
            assert seen.parent == them.parent
            assert seen.pids == (them.parent.pid, vrrp, other)
            assert seen.vrrp is not None
            assert seen.vrrp.pid == vrrp
            assert not seen.stopped


async def test_a_dead_vrrp_process_is_not_mistaken_for_another_child(tmp_path: Path) -> None:
    """The pidfile goes on naming the dead one until the next is born."""
    with family(tmp_path) as them, following(them.parent.pid, them.pidfile) as keepalived:
        vrrp, other = them.children
        them.vrrp_pidfile.write_text(f"{vrrp}\n")
        keepalived.look()
        os.kill(vrrp, signal.SIGKILL)
        wait_until(lambda: vrrp not in keepalived.look().pids, "its death is seen")
        assert keepalived.look().vrrp is None
        assert keepalived.look().pids == (them.parent.pid, other)


async def test_without_a_pidfile_of_now_the_newest_child_speaks_vrrp(tmp_path: Path) -> None:
    """There is none, or one of a keepalived of long ago."""
    with family(tmp_path) as them, following(them.parent.pid, them.pidfile) as keepalived:
        newest = keepalived.look().vrrp
        assert newest is not None
        assert newest.pid == them.children[-1]
        them.vrrp_pidfile.write_text(f"{them.parent.pid}\n")
        os.utime(them.vrrp_pidfile, (time.time() - 3600,) * 2)
        assert keepalived.look().vrrp == newest


async def test_a_stopped_vrrp_process_is_told(tmp_path: Path) -> None:
    """The parent does not see it."""
    with family(tmp_path) as them, following(them.parent.pid, them.pidfile) as keepalived:
        vrrp = them.children[-1]
        os.kill(vrrp, signal.SIGSTOP)
        wait_until(lambda: keepalived.look().stopped, "it is seen to be stopped")
        os.kill(vrrp, signal.SIGCONT)
        wait_until(lambda: not keepalived.look().stopped, "it is seen to go on")


async def test_children_are_followed_beyond_their_parents_death(tmp_path: Path) -> None:
    """Whoever still lives may put a VIP back."""
    with family(tmp_path) as them, following(them.parent.pid, them.pidfile) as keepalived:
        children = them.children
        keepalived.look()
        os.kill(them.parent.pid, signal.SIGKILL)
        wait_until(lambda: keepalived.look().parent is None, "the death is seen")
        assert set(keepalived.look().pids) == set(children)
        for child in children:
            os.kill(child, signal.SIGKILL)
        wait_until(lambda: not keepalived.look().pids, "all are dead")


async def test_the_pidfile_names_the_parent_when_nobody_else_does(tmp_path: Path) -> None:
    """If it is older than the file; a recycled pid is not."""
    with family(tmp_path) as them, following(0, them.pidfile) as keepalived:
        them.pidfile.write_text(f"{them.parent.pid}\n")
        assert keepalived.look().parent == them.parent


async def test_one_that_nobody_names_is_searched_for(tmp_path: Path) -> None:
    """It was started by hand with a pidfile elsewhere: it must not be held for dead."""
    with family(tmp_path) as them, following(0, tmp_path / "none") as keepalived:
        seen = keepalived.look()
        assert seen.parent is not None
        assert seen.parent.start_ticks <= them.parent.start_ticks, "another test's may be older"


@pytest.mark.parametrize("name", ["keepalived-2.2.8", ".keepalived-wrapped", "keepalived"])
async def test_an_executable_of_a_longer_name_is_keepalived(tmp_path: Path, name: str) -> None:
    """A versioned one behind a link, or one behind a wrapper, whichever way it is found."""
    pidfile = tmp_path / "keepalived.pid"
    with running_under_its_name(tmp_path, "sleep", "60", name=name) as parent:
        with following(parent.pid, tmp_path / "none") as keepalived:
            assert keepalived.look().parent == parent
        pidfile.write_text(f"{parent.pid}\n")
        with following(0, pidfile) as keepalived:
            assert keepalived.look().parent == parent
        with following(0, tmp_path / "none") as keepalived:
            assert keepalived.look().parent is not None


async def test_a_search_does_not_believe_a_name_that_only_begins_so(tmp_path: Path) -> None:
    """keepalived_exporter runs as root too, and must not stand for a keepalived that is dead."""
    with (
        running_under_its_name(tmp_path, "sleep", "60", name="keepalived_exporter") as exporter,
        following(0, tmp_path / "none") as keepalived,
    ):
        assert exporter.pid not in keepalived.look().pids


@pytest.mark.parametrize(
    ("words", "serves"),
    [
        (("-t",), False),
        (("-Dt/dev/null",), False),
        (("--config-test=/dev/null",), False),
        (("--signum=JSON",), False),
        (("-n", "-f/etc/that", "--vrrp", "-p", "/run/t"), True),
    ],
)
async def test_one_that_only_tests_its_configuration_is_none(
    tmp_path: Path,
    words: Sequence[str],
    serves: bool,  # noqa: FBT001  (a parameter of pytest's)
) -> None:
    """It runs before a start of the service, or from cron, and has no VIP."""
    argv = ("bash", "-c", "read line", "keepalived", *words)
    with running_under_its_name(tmp_path, *argv) as one:
        stat = procfs.read_stat(one.pid)
        assert stat is not None
        assert is_ours(stat) is serves


def copy_of(program: str, path: Path) -> None:
    """Have another program there."""
    shutil.copy(Path(shutil.which(program) or "").resolve(), path)


@needs_root
async def test_a_container_with_our_network_is_this_node(tmp_path: Path) -> None:
    """Its VIPs are ours; and our pidfile speaks of pids that are not those of its namespace."""
    argv = ("bash", "-c", FAMILY, "keepalived", "-r", str(tmp_path / "vrrp.pid"))
    with contained_under_its_name(tmp_path, "--pid", *argv) as parent:
        wait_until(lambda: len(listing.children(parent.pid)) == 2, "the children are born")
        children = listing.children(parent.pid)
        (tmp_path / "vrrp.pid").write_text(f"{children[0]}\n")
        with following(0, tmp_path / "none") as keepalived:
            seen = keepalived.look()
            assert seen.parent is not None
            assert seen.parent.start_ticks <= parent.start_ticks, "another test's may be older"
        with following(parent.pid, tmp_path / "none") as keepalived:
            seen = keepalived.look()
            assert seen.vrrp is not None
            assert seen.pids == (parent.pid, *children[::-1])
            assert seen.vrrp.pid == children[-1]


@needs_root
async def test_a_container_with_a_network_of_its_own_is_another_node(tmp_path: Path) -> None:
    """Whatever it holds, nobody reaches it by an address of ours."""
    with contained_under_its_name(tmp_path, "--net", "sleep", "60") as parent:
        stat = procfs.read_stat(parent.pid)
        assert stat is not None
        assert is_keepalived(stat)
        assert not is_ours(stat)


async def test_a_helper_of_a_like_name_is_no_child(tmp_path: Path) -> None:
    """Its notify program may be called keepalived-notify, and run for long."""
    helper = tmp_path / "keepalived-notify"
    copy_of("sleep", helper)
    with (
        running_under_its_name(tmp_path, "bash", "-c", f"{helper} 60 & wait") as parent,
        following(parent.pid, tmp_path / "none") as keepalived,
    ):
        wait_until(lambda: listing.children(parent.pid), "it is born")
        (pid,) = listing.children(parent.pid)
        try:
            wait_until(lambda: procfs.program(pid) == str(helper), "it runs")
            assert keepalived.look().pids == (parent.pid,)
        finally:
            os.kill(pid, signal.SIGKILL)


@needs_root
async def test_another_users_keepalived_is_not_this_nodes(tmp_path: Path) -> None:
    """Anybody may start one: it must not stand for ours, which is dead; systemd would know."""
    with (
        folder_for_all() as folder,
        running_under_its_name(folder, "sleep", "60", user=NOBODY) as stranger,
    ):
        stat = procfs.read_stat(stranger.pid)
        assert stat is not None
        assert is_keepalived(stat)
        assert not is_ours(stat)
        pidfile = tmp_path / "keepalived.pid"
        pidfile.write_text(f"{stranger.pid}\n")
        with following(0, pidfile) as keepalived:
            assert stranger.pid not in keepalived.look().pids
        with following(stranger.pid, pidfile) as keepalived:
            assert keepalived.look().parent == stranger


async def test_a_child_that_executes_another_program_is_none(tmp_path: Path) -> None:
    """The parent's startup_script may run for long, and has no VIP."""
    go = tmp_path / "go"
    os.mkfifo(go)
    child = f"(read line <{go}; exec sleep 60) & wait"
    with (
        running_under_its_name(tmp_path, "bash", "-c", child) as parent,
        following(parent.pid, tmp_path / "none") as keepalived,
    ):
        wait_until(lambda: len(keepalived.look().pids) == 2, "the child is seen")
        _, pid = keepalived.look().pids
        try:
            go.write_text("\n")
            wait_until(lambda: keepalived.look().pids == (parent.pid,), "it is another program")
            assert procfs.argv(pid) == ("sleep", "60")
        finally:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.real
@needs_root
@pytest.mark.parametrize(
    ("names", "new"),
    [
        ("process_names", "keepalived_vrrp"),
        ("process_name first", "first"),
        ("process_name first\n    vrrp_process_name second", "second"),
    ],
)
def test_a_real_keepalived_is_known_under_any_name(names: str, new: str) -> None:
    """It names its processes when it has read its configuration, and by a reload anew."""
    text = keepaliveds.conf()
    named = text.replace("vrrp_version 3", f"vrrp_version 3\n    {names}")

    async def body() -> None:
        with running_keepalived(text) as real, ExitStack() as stack:
            ways = (real.pid, PIDFILE), (0, PIDFILE), (0, Path("/run/none"))
            known = [stack.enter_context(following(*way)) for way in ways]
            for keepalived in known:
                wait_until(lambda: keepalived.look().vrrp, "it is seen")  # noqa: B023  (at once)
            seen = [keepalived.look() for keepalived in known]
            assert {(both.parent, both.vrrp) for both in seen} == {
                (proc_of(real.pid), proc_of(real.vrrp_pid))
            }
            real.reload(named)
            wait_until(lambda: new in map(name_of, (real.pid, real.vrrp_pid)), "it is renamed")
            assert [keepalived.look() for keepalived in known] == seen
            for way in ways:
                with following(*way) as keepalived:
                    assert keepalived.look() == seen[0]

    apart(body)


def name_of(pid: int) -> str:
    """Return what a process calls itself."""
    return Path(f"/proc/{pid}/comm").read_text().rstrip()


async def test_the_service_managers_word_is_heard_later_as_well(tmp_path: Path) -> None:
    """The search had found another one before the unit's was known."""
    with ExitStack() as stack:
        first = stack.enter_context(family(tmp_path / "first"))
        second = stack.enter_context(family(tmp_path / "second"))
        first.pidfile.write_text(f"{first.parent.pid}\n")
        named = [0]
        keepalived = Keepalived(lambda: named[0], lambda: None, str(first.pidfile))
        stack.callback(keepalived.close)
        assert keepalived.look().parent == first.parent
        named[0] = second.parent.pid
        assert set(keepalived.look().pids) == {second.parent.pid, *second.children}
        named[0] = 4_000_000  # it has died, and the unit has not been looked at again
        assert keepalived.look().parent == second.parent


async def test_nothing_stays_open(tmp_path: Path) -> None:
    """Neither of the living nor of the dead."""
    with family(tmp_path) as them:
        keepalived = Keepalived(lambda: them.parent.pid, lambda: None, str(them.pidfile))
        before = descriptors()
        keepalived.look()
        os.kill(them.children[0], signal.SIGKILL)
        wait_until(lambda: len(keepalived.look().pids) == 2, "the death is seen")
        keepalived.close()
        keepalived.close()
        assert descriptors() == before
