"""Reading how HAProxy was started, from real processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import (
    DEFAULTS,
    EXECUTABLE,
    answering_config,
    free_port,
    running_haproxy,
    start_haproxy,
    wait_until,
)
from heldsockets import launcher
from namespaces import needs_root
from privileges import NOBODY, as_nobody, folder_for_all

from sentinel.config import Haproxy
from sentinel.processes.invocation import Invocation, configured, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SETTINGS: Final = Haproxy()
KNOWN: Final = configured(SETTINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretender:
    """A process that has the command line of a HAProxy and does nothing."""

    pid: int
    program: Path


@contextmanager
def pretender(
    folder: Path,
    words: Sequence[str],
    *,
    name: str = "",
    cwd: str = "/",
    user: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Pretender]:
    """Run a process with this command line: an ``echo`` that waits for room in a full pipe."""
    program = folder / "haproxy"
    shutil.copy("/bin/echo", program)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while _fills(writer):
        pass
    os.set_blocking(writer, True)
    argv = [name or str(program), *words]
    process = subprocess.Popen(
        argv, executable=program, stdout=writer, env=env or {}, cwd=cwd, user=user
    )
    try:
        cmdline = Path(f"/proc/{process.pid}/cmdline")
        wait_until(cmdline.read_bytes, "the kernel has laid the command line out")
        yield Pretender(pid=process.pid, program=program)
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)


def _fills(writer: int) -> bool:
    try:
        return os.write(writer, b"x" * 4096) > 0
    except BlockingIOError:
        return False


def read(pid: int) -> Invocation:
    """Read an invocation that has to be readable."""
    found = running(pid, SETTINGS, KNOWN)
    assert found is not None
    return found


def test_debians_command_line(tmp_path: Path) -> None:
    """Debian's unit leaves its configuration files; pidfile, master socket and mode go."""
    words = "-Ws -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid -S /run/haproxy-master.sock"
    with pretender(tmp_path, words.split()) as haproxy:
        found = read(haproxy.pid)
    assert found.argv == ("-f", "/etc/haproxy/haproxy.cfg")
    assert found.executable == str(haproxy.program)
    assert found.cwd == "/"


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("-sf 1 22 333 -x sockpair@4 -Ws -f a -f b", "-f a -f b"),
        ("-f a -st 1 2", "-f a"),
        ("-W -D -d -db -q -V -c -4 -f a", "-4 -f a"),
        ("-C /etc -n 10 -N 5 -m 100 -L peer -f a", "-C /etc -n 10 -N 5 -m 100 -L peer -f a"),
        ("-dr -dW -dV -dG -dL -dK -dD -dMfail -dA/tmp/x.tar -f a", "-dr -dW -dV -dG -f a"),
        ("-dt h1:verbose -cc defined(X) -f a", "-f a"),
        ("-W -- a -f b", "-- a -f b"),
        ("-f a -x", "-f a"),
        ("-p", ""),
    ],
)
def test_only_options_that_a_check_depends_on_are_kept(
    tmp_path: Path, words: str, kept: str
) -> None:
    """Whatever else HAProxy was started with, and has added in a reload, is left out."""
    with pretender(tmp_path, words.split()) as haproxy:
        assert read(haproxy.pid).argv == tuple(kept.split())


def test_what_every_start_sets_anew_is_left_out(tmp_path: Path) -> None:
    """HAProxy's and systemd's own variables go, the administrator's stay."""
    env = {"CONFIG": "/x", "EXTRAOPTS": "", "HAPROXY_MINE": "1", "NOTIFY_SOCKET": "/run/n"}
    env |= {"HAPROXY_MWORKER_WAIT_ONLY": "1", "INVOCATION_ID": "abc", "HAPROXY_CLI": "sockpair@3"}
    with pretender(tmp_path, ["-f", "/a"], env=env) as haproxy:
        found = read(haproxy.pid)
    assert found.env == (("CONFIG", "/x"), ("EXTRAOPTS", ""), ("HAPROXY_MINE", "1"))


