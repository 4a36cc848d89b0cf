"""Whom to believe: root, the user that sentinel runs as, and nobody else.

Every user of the machine may start a process with any name, arguments and environment. So whatever
is taken from a process to be obeyed, and whatever is executed, is asked first whose it is.
"""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path
from typing import Final

from sentinel.processes import procfs

#: Whom the kernel shows in a user namespace for everybody who has no id there, and the machine's
#: root has none in an ordinary user's (user_namespaces(7), /proc/sys/kernel/overflowuid).
_OUTSIDER: Final = 65534


def runs_as_us(pid: int) -> bool:
    """Tell whether *pid* has no user id but root's and ours, not even a saved one; else False.

    The owner of its files in /proc says less: of a process that may not be dumped that is root.
    """
    found = procfs.uids(pid)
    return bool(found) and found <= {0, os.geteuid()}


def is_ours_alone(found: os.stat_result) -> bool:
    """Tell whether nobody but root and us may write a file.

    The machine's own files are outsiders' in a user namespace, and trusted there all the same.
    """
    others = stat.S_IWOTH | (stat.S_IWGRP if found.st_gid else 0)
    return _is_ours(found) and not found.st_mode & others


def leads_to_ours_alone(path: str) -> bool:
    """Tell whether nobody but root and us may decide what a path means, now and later.

    So it has no symbolic links, and no folder on its way is another's. In a sticky one, such as
    /tmp, everybody may make what is new, and replace only what is his own (unlink(2)).
    """
    last, *folders = (Path(path), *Path(path).parents)
    try:
        return (
            os.path.realpath(path) == path
            and is_ours_alone(last.stat())
            and all(_keeps_what_is_ours(folder.stat()) for folder in folders)
        )
    except OSError:
        return False


def _keeps_what_is_ours(folder: os.stat_result) -> bool:
    sticky = _is_ours(folder) and bool(folder.st_mode & stat.S_ISVTX)
    return sticky or is_ours_alone(folder)


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid in {0, os.geteuid(), *_outsiders()}


@cache  # the map is written once
def _outsiders() -> frozenset[int]:
    rows = (map(int, row.split()) for row in Path("/proc/self/uid_map").read_text().splitlines())
    inside = any(first <= _OUTSIDER < first + count for first, _, count in rows)
    return frozenset() if inside else frozenset({_OUTSIDER})
