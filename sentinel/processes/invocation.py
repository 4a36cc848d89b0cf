"""How the service runs HAProxy: which program, with which options, environment and folder.

Read from the running process, whose command line is the only place that always tells the truth,
and kept beyond its death. What only matters to a process that serves is left out, so that the same
service gives the same Invocation after every start and reload.

An Invocation is executed with our own rights, which may be root's, and a process may change what it
says of itself. So one that runs as another user is believed only where nothing can come of it: it
may point at files of root's, and its environment is ours. What was not believed for that reason, or
may not be read, is told as a doubt.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel.processes import arguments, procfs, trust

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from sentinel.config import Haproxy

#: SD_LISTEN_FDS_START, sd_listen_fds(3).
FIRST_INHERITED: Final = 3
#: More sockets than any configuration binds; a descriptor each for ``haproxy -c``.
INHERITED_MAX: Final = 512
_COUNT: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
#: Options that decide whether a configuration is valid (HAProxy management guide, section 3). The
#: others only matter to a process that serves, and some, such as -dA, would write files.
_TAKES_VALUE: Final = frozenset("CLNfmn")
_STANDS_ALONE: Final = ("-4", "-dG", "-dV", "-dW", "-dr")
#: What HAProxy sets itself, for its next reload, and what systemd sets anew at every start. With
#: HAPROXY_MWORKER_WAIT_ONLY, which every reloaded master carries, ``haproxy -c`` would not even
#: read the configuration.
_SET_AT_START: Final = frozenset(
    {
        "HAPROXY_CFGFILES",
        "HAPROXY_CLI",
        "HAPROXY_LOCALPEER",
        "HAPROXY_MASTER_CLI",
        "HAPROXY_MWORKER",
        "HAPROXY_MWORKER_REEXEC",
        "HAPROXY_MWORKER_WAIT_ONLY",
        "HAPROXY_PROCESSES",
        "HAPROXY_STARTUP_VERSION",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "SYSTEMD_EXEC_PID",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    }
)
#: What makes the C library load or write other files: privileged programs do not inherit it
#: (secure-execution mode in ld.so(8)). What we run has of these what we have ourselves.
_LOADING: Final = frozenset(
    {
        "GCONV_PATH",
        "GETCONF_DIR",
        "GLIBC_TUNABLES",
        "HOSTALIASES",
        "LOCALDOMAIN",
        "LOCPATH",
        "NIS_PATH",
        "NLSPATH",
        "RESOLV_HOST_CONF",
        "RES_OPTIONS",
        "TMPDIR",
        "TZDIR",
    }
)
_LOADING_PREFIXES: Final = ("LD_", "MALLOC_")
#: "$NAME", "${NAME}" and ``.if defined(NAME)`` (configuration manual, 2.3 and 2.4).
_VARIABLE: Final = re.compile(rb"(?:\$\{?|\bdefined\()([A-Za-z_][A-Za-z0-9_]*)")
_VARIABLES_NAMED_MAX: Final = 3
_PATH_CHARACTERS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """How the service runs HAProxy: *argv* without the program's name and runtime-only options.

    *inherited* counts the sockets that the service manager holds and hands over, as descriptors
    from FIRST_INHERITED up (sd_listen_fds(3)); a configuration names them ``fd@3``, ``fd@4``, ...

    *doubt* says what of it may be otherwise, so that the service may start with a configuration
    that ``haproxy -c`` refuses, and what to do about it; empty where there is none.
    """

    executable: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    inherited: int = 0
    doubt: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files and folders named by -f and after ``--``, absolute, in order."""
        return arguments.parse((self.executable, *self.argv)).paths(self.cwd)

    @property
    def files(self) -> tuple[str, ...]:
        """The configuration files in HAProxy's order; of a folder only *.cfg, none hidden."""
        return tuple(str(file) for path in self.paths for file in _files(Path(path)))


def configured(settings: Haproxy) -> Invocation:
    """Return what the settings say, for as long as no process could be asked."""
    return Invocation(
        executable=settings.executable,
        argv=tuple(word for file in settings.config for word in ("-f", file)),
        env=_lasting(os.environ.items()),
        cwd="/",
    )


def running(pid: int, settings: Haproxy, known: Invocation) -> Invocation | None:
    """Read how process *pid* was started; None when it is not, or not yet, a HAProxy to be read.

    A service manager's child carries the manager's name until it executes HAProxy. What is *known*
    of the service stands where its process cannot be believed. Raises OSError.
    """
    is_us = trust.runs_as_us(pid)
    said = _read(pid, settings, is_us=is_us)
    if trust.runs_as_us(pid) is not is_us:  # it has become another meanwhile
        return None
    return said if is_us or said is None else _believed(said, known, configured(settings))


def _believed(said: Invocation, *known: Invocation) -> Invocation:
    """Take of what another user's process says what nothing can come of, and doubt the rest."""
    basis = next((one for one in known if not _not_ours_alone(said, one)), None)
    if basis is None:
        basis = known[-1] if known[0].doubt else known[0]
        path = _not_ours_alone(said, basis)[:_PATH_CHARACTERS]
        doubt = f"HAProxy runs as another user and may decide what {path!r} is"
        return replace(basis, doubt=f"{doubt}: name the files it is started with in haproxy.config")
    if said.env == basis.env:
        return said
    ours = _lasting(os.environ.items())
    differing = {name for name, _ in set(said.env) - set(ours)}
    return _doubting(replace(said, env=ours), differing & _variables(said.files))


