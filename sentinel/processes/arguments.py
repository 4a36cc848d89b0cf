"""HAProxy's command line, read as HAProxy itself reads it (management guide, section 3).

Nothing is refused: what runs has been accepted by HAProxy, and what is unknown here is newer.
A stranger's may be of any length, gigabytes by PR_SET_MM_MAP of prctl(2), and is read only so far.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sentinel.processes import procfs

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Options that take the next word. The pids after -sf and -st are no options, and so passed over.
_WITH_VALUE: Final = frozenset("CfLmnNpSx") | {"cc"}
#: More than any service starts HAProxy with.
_BEGINNING_BYTES_MAX: Final = 4096
_BEGINNING_WORDS_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What a command line says: the ``-f`` files and directories, and the process model.

    One that *checks_only* (-c) reads the same files as the HAProxy that serves, and never does.
    """

    files: tuple[str, ...] = ()
    folder: str = ""  # -C: where relative files are looked for
    master_worker: bool = False
    checks_only: bool = False

    @property
    def absolute(self) -> bool:
        """Nothing depends on the folder the process was started in."""
        return all(os.path.isabs(os.path.join(self.folder, file)) for file in self.files)  # noqa: PTH117, PTH118

    def paths(self, cwd: str) -> tuple[str, ...]:
        """Return the files as absolute paths, for a process that was started in *cwd*."""
        folder = os.path.join(cwd, self.folder)  # noqa: PTH118  (text, for a foreign process)
        return tuple(os.path.normpath(os.path.join(folder, file)) for file in self.files)  # noqa: PTH118


def parse(argv: Sequence[str]) -> Arguments:
    """Read *argv*, the program's own name first."""
    files: list[str] = []
    folder = ""
    master_worker = checks_only = False
    words = iter(argv[1:])
    for word in words:
        option = word[1:]
        if word == "--":
            files += words
        elif option in _WITH_VALUE:
            value = next(words, "")
            if option == "f":
                files.append(value)
            elif option == "C":
                folder = value
        elif option in {"W", "Ws"}:
            master_worker = True
        elif option == "c":
            checks_only = True
    return Arguments(
        files=tuple(files), folder=folder, master_worker=master_worker, checks_only=checks_only
    )


def beginning(pid: int) -> tuple[str, ...]:
    """Return the first arguments of *pid*, whosever it is; none when it is gone."""
    try:
        descriptor = os.open(f"/proc/{pid}/cmdline", os.O_RDONLY | os.O_CLOEXEC)
    except procfs.GONE:
        return ()
    try:
        raw = os.read(descriptor, _BEGINNING_BYTES_MAX)
    except procfs.GONE:
        return ()
    finally:
        os.close(descriptor)
    return tuple(os.fsdecode(raw).split("\0")[:-1][:_BEGINNING_WORDS_MAX])
