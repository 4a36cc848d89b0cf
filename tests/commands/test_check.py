"""``sentinel check``: the verdict of hook and track file, in words; the hook is run as well."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import (
    EXECUTABLE,
    answering_config,
    free_port,
    running_haproxy,
    start_haproxy,
    wait_until,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentinel.commands import check

if TYPE_CHECKING:
    from collections.abc import Iterator

HOOK: Final = Path(__file__).parents[2] / "contrib/keepalived/chk_sentinel.sh"
DEADLINE_S: Final = 20.0
LEAD_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What both of them look at."""

    lease: Path
    pidfile: Path
    track: Path
    config: Path

    def hook(self) -> int:
        """Run the hook."""
        argv = [str(HOOK), str(self.lease), str(self.pidfile), str(self.lease.with_name("sign"))]
        return subprocess.run(argv, timeout=DEADLINE_S, check=False).returncode

    def check(self) -> int:
        """Run the command."""
        parser = argparse.ArgumentParser(prog="sentinel")
        check.add_parser(parser.add_subparsers(required=True))
        args = parser.parse_args(["check", "--config", str(self.config)])
        return int(args.run(args))

    def verdict(self) -> int:
        """Run both; they must agree."""
        said = self.check()
        assert said == self.hook()
        return said

    def lease_for(self, word: str, left_s: float) -> None:
        """Write a lease that is good for so long."""
        deadline_cs = round((time.clock_gettime(time.CLOCK_BOOTTIME) + left_s) * 100)
        self.lease.write_text(f"{word} {deadline_cs}\n")


def place_in(folder: Path) -> Place:
    """Prepare a place without lease or pidfile."""
    place = Place(
        lease=folder / "lease",
        pidfile=folder / "haproxy.pid",
        track=folder / "track",
        config=folder / "sentinel.toml",
    )
    place.config.write_text(f'run_dir = "{folder}"\nhaproxy.pidfile = "{place.pidfile}"\n')
    return place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give a place without lease or pidfile."""
    return place_in(tmp_path)


@pytest.fixture(scope="module")
def haproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Give the pid of a real HAProxy."""
    folder = tmp_path_factory.mktemp("haproxy")
    with running_haproxy(answering_config(free_port()), folder) as running:
        yield running.main_pid


@pytest.mark.parametrize(("word", "verdict"), [("OK", 0), ("FAIL", 1)])
def test_a_good_lease_is_the_verdict(
    place: Place, capsys: pytest.CaptureFixture[str], word: str, verdict: int
) -> None:
    """Nothing else is looked at while it is good, and it says for how long."""
    place.lease_for(word, LEAD_S)
    assert place.verdict() == verdict
    said = capsys.readouterr().out
    assert said.startswith(f"{word}: by sentinel's lease, good for ")
    assert ("see sentinel status" in said) is (word == "FAIL")


@pytest.mark.parametrize(
    "lease", ["", "OK", "OK\n", "OK x\n", "MAYBE 1\n", "OK 1\n", "OK 99999999999\n", "OK 1"]
)
@pytest.mark.real
def test_a_bad_lease_leaves_the_verdict_to_the_process(
    place: Place, haproxy: int, capsys: pytest.CaptureFixture[str], lease: str
) -> None:
    """Over, garbage or half written: the process of the pidfile decides."""
    place.lease.write_text(lease)
    assert place.verdict() == 1
    place.pidfile.write_text(f"{haproxy}\n")
    assert place.verdict() == 0
    assert f"haproxy {haproxy}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pidfile", "verdict"),
    [
        ("{pid}", 0),
        ("{pid}\n", 0),
        ("  {pid}\t\n", 0),
        ("{pid} and more\n", 0),
        ("1\n{pid}\n", 0),
        ("garbage\n{pid}\n", 0),
        ("\n\n{pid}\n", 0),
        ("1 {pid}\n", 1),
        ("0{pid}\n", 1),
        ("{pid}\r\n", 1),
        ("+{pid}\n", 1),
        ("9999999999\n", 1),
        ("", 1),
        ("\n" * 64 + "{pid}\n", 1),
        ("\n" * 63 + "{pid}\n", 0),
    ],
)
@pytest.mark.real
def test_pidfiles_are_read_alike(place: Place, haproxy: int, pidfile: str, verdict: int) -> None:
    """The first word of each of the first lines, where it is a number as the hook knows them."""
    place.pidfile.write_bytes(pidfile.format(pid=haproxy).encode())
    assert place.verdict() == verdict