def test_what_loads_code_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What root's own programs would not inherit from another user (ld.so(8))."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/ours")
    env = {"LD_PRELOAD": "", "LD_LIBRARY_PATH": "", "GCONV_PATH": "/x", "MALLOC_CHECK_": "3"}
    env |= {"GLIBC_TUNABLES": "", "TMPDIR": "/x", "LDAP": "mine"}
    with pretender(tmp_path, ["-f", "/a"], env=env) as haproxy:
        found = read(haproxy.pid)
    assert found.env == (("LDAP", "mine"), ("LD_LIBRARY_PATH", "/opt/ours"))


@pytest.fixture
def public() -> Iterator[Path]:
    """Make a folder of root's that everybody may enter."""
    with folder_for_all() as folder:
        yield folder


@needs_root
def test_another_users_process_may_name_roots_files(public: Path) -> None:
    """A HAProxy that has become its ``user`` may be broken into: nothing may come of its words."""
    (public / "a.cfg").touch()
    words = ["-f", str(public / "a.cfg"), "-C", str(public)]
    ours = configured(SETTINGS).env
    with pretender(public, words, user=NOBODY, env={"MINE": "1"}) as haproxy:
        found = read(haproxy.pid)
        assert (found.argv, found.env, found.cwd) == (tuple(words), ours, "/")
        assert found.executable == str(haproxy.program)
        os.chown(haproxy.program, NOBODY, 0)
        assert read(haproxy.pid).executable == SETTINGS.executable


@needs_root
@pytest.mark.parametrize("words", ["-f F/theirs/a.cfg", "-f F/theirs", "-f F -C F/theirs"])
def test_another_users_process_may_not_name_its_own_files(public: Path, words: str) -> None:
    """They would be executed: a configuration may load Lua while it is checked."""
    (public / "theirs").mkdir()
    (public / "theirs/a.cfg").touch()
    os.chown(public / "theirs", NOBODY, 0)
    argv = words.replace("F", str(public)).split()
    with pretender(public, argv, user=NOBODY) as haproxy:
        found = read(haproxy.pid)
    assert found == replace(KNOWN, doubt=found.doubt)
    assert f"may decide what '{public}/theirs" in found.doubt
    with pretender(public, argv) as haproxy:
        found = read(haproxy.pid)
    assert (found.argv, found.doubt) == (tuple(argv), ""), "root may"


@needs_root
def test_another_users_process_may_not_stand_anywhere(public: Path) -> None:
    """The configuration's relative files are looked for there."""
    words = ["-f", str(public)]
    with pretender(public, words, user=NOBODY, cwd="/tmp") as haproxy:
        found = read(haproxy.pid)
    assert found == replace(KNOWN, doubt=found.doubt)
    assert "may decide what '/tmp' is" in found.doubt


@needs_root
def test_another_users_process_may_name_what_is_known(public: Path) -> None:
    """What root's process named, or the settings name, is no less root's for being a link."""
    (public / "a.cfg").symlink_to("/etc/hosts")
    words = ["-f", str(public / "a.cfg")]
    with pretender(public, words, user=NOBODY) as haproxy:
        assert "a.cfg" in read(haproxy.pid).doubt
        before = replace(KNOWN, argv=tuple(words))
        named = Haproxy(config=(words[1],))
        for settings, known in ((SETTINGS, before), (named, replace(KNOWN, doubt="of old"))):
            found = running(haproxy.pid, settings, known)
            assert found is not None
            assert (found.argv, found.doubt) == (tuple(words), "")
    with pretender(public, words, user=NOBODY, cwd=str(public)) as haproxy:
        found = running(haproxy.pid, SETTINGS, before)
        assert found is not None
        assert (found.argv, found.cwd, found.doubt) == (tuple(words), str(public), "")


@needs_root
@pytest.mark.parametrize("use", ['bind "${MINE}"', 'bind "$MINE"', ".if defined(MINE)"])
def test_variables_of_another_users_process_are_in_doubt(public: Path, use: str) -> None:
    """Those that its configuration makes use of, unless they are known to be so, or ours."""
    (public / "a.cfg").write_text(use)
    with pretender(public, ["-f", str(public)], user=NOBODY, env={"MINE": "1"}) as haproxy:
        found = read(haproxy.pid)
        assert found.env == configured(SETTINGS).env
        assert found.doubt.startswith("MINE of HAProxy's service cannot be known")
        before = replace(found, env=(("MINE", "1"),))
        assert running(haproxy.pid, SETTINGS, before) == replace(before, doubt="")
        (public / "a.cfg").write_text("bind $OTHER MINE")
        assert read(haproxy.pid).doubt == ""


