"""The lease, the track file and the hook's sign, on real files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.config import Config, Hook
from sentinel.drivers.lease import KeepalivedFiles, Lease, read_lease, read_track

HOOK = Path(__file__).parents[2] / "contrib" / "keepalived" / "chk_sentinel.sh"


@pytest.fixture
def hook(tmp_path: Path) -> Hook:
    """Return the configuration of files in tmp_path."""
    return Hook(
        lease_file=str(tmp_path / "lease"),
        track_file=str(tmp_path / "track"),
        sign=str(tmp_path / "sign"),
        lease_s=3.0,
    )


def files_of(hook: Hook) -> KeepalivedFiles:
    """Return the writer of *hook*'s files, and of a priority file beside them."""
    return KeepalivedFiles(Config(hook=hook))


@pytest.fixture
def strict_umask() -> Iterator[None]:
    """Run under keepalived's umask, which leaves nothing to others."""
    before = os.umask(0o177)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    ("serving", "lease", "track"), [(True, "OK", "0\n"), (False, "FAIL", "1\n")]
)
@pytest.mark.usefixtures("strict_umask")
def test_verdict_is_written_for_hook_and_keepalived(
    hook: Hook, *, serving: bool, lease: str, track: str
) -> None:
    """Both files say the same, everyone may read them, and nothing else is left behind."""
    told = files_of(hook)
    told.write(serving=serving, now_s=1234.567)
    assert Path(hook.lease_file).read_text() == f"{lease} 123756\n"
    assert Path(hook.track_file).read_text() == track
    assert {
        stat.S_IMODE(Path(path).stat().st_mode) for path in (hook.lease_file, hook.track_file)
    } == {0o644}
    assert {path.name for path in Path(hook.lease_file).parent.iterdir()} == {
        "lease",
        "track",
        "track-priority",
    }
    assert (told.error, told.errors) == ("", 0)


def test_a_lowered_priority_is_a_negative_number(hook: Hook) -> None:
    """The priority file holds what keepalived adds; it is written only when that changes."""
    told, path = files_of(hook), Path(f"{hook.track_file}-priority")
    told.write(serving=True, now_s=1.0)
    assert path.read_text() == "0\n"
    told.write(serving=True, lowered=253, now_s=2.0)
    assert (path.read_text(), Path(hook.track_file).read_text()) == ("-253\n", "0\n")
    inode = path.stat().st_ino
    told.write(serving=True, lowered=253, now_s=3.0)
    assert path.stat().st_ino == inode


def test_lease_is_replaced_and_track_file_is_left_alone(hook: Hook) -> None:
    """Each renewal makes a new lease; keepalived is woken only by a change."""
    told = files_of(hook)
    told.write(serving=True, now_s=1.0)
    lease, track = Path(hook.lease_file).stat().st_ino, Path(hook.track_file).stat().st_ino
    with Path(hook.lease_file).open("rb") as reader:
        told.write(serving=True, now_s=2.0)
        assert reader.read() == b"OK 400\n"
    assert Path(hook.lease_file).stat().st_ino != lease
    assert Path(hook.track_file).stat().st_ino == track
    told.write(serving=False, now_s=3.0)
    assert Path(hook.track_file).read_text() == "1\n"
    assert Path(hook.track_file).stat().st_ino != track


@pytest.mark.parametrize("content", [None, "", "1\n", "garbage"])
def test_track_file_that_someone_changed_is_put_right(hook: Hook, content: str | None) -> None:
    """A missing track file counts as healthy for keepalived, so it is never left missing."""
    told = files_of(hook)
    told.write(serving=True, now_s=1.0)
    Path(hook.track_file).unlink()
    if content is not None:
        Path(hook.track_file).write_text(content)
    told.write(serving=True, now_s=2.0)
    assert Path(hook.track_file).read_text() == "0\n"


def test_missing_directory_is_reported_and_recovered_from(tmp_path: Path) -> None:
    """A failure is a text and a count; the next renewal that succeeds clears the text."""
    directory = tmp_path / "gone"
    told = files_of(
        Hook(lease_file=str(directory / "lease"), track_file=str(directory / "track"), lease_s=3.0)
    )
    told.write(serving=True, now_s=1.0)
    assert told.error == (
        f"{directory}/track: No such file or directory; "
        f"{directory}/track-priority: No such file or directory; "
        f"{directory}/lease: No such file or directory"
    )
    assert told.errors == 3
    directory.mkdir()
    told.write(serving=True, now_s=2.0)
    assert (told.error, told.errors) == ("", 3)
    assert said(str(directory / "lease"), 200) == "OK"