def test_what_is_no_pidfile_is_not_waited_for(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, a pipe that nobody writes to, and nothing at all."""
    assert place.verdict() == 1
    os.mkfifo(place.pidfile)
    assert place.verdict() == 1
    place.pidfile.unlink()
    place.pidfile.mkdir()
    assert place.verdict() == 1
    assert capsys.readouterr().out.count("there is no such plain file") == 3


@pytest.mark.real
def test_states_of_a_process_are_judged_alike(place: Place, tmp_path: Path) -> None:
    """Running, stopped, dead but not buried, gone; and somebody who is no HAProxy."""
    config = tmp_path / "haproxy.cfg"
    config.write_text(answering_config(free_port()))
    haproxy = start_haproxy(config)
    try:
        place.pidfile.write_text(f"{haproxy.process.pid}\n")
        wait_until(lambda: place.hook() == 0, "it has become haproxy")
        assert place.verdict() == 0
        os.kill(haproxy.process.pid, signal.SIGSTOP)
        wait_until(lambda: place.hook() == 1, "it is stopped")
        assert place.verdict() == 1
        haproxy.process.kill()
        os.waitid(os.P_PID, haproxy.process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from now on
        assert place.verdict() == 1
    finally:
        haproxy.kill()
    assert place.verdict() == 1
    place.pidfile.write_text(f"{os.getpid()}\n")
    assert place.verdict() == 1


@pytest.mark.real
def test_a_haproxy_of_another_name_is_known(place: Place, tmp_path: Path) -> None:
    """Several versions are installed side by side, and haproxy.executable names one."""
    executable = tmp_path / "haproxy-2.8.3-is-long"
    shutil.copyfile(EXECUTABLE, executable)
    executable.chmod(0o755)
    config = tmp_path / "haproxy.cfg"
    config.write_text(answering_config(free_port()))
    with subprocess.Popen([str(executable), "-f", str(config)]) as haproxy:
        try:
            place.pidfile.write_text(f"{haproxy.pid}\n")
            wait_until(lambda: place.hook() == 0, "it has become haproxy-2.8.3-is")
            assert place.verdict() == 0
        finally:
            haproxy.kill()


# --- the track file -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("0\n", 0), ("0", 0), ("", 0), ("-0\n", 0), ("text\n", 0), ("1\n", 1), (" -3", 1), ("254", 1)],
)
def test_the_track_file_is_heard_beside_the_lease(
    place: Place, capsys: pytest.CaptureFixture[str], text: str, verdict: int
) -> None:
    """Both reach keepalived: FAULT by one is not undone by the other."""
    place.lease_for("OK", LEAD_S)
    place.track.write_text(text)
    assert place.check() == verdict
    said = capsys.readouterr().out
    assert (f"{place.track} says " in said) is bool(verdict)
    place.lease_for("FAIL", LEAD_S)
    assert place.check() == 1


@pytest.mark.real
def test_a_track_file_that_was_left_is_told_with_its_cure(
    place: Place, haproxy: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hook says yes to a HAProxy that lives, and keepalived stays in FAULT all the same."""
    place.pidfile.write_text(f"{haproxy}\n")
    place.track.write_text("1\n")
    place.lease.write_text("FAIL 1\n")  # of long ago
    assert (place.hook(), place.check()) == (0, 1)
    said = capsys.readouterr().out
    assert said.startswith("FAIL: there is no valid lease")
    assert f"{place.track} was left at 1" in said
    assert f"systemctl start sentinel, or echo 0 > {place.track}" in said
    assert f"haproxy {haproxy}" in said


@pytest.mark.parametrize("kind", ["fifo", "folder", "endless"])
def test_what_is_no_track_file_is_neither_waited_for_nor_read_whole(
    place: Place, kind: str
) -> None:
    """As keepalived takes it, that is 0."""
    place.lease_for("OK", LEAD_S)
    match kind:
        case "fifo":
            os.mkfifo(place.track)
        case "folder":
            place.track.mkdir()
        case _:
            place.track.symlink_to("/dev/zero")
    assert place.check() == 0


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lease=st.one_of(st.binary(max_size=40), st.from_regex(rb"(OK|FAIL) [0-9]{0,12}\n?")),
    pidfile=st.one_of(st.binary(max_size=40), st.from_regex(rb"([0-9 \t]{0,12}\n){0,3}")),
)
def test_they_agree_on_anything(lease: bytes, pidfile: bytes) -> None:
    """Whatever lies in the two files, one verdict comes of it."""
    with tempfile.TemporaryDirectory() as folder:
        place = place_in(Path(folder))
        place.lease.write_bytes(lease)
        place.pidfile.write_bytes(pidfile)
        place.verdict()


def test_an_unusable_configuration_is_told(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verdict is then one of the default files, and nobody should take it for another."""
    place.config.write_text("colour = 1\n")
    assert place.check() in {0, 1}
    assert f"sentinel config check {place.config}" in capsys.readouterr().err