@needs_root
def test_variables_that_may_not_be_read_are_in_doubt(public: Path) -> None:
    """All that the configuration makes use of and we do not have."""
    (public / "a.cfg").write_text('bind "$MINE"\nlocalpeer "$HAPROXY_LOCALPEER"\nlog "$PATH"')
    with pretender(public, ["-f", str(public)]) as haproxy, as_nobody():
        found = read(haproxy.pid)
    assert found.doubt.startswith("MINE of HAProxy's service cannot be known")
    assert found.argv == ("-f", str(public))


@pytest.mark.real
def test_inherited_sockets_are_counted(tmp_path: Path) -> None:
    """Those that were handed to this very process; its reload does not change them."""
    ports = (free_port(), free_port())
    binds = "".join(f"bind fd@{n}\n" for n in (3, 4))
    config = f"{DEFAULTS}\nfrontend fe\n{binds}"
    held = launcher(tmp_path, *ports)
    with running_haproxy(config, tmp_path, flags=("-Ws",), executable=held) as haproxy:
        before = read(haproxy.main_pid)
        haproxy.reload()
        after = read(haproxy.main_pid)
    assert (before.inherited, after) == (len(ports), before)
    assert not [name for name, _ in before.env if name.startswith("LISTEN_")]


@pytest.mark.parametrize("listen_fds", ["1", "", "-1", "x", "99999"])
def test_sockets_of_another_process_are_not_inherited(tmp_path: Path, listen_fds: str) -> None:
    """The variables may come down from whoever was started with sockets (sd_listen_fds(3))."""
    env = {"LISTEN_PID": "1", "LISTEN_FDS": listen_fds}
    with pretender(tmp_path, ["-f", "/a"], env=env) as haproxy:
        assert read(haproxy.pid).inherited == 0


def test_relative_files_belong_to_the_processs_folder(tmp_path: Path) -> None:
    """A relative path is looked for where the process was started."""
    with pretender(tmp_path, ["-f", "a.cfg"], cwd=str(tmp_path)) as haproxy:
        assert read(haproxy.pid).files == (str(tmp_path / "a.cfg"),)


def test_a_name_without_path_gives_the_running_program(tmp_path: Path) -> None:
    """Started by name alone, the program is the one that runs."""
    with pretender(tmp_path, ["-f", "/a"], name="haproxy") as haproxy:
        assert read(haproxy.pid).executable == str(haproxy.program)


