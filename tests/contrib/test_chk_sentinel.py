"""The hook's verdict under every lease, pidfile and process, in every POSIX shell found here."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import answering_config, free_port, running_haproxy, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HOOK: Final = Path(__file__).parents[2] / "contrib/keepalived/chk_sentinel.sh"
SHELLS: Final = tuple(
    words
    for words in (("dash",), ("bash",), ("bash", "--posix"), ("mksh",), ("busybox", "sh"))
    if shutil.which(words[0])
)
MAY, MAY_NOT = 0, 1
UPTIME: Final = "1000.08 4000.12\n"
GOOD: Final = "OK 100308\n"
OVER: Final = "OK 100007\n"
DEADLINE_S: Final = 20.0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become someone else")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The four paths the hook is given, and the hook itself."""

    lease: Path
    pidfile: Path
    sign: Path
    proc: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        """The hook's arguments, in its order."""
        return tuple(map(str, (self.lease, self.pidfile, self.sign, self.proc)))

    def process(self, pid: int, state: str, name: str = "haproxy") -> None:
        """Make up one process, as proc(5) would show it."""
        (self.proc / str(pid)).mkdir(exist_ok=True)
        (self.proc / str(pid) / "stat").write_text(f"{pid} ({name}) {state} 1 {pid} {pid} 0 -1\n")

    def ask(self, shell: Sequence[str] = ()) -> int:
        """Run the hook as keepalived does (umask, descriptors); it never says a word."""
        done = subprocess.run(
            [*shell, str(HOOK), *self.arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            umask=0o177,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.stdout + done.stderr == b""
        return done.returncode


def place_in(folder: Path) -> Place:
    """Make a place with a clock, and with nothing else in it."""
    place = Place(
        lease=folder / "lease",
        pidfile=folder / "haproxy.pid",
        sign=folder / "hook-called",
        proc=folder / "proc",
    )
    place.proc.mkdir()
    (place.proc / "uptime").write_text(UPTIME)
    return place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give a place with a clock, and with nothing else in it."""
    return place_in(tmp_path)


@pytest.fixture
def serving(place: Place) -> Place:
    """Give a place where HAProxy lives, so that only a good lease can say no."""
    place.pidfile.write_text("42\n")
    place.process(42, "S")
    return place


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (GOOD, MAY),
        ("OK 100008\n", MAY),  # to the very hundredth
        ("OK 100009\n", MAY),  # 09 is not octal
        ("  OK\t100308  \n", MAY),
        ("OK 106008\n", MAY),  # the longest lease there is
        ("OK 100308\nmore\n", MAY),
        ("FAIL 100308\n", MAY_NOT),
        ("FAIL 106008\n", MAY_NOT),
    ],
)
def test_a_good_lease_is_the_verdict(
    place: Place, shell: tuple[str, ...], line: str, verdict: int
) -> None:
    """While the lease is good nothing else is looked at, neither pidfile nor process."""
    place.lease.write_text(line)
    assert place.ask(shell) == verdict


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(
    "line",
    [
        "100007",  # a hundredth too late
        "99999",
        "106208",  # further ahead than a lease can last
        "999999999999999999999999",
        "9223372036854775808",
        "0100308",
        "0x100308",
        "-100308",
        "+100308",
        "1003.08",
        "100308\r",
        "100308 junk",
        "08",
        "8",
        "",
        "$((100308))",
        "1e9",
    ],
)
@pytest.mark.parametrize(("state", "verdict"), [("S", MAY), ("Z", MAY_NOT)])
def test_any_other_lease_means_a_direct_look(
    place: Place, shell: tuple[str, ...], line: str, state: str, verdict: int
) -> None:
    """Whether such a lease says OK or FAIL, HAProxy's process decides."""
    place.pidfile.write_text("42\n")
    place.process(42, state)
    for word in ("OK", "FAIL"):
        place.lease.write_text(f"{word} {line}\n")
        assert place.ask(shell) == verdict


@pytest.mark.parametrize("text", ["", "\n", "OK", "FAIL 100308", "ok 100308\n", "\0\0\n", "\n\nOK"])
def test_a_torn_or_empty_lease_means_a_direct_look(serving: Place, text: str) -> None:
    """A line without its end was not written by sentinel, which replaces the file whole."""
    serving.lease.write_text(text)
    assert serving.ask() == MAY


def test_a_missing_lease_means_a_direct_look(serving: Place) -> None:
    """Before sentinel's first start there is no lease."""
    assert serving.ask() == MAY


@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling"])
@pytest.mark.parametrize("which", ["lease", "pidfile", "sign", "uptime"])
def test_nothing_but_plain_files_is_opened(serving: Place, which: str, kind: str) -> None:
    """A FIFO put in the place of a file would block the hook for ever."""
    serving.lease.write_text(GOOD if which == "sign" else OVER)
    path = serving.proc / "uptime" if which == "uptime" else getattr(serving, which)
    path.unlink(missing_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to("nowhere/at/all")
    assert serving.ask() == (MAY_NOT if which == "pidfile" else MAY)


@pytest.mark.parametrize(
    ("uptime", "verdict"),
    [("0.05 0.00", MAY), ("0.98 0.1", MAY), ("1.07 0.1", MAY), ("1.08", MAY), ("1.09 1", MAY_NOT)],
)
def test_the_first_second_after_boot_is_read_rightly(
    place: Place, uptime: str, verdict: int
) -> None:
    """Leading zeros of a young clock are not octal."""
    (place.proc / "uptime").write_text(f"{uptime}\n")
    place.lease.write_text("OK 108\n")
    assert place.ask() == verdict


@pytest.mark.parametrize(
    "uptime",
    ["", "\n", "1000\n", "1000.1\n", "1000.123 1\n", "ten.10 1\n", "9999999999.00 1\n", "-1.00"],
)
def test_without_a_clock_no_lease_is_good(serving: Place, uptime: str) -> None:
    """A clock that cannot be read leaves the direct look, and no sign."""
    serving.lease.write_text("FAIL 100308\n")
    (serving.proc / "uptime").write_text(uptime)
    assert serving.ask() == MAY
    assert not serving.sign.exists()


def test_a_missing_proc_is_a_no(place: Place) -> None:
    """Nothing can be known: the node does not claim the VIP."""
    place.lease.write_text(GOOD)
    place.pidfile.write_text("42\n")
    shutil.rmtree(place.proc)
    assert place.ask() == MAY_NOT


@pytest.mark.parametrize(
    ("state", "verdict"),
    [("S", MAY), ("R", MAY), ("D", MAY), ("I", MAY)]
    + [(state, MAY_NOT) for state in ("Z", "T", "t", "X", "x", "")],
)
def test_the_direct_look_judges_the_state(place: Place, state: str, verdict: int) -> None:
    """A zombie or stopped HAProxy serves nobody."""
    place.pidfile.write_text("42\n")
    place.process(42, state)
    assert place.ask() == verdict


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("haproxy-2.8", MAY),  # haproxy.executable names one of several that are installed
        ("haproxy-3.0.5-1", MAY),
        ("haproxy) Z 1", MAY),  # a name may be anything; the state follows the last parenthesis
        ("haproxy*", MAY),
        ("haprox", MAY_NOT),
        ("my-haproxy", MAY_NOT),
        ("nginx", MAY_NOT),
        ("a b", MAY_NOT),
        ("", MAY_NOT),
    ],
)
def test_the_direct_look_knows_haproxy_by_the_beginning_of_its_name(
    place: Place, shell: tuple[str, ...], name: str, verdict: int
) -> None:
    """A reused pid belongs to somebody else."""
    place.pidfile.write_text("42\n")
    place.process(42, "S", name)
    assert place.ask(shell) == verdict
    place.process(42, "Z", name)
    assert place.ask(shell) == MAY_NOT


@pytest.mark.parametrize(
    ("pids", "verdict"),
    [
        ("42\n", MAY),
        ("42", MAY),  # as start-stop-daemon's users like to write it
        ("7\n8\n42\n", MAY),
        ("\n\n42\n", MAY),
        ("garbage\n../42\n42\n", MAY),
        ("", MAY_NOT),
        ("7\n8\n", MAY_NOT),
        ("042\n", MAY_NOT),
        ("-42\n", MAY_NOT),
        ("../proc/42\n", MAY_NOT),
        ("9" * 40 + "\n", MAY_NOT),
        ("7\n" * 64 + "42\n", MAY_NOT),  # no HAProxy ever wrote so many
    ],
)
@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_any_living_process_of_the_pidfile_counts(
    place: Place, shell: tuple[str, ...], pids: str, verdict: int
) -> None:
    """The pidfile holds one pid a line, and the first living one is enough."""
    place.pidfile.write_text(pids)
    place.process(42, "S")
    place.process(7, "Z")
    assert place.ask(shell) == verdict


def test_a_long_line_ends_in_the_same_verdict(serving: Place) -> None:
    """Garbage of 100 kB without a line's end is only garbage."""
    serving.lease.write_bytes(b"OK 100308 " + b"\xff" * 100_000)
    assert serving.ask() == MAY


@pytest.mark.parametrize("line", [GOOD, "FAIL 100308\n", OVER, ""])
def test_the_sign_is_left_whatever_the_verdict(place: Place, line: str) -> None:
    """It tells when keepalived last called: the clock's reading, on a line of its own."""
    place.lease.write_text(line)
    place.ask()
    assert place.sign.read_text() == "1000.08\n"
    assert stat.S_IMODE(place.sign.stat().st_mode) == 0o600


def test_the_sign_is_written_in_place(serving: Place) -> None:
    """A reader never finds it empty, and keeps its mode and its watch."""
    serving.sign.write_text("998.01\nlonger than before")
    serving.sign.chmod(0o644)
    inode = serving.sign.stat().st_ino
    serving.ask()
    assert serving.sign.read_text().splitlines()[0] == "1000.08"
    assert serving.sign.stat().st_ino == inode
    assert stat.S_IMODE(serving.sign.stat().st_mode) == 0o644


@pytest.mark.parametrize("line", [GOOD, "FAIL 100308\n"])
def test_a_sign_that_cannot_be_written_changes_nothing(place: Place, line: str) -> None:
    """The hook's verdict does not hang on a file nobody needs for it."""
    place.lease.write_text(line)
    nowhere = Place(
        lease=place.lease, pidfile=place.pidfile, sign=place.sign / "no", proc=place.proc
    )
    assert nowhere.ask() == (MAY if line == GOOD else MAY_NOT)


@pytest.fixture(scope="module")
def garbage_place() -> Iterator[Place]:
    """Give a place that all examples of the property below share."""
    with tempfile.TemporaryDirectory() as folder:
        yield place_in(Path(folder))


lines = st.binary(max_size=80) | st.from_regex(rb"(OK|FAIL) 1[0-9]{5}\n?", fullmatch=True)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lease=lines, uptime=lines, pidfile=lines | st.just(b"42\n"), process=lines)
def test_whatever_is_read_the_answer_is_yes_or_no(
    garbage_place: Place, lease: bytes, uptime: bytes, pidfile: bytes, process: bytes
) -> None:
    """Under random bytes in every file: exit 0 or 1 and not a word."""
    place = garbage_place
    place.process(42, "S")
    place.lease.write_bytes(lease)
    place.pidfile.write_bytes(pidfile)
    (place.proc / "uptime").write_bytes(uptime)
    (place.proc / "42" / "stat").write_bytes(process)
    assert place.ask() in {MAY, MAY_NOT}