def _doubting(invocation: Invocation, names: Collection[str]) -> Invocation:
    """Say of which variables, that its configuration makes use of, the values are not known."""
    if not names:
        return invocation
    listed = ", ".join(sorted(names)[:_VARIABLES_NAMED_MAX])
    doubt = f"{listed} of HAProxy's service cannot be known: give sentinel.service the same"
    return replace(invocation, doubt=doubt)


def _variables(files: Iterable[str]) -> set[str]:
    """Return the variables that these files make use of, as far as they can be read."""
    found: set[str] = set()
    for file in files:
        with suppress(OSError):
            if Path(file).is_file():
                found.update(map(os.fsdecode, _VARIABLE.findall(Path(file).read_bytes())))
    return found


def _read(pid: int, settings: Haproxy, *, is_us: bool) -> Invocation | None:
    folder = Path("/proc", str(pid))
    try:
        words = [os.fsdecode(word) for word in (folder / "cmdline").read_bytes().split(b"\0")[:-1]]
    except OSError:
        return None
    if not words or not _is_named(words[0], settings):
        return None
    cwd = _working_directory(folder)
    if not cwd and not arguments.parse(words).absolute:
        return None
    ours = dict(os.environ)
    theirs = _environment(folder)
    found = Invocation(
        executable=_executable(pid, words[0], settings, is_us=is_us),
        argv=tuple(_checked_options(words[1:])),
        env=_lasting(_without_loading((ours if theirs is None else theirs).items(), ours.items())),
        cwd=cwd or "/",
        inherited=_inherited(pid, theirs or {}),
    )
    if theirs is not None:
        return found
    return _doubting(found, _variables(found.files) - ours.keys() - _SET_AT_START)


def _is_named(program: str, settings: Haproxy) -> bool:
    return Path(program).name.startswith(("haproxy", Path(settings.executable).name))


def _not_ours_alone(said: Invocation, known: Invocation) -> str:
    """Return the first file or folder of which others than root and us decide, or "".

    What is named as in what is *known* may be whatever it is.
    """
    if (said.argv, said.cwd) == (known.argv, known.cwd):
        return ""
    words = arguments.parse((said.executable, *said.argv))
    folders = (said.cwd, os.path.normpath(Path(said.cwd, words.folder)))
    named = words.absolute and said.argv == known.argv
    paths = (said.cwd,) if named else chain(folders, said.paths, said.files)
    return next((path for path in paths if not trust.leads_to_ours_alone(path)), "")


def _executable(pid: int, name: str, settings: Haproxy, *, is_us: bool) -> str:
    """Return the program that the next start would run, also after a package upgrade.

    The *name* that a process gives itself is believed only where it is the configured one, which
    may be a wrapper or a link.
    """
    if name == settings.executable and os.access(name, os.X_OK):
        return name
    program = procfs.program(pid) or ""
    safe = _is_file_of_ours if is_us else trust.leads_to_ours_alone
    usable = _is_named(program, settings) and safe(program) and os.access(program, os.X_OK)
    return program if usable else settings.executable


def _is_file_of_ours(path: str) -> bool:
    try:
        return trust.is_ours_alone(Path(path).stat())
    except OSError:
        return False


def _environment(folder: Path) -> dict[str, str] | None:
    """Return the process's environment; None where we may not read it."""
    try:
        words = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    pairs = (os.fsdecode(word).partition("=") for word in words if word)
    return {name: value for name, _, value in pairs}


def _without_loading(
    theirs: Iterable[tuple[str, str]], ours: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """Take from *ours* what decides which files are loaded, and the rest from *theirs*."""
    yield from (pair for pair in theirs if not _loads(pair[0]))
    yield from (pair for pair in ours if _loads(pair[0]))


def _loads(name: str) -> bool:
    return name in _LOADING or name.startswith(_LOADING_PREFIXES)


def _inherited(pid: int, env: Mapping[str, str]) -> int:
    """Return how many sockets were handed to *pid*, and to no process before it."""
    count = env.get("LISTEN_FDS", "")
    if env.get("LISTEN_PID") != str(pid) or not _COUNT.fullmatch(count):
        return 0
    return min(int(count), INHERITED_MAX)


def _lasting(env: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in env if name not in _SET_AT_START))


def _working_directory(folder: Path) -> str:
    """Return where the process was started; empty when that cannot be read.

    A process that has changed its root no longer tells.
    """
    try:
        if str((folder / "root").readlink()) != "/":
            return ""
        cwd = (folder / "cwd").readlink()
    except OSError:
        return ""
    return str(cwd) if cwd.is_dir() else ""


def _checked_options(words: Sequence[str]) -> Iterator[str]:
    """Keep the options that ``-c`` depends on, with their values, and all that follows ``--``."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            yield word
            yield from rest
        elif word.startswith(_STANDS_ALONE):
            yield word
        elif word[:1] == "-" and word[1:2] in _TAKES_VALUE:
            yield word[:2]
            yield from islice(rest, 1)


def _files(path: Path) -> tuple[Path, ...]:
    """Return the file itself, or what HAProxy loads of a folder (management guide, -f)."""
    try:
        inside = sorted(path.iterdir())
    except OSError:
        return (path,)
    return tuple(
        file for file in inside if file.suffix == ".cfg" and file.name[0] != "." and _is_file(file)
    )


def _is_file(path: Path) -> bool:
    """Tell whether HAProxy loads it: one that it cannot look at, it refuses to start with."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True