def test_one_unwritable_file_does_not_keep_the_other_from_being_written(hook: Hook) -> None:
    """When a directory stands in the track file's place, the lease is still renewed."""
    Path(hook.track_file).mkdir()
    told = files_of(hook)
    told.write(serving=False, now_s=1.0)
    assert told.error == f"{hook.track_file}: Is a directory"
    assert said(hook.lease_file, 100) == "FAIL"


def test_symbolic_link_is_replaced_not_followed(hook: Hook, tmp_path: Path) -> None:
    """Nothing outside the directory is written, wherever a link points."""
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    for path in (f"{hook.lease_file}.new", hook.track_file):
        Path(path).symlink_to(outside)
    told = files_of(hook)
    told.write(serving=True, now_s=1.0)
    assert outside.read_text() == "untouched"
    told.write(serving=True, now_s=2.0)
    assert (told.error, told.errors) == ("", 1)


@pytest.mark.real
@pytest.mark.parametrize("state", ["full", "read-only"])
def test_disk_that_takes_no_new_file(state: str) -> None:
    """On a full tmpfs FAIL is still said; on a read-only one it is an error; both recover."""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", FULL_DISK, state],
        capture_output=True,
        text=True,
        check=False,
    )
    expected = {
        "full": "['', 0, 'FAIL 500', '1', ['fill', 'lease', 'priority', 'track']]\n",
        "read-only": "['/mnt/track: Read-only file system; /mnt/lease: Read-only file system', "
        "2, 'OK 400', '0', ['lease', 'priority', 'track']]\n",
    }[state]
    assert (done.stderr, done.stdout) == ("", f"{expected}['', 'FAIL 600', '1']\n")


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from sentinel.config import Config, Hook
from sentinel.drivers.lease import KeepalivedFiles

def mount(*arguments): subprocess.run(["mount", *arguments], check=True)
def files(): return [Path(f"/mnt/{name}").read_text().strip() for name in ("lease", "track")]

mount("-t", "tmpfs", "-o", "size=64k", "none", "/mnt")
config = Config(run_dir="/mnt", hook=Hook(priority_file="/mnt/priority", lease_s=3.0))
told = KeepalivedFiles(config)
told.write(serving=True, now_s=1.0)
if sys.argv[1] == "full":
    try:
        with open("/mnt/fill", "wb", buffering=0) as fill:
            while True: fill.write(bytes(4096))
    except OSError: pass
else:
    mount("-o", "remount,ro", "/mnt")
told.write(serving=False, now_s=2.0)
print([told.error, told.errors, *files(), sorted(p.name for p in Path("/mnt").iterdir())])
if sys.argv[1] == "full": Path("/mnt/fill").unlink()
else: mount("-o", "remount,rw", "/mnt")
told.write(serving=False, now_s=3.0)
print([told.error, *files()])
"""


# --- the track file, read --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "number"),
    [(b"0\n", 0), (b"1\n", 1), (b" -253", -253), (b"", 0), (b"yes\n", 0), (b"\xff" * 4096, 0)],
)
def test_track_file_is_read_as_a_number(tmp_path: Path, content: bytes, number: int) -> None:
    """What is none counts as 0, as keepalived takes it."""
    path = tmp_path / "track"
    assert read_track(str(path)) == 0
    path.write_bytes(content)
    assert read_track(str(path)) == number


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    """A writer could feed a FIFO anything, and the hook opens none."""
    path = tmp_path / "track"
    os.mkfifo(path)
    with path.open("r+b", buffering=0) as fifo:  # both ends
        fifo.write(b"1\nOK 100300\n")
        assert read_track(str(path)) == 0
        assert read_lease(str(path), now_cs=100000) is None


# --- the hook's sign --------------------------------------------------------------------------


def test_age_of_the_last_call_is_read_from_the_sign(hook: Hook) -> None:
    """The sign holds the hook's /proc/uptime; its modification time means nothing."""
    Path(hook.sign).write_text("100.50\n")
    os.utime(hook.sign, (0, 0))
    assert files_of(hook).called_age_s(102.0) == 1.5