@pytest.fixture
def open_place() -> Iterator[Place]:
    """Give a place that every user may enter, with the hook in it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copy(HOOK, folder)
        yield place_in(Path(folder))


@needs_root
@pytest.mark.parametrize(
    ("line", "verdict"), [(GOOD, MAY), ("FAIL 100308\n", MAY_NOT), (OVER, MAY)]
)
def test_it_forks_nothing_and_needs_no_rights(open_place: Place, line: str, verdict: int) -> None:
    """With no process to spare, no PATH, no groups and no right to write, it answers the same."""
    open_place.lease.write_text(line)
    open_place.pidfile.write_text("42\n")
    open_place.process(42, "S")

    def alone(*argv: str) -> int:
        return subprocess.run(
            ["/usr/bin/prlimit", "--nproc=1", *argv],
            user=65534,
            group=65534,
            extra_groups=[],
            env={},
            stderr=subprocess.DEVNULL,
            timeout=DEADLINE_S,
            check=False,
        ).returncode

    hook = str(open_place.lease.parent / HOOK.name)
    assert alone("/bin/sh", "-c", "x=$(:)") != 0, "a fork should have been refused"
    assert alone(hook, *open_place.arguments) == verdict


def test_keepalived_can_end_it(place: Place) -> None:
    """SIGTERM at keepalived's timeout kills it; answered with exit 0 it would count as success."""
    with place.lease.open("wb") as lease:
        lease.truncate(1 << 30)  # an hour of reading
    with subprocess.Popen([str(HOOK), *place.arguments]) as hook:
        reading = Path(f"/proc/{hook.pid}/fd/0")
        wait_until(lambda: reading.readlink() == place.lease, "the hook reads")
        hook.send_signal(signal.SIGTERM)
        assert hook.wait(DEADLINE_S) == -signal.SIGTERM


@pytest.mark.real
def test_a_real_haproxy_is_seen_living_stopped_and_dead(place: Place, tmp_path: Path) -> None:
    """Without a lease, and with the kernel's own /proc."""
    with running_haproxy(answering_config(free_port()), tmp_path, flags=("-W", "-D")) as haproxy:
        real = Place(
            lease=place.lease, pidfile=haproxy.pidfile, sign=place.sign, proc=Path("/proc")
        )
        assert real.ask() == MAY
        os.kill(haproxy.main_pid, signal.SIGSTOP)
        wait_until(lambda: real.ask() == MAY_NOT, "the stopped master is seen")
        os.kill(haproxy.main_pid, signal.SIGCONT)
        wait_until(lambda: real.ask() == MAY, "the living master is seen")
        haproxy.kill()
        assert real.ask() == MAY_NOT