def test_the_name_of_a_process_is_not_executed(tmp_path: Path) -> None:
    """Everybody may call himself as he likes."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy("/bin/true", other / "haproxy")
    with pretender(tmp_path, ["-f", "/a"], name=str(other / "haproxy")) as haproxy:
        assert read(haproxy.pid).executable == str(haproxy.program)
        configured_so = running(haproxy.pid, Haproxy(executable=str(other / "haproxy")), KNOWN)
    assert configured_so is not None
    assert configured_so.executable == str(other / "haproxy"), "a wrapper, for all we know"


def test_a_program_that_others_may_write_is_not_executed(tmp_path: Path) -> None:
    """Nor is another program than HAProxy."""
    with pretender(tmp_path, ["-f", "/a"]) as haproxy:
        haproxy.program.chmod(0o757)
        assert read(haproxy.pid).executable == SETTINGS.executable
        haproxy.program.chmod(0o755)
        haproxy.program.rename(tmp_path / "python")
        assert read(haproxy.pid).executable == SETTINGS.executable


def test_a_replaced_program_is_found_again(tmp_path: Path) -> None:
    """After a package upgrade the next start runs what lies there now."""
    with pretender(tmp_path, ["-f", "/a"], name="haproxy") as haproxy:
        haproxy.program.unlink()
        shutil.copy("/bin/true", haproxy.program)
        assert Path(f"/proc/{haproxy.pid}/exe").readlink().name == "haproxy (deleted)"
        assert read(haproxy.pid).executable == str(haproxy.program)


def test_a_removed_program_gives_the_configured_one(tmp_path: Path) -> None:
    """A program that is gone for good is replaced by the one that the settings name."""
    with pretender(tmp_path, ["-f", "/a"]) as haproxy:
        haproxy.program.unlink()
        found = running(haproxy.pid, Haproxy(executable="/bin/true"), KNOWN)
    assert found is not None
    assert found.executable == "/bin/true"


def test_another_program_is_not_haproxy(tmp_path: Path) -> None:
    """A pid that was reused, or a child before its exec, is never taken for HAProxy."""
    with pretender(tmp_path, ["-f", "/a"], name="/usr/bin/vim") as other:
        assert running(other.pid, SETTINGS, KNOWN) is None


def test_a_dead_process_tells_nothing() -> None:
    """A process that has ended, or is a zombie, has no command line."""
    process = subprocess.Popen(["/bin/true"])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert running(process.pid, SETTINGS, KNOWN) is None
    finally:
        process.wait()
    assert running(process.pid, SETTINGS, KNOWN) is None


def test_settings_speak_until_a_process_can() -> None:
    """Without a process the settings name the program and the files."""
    found = configured(Haproxy(executable="/opt/haproxy", config=("/a", "/b")))
    assert (found.executable, found.argv) == ("/opt/haproxy", ("-f", "/a", "-f", "/b"))
    assert found.files == ("/a", "/b")


def test_files_of_a_folder(tmp_path: Path) -> None:
    """Of a folder HAProxy loads the visible *.cfg files in order, and no folders."""
    for name in ("b.cfg", "a.cfg", ".hidden.cfg", "a.cfg.bak", "notes"):
        (tmp_path / name).touch()
    (tmp_path / "c.cfg").mkdir()
    found = Invocation(executable="x", argv=("-f", str(tmp_path)), env=(), cwd="/")
    assert found.files == (str(tmp_path / "a.cfg"), str(tmp_path / "b.cfg"))


def test_what_cannot_be_looked_at_is_a_file(tmp_path: Path) -> None:
    """HAProxy refuses to start with it in its folder; a file system that fails is no other."""
    (tmp_path / "a.cfg").symlink_to("n" * 300)
    (tmp_path / "b.cfg").symlink_to("nothing")
    found = Invocation(executable="x", argv=("-f", str(tmp_path)), env=(), cwd="/")
    assert found.files == (str(tmp_path / "a.cfg"), str(tmp_path / "b.cfg"))


def test_files_below_a_changed_folder(tmp_path: Path) -> None:
    """-C changes the folder before any file is loaded, wherever it stands."""
    argv = ("-f", "a", "-C", "conf", "--", "b", "/c")
    found = Invocation(executable="x", argv=argv, env=(), cwd=str(tmp_path))
    assert found.files == (str(tmp_path / "conf/a"), str(tmp_path / "conf/b"), "/c")


@pytest.mark.real
def test_a_real_haproxy_is_the_same_after_a_reload(tmp_path: Path) -> None:
    """A reload adds options and variables; the service's invocation stays what it was."""
    with running_haproxy(answering_config(free_port()), tmp_path) as haproxy:
        before = read(haproxy.main_pid)
        haproxy.reload()
        assert "WAIT_ONLY" in Path(f"/proc/{haproxy.main_pid}/environ").read_text()
        assert read(haproxy.main_pid) == before
    assert before.executable == EXECUTABLE
    assert before.files == (str(haproxy.config),)


@pytest.mark.real
def test_a_chrooted_haproxy_with_absolute_files(tmp_path: Path) -> None:
    """A single process in a chroot is read all the same when its files are absolute."""
    config = f"{answering_config(free_port())}\nglobal\n    chroot {tmp_path}\n"
    with running_haproxy(config, tmp_path, flags=()) as haproxy:
        found = read(haproxy.main_pid)
    assert (found.cwd, found.files) == ("/", (str(haproxy.config),))


@pytest.mark.real
def test_a_chrooted_haproxy_with_relative_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has left the folder of its relative files is not guessed at."""
    monkeypatch.chdir(tmp_path)
    config = Path("haproxy.cfg")
    config.write_text(f"{answering_config(free_port())}\nglobal\n    chroot {tmp_path}\n")
    haproxy = start_haproxy(config, flags=())
    try:
        root = Path(f"/proc/{haproxy.process.pid}/root")
        wait_until(lambda: root.readlink() == tmp_path, "haproxy has changed its root")
        assert running(haproxy.process.pid, SETTINGS, KNOWN) is None
    finally:
        haproxy.kill()