def test_hook_that_was_never_called_has_no_age(hook: Hook) -> None:
    """Without a sign nobody has called."""
    assert files_of(hook).called_age_s(102.0) is None


@pytest.mark.parametrize("content", ["", "garbage\n", "12", "1e9\n", "-5.00\n", "\0\0\0\0"])
def test_bad_sign_leaves_the_last_good_one(hook: Hook, content: str) -> None:
    """A sign that is being written, or that someone spoilt, is not taken for a call."""
    told = files_of(hook)
    Path(hook.sign).write_text(content)
    assert told.called_age_s(100.0) is None
    Path(hook.sign).write_text("100.00\n")
    assert told.called_age_s(101.0) == 1.0
    Path(hook.sign).write_text(content)
    assert told.called_age_s(102.0) == 2.0


def test_sign_from_before_the_boot_is_no_call(hook: Hook) -> None:
    """A sign from the future was left by an earlier boot."""
    Path(hook.sign).write_text("99999.00\n")
    assert files_of(hook).called_age_s(100.0) is None


def test_call_within_the_current_hundredth_has_age_zero(hook: Hook) -> None:
    """A call that was made after the clock was read is not older than nothing."""
    Path(hook.sign).write_text("100.01\n")
    assert files_of(hook).called_age_s(100.0) == 0.0


def test_fifo_in_place_of_the_sign_is_not_waited_for(hook: Hook) -> None:
    """Whatever the hook's user puts there, sentinel reads on."""
    os.mkfifo(hook.sign)
    assert files_of(hook).called_age_s(100.0) is None


# --- reading the lease ------------------------------------------------------------------------


def said(path: str, now_cs: int) -> str | None:
    """Return the word of a good lease."""
    lease = read_lease(path, now_cs=now_cs)
    return None if lease is None else lease.line.split()[0]


LEASES = [
    ("OK 1000\n", "OK"),
    ("FAIL 1000\n", "FAIL"),
    (" OK\t1000 \n", "OK"),
    ("OK 999\n", None),
    ("FAIL 999\n", None),
    ("OK 7199\n", "OK"),
    ("OK 7200\n", None),
    ("OK 1000", None),
    ("OK 01000\n", None),
    ("OK +1000\n", None),
    ("OK 1e3\n", None),
    ("OK 1000 more\n", None),
    ("OK\n", None),
    ("OKAY 1000\n", None),
    ("ok 1000\n", None),
    ("", None),
    ("\n", None),
    ("OK 99999999999999999999\n", None),
]


@pytest.mark.parametrize(("content", "verdict"), LEASES)
def test_lease_is_read_as_the_hook_reads_it(
    tmp_path: Path, content: str, verdict: str | None
) -> None:
    """At 10.00 s of uptime: good leases speak, all else is silence; the hook agrees."""
    lease = tmp_path / "lease"
    lease.write_text(content)
    assert said(str(lease), 1000) == verdict
    assert hook_passes(tmp_path) is (verdict == "OK")


def hook_passes(directory: Path) -> bool:
    """Run the hook at 10.00 s of uptime where no haproxy runs."""
    (directory / "uptime").write_text("10.00 1.00\n")
    nowhere = directory / "nowhere"
    done = subprocess.run(
        ["sh", HOOK, directory / "lease", nowhere, directory / "sign", directory], check=False
    )
    return done.returncode == 0


def test_missing_lease_is_no_verdict(tmp_path: Path) -> None:
    """Without a file nothing is said."""
    assert said(str(tmp_path / "lease"), 1000) is None


@given(
    serving=st.booleans(),
    now_s=st.floats(min_value=1, max_value=1e7),
    lease_s=st.floats(min_value=0.5, max_value=60),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, *, serving: bool, now_s: float, lease_s: float
) -> None:
    """A fresh lease carries its verdict for as long as it was given, and no longer."""
    directory = tmp_path_factory.getbasetemp()
    hook = Hook(
        lease_file=str(directory / "lease"), track_file=str(directory / "track"), lease_s=lease_s
    )
    files_of(hook).write(serving=serving, now_s=now_s)
    lease = read_lease(hook.lease_file, now_cs=int(now_s * 100))
    assert lease == Lease(serving=serving, deadline_cs=int((now_s + lease_s) * 100))
    assert read_lease(hook.lease_file, now_cs=lease.deadline_cs) == lease
    assert read_lease(hook.lease_file, now_cs=lease.deadline_cs + 1) is None
