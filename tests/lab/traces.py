"""What the lab leaves on its host: found by name, removed by name.

Everything the lab makes outside its own processes bears one name, which says who made it: the
cgroups, the network namespace, the folder under /run and the mounts in it, systemd-nspawn's own
files. So a test's end and the next run after a killed one tidy up alike, and nothing else on the
host can be hit.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from haproxies import wait_until
from lab.command import run

PREFIX: Final = "sentinel-lab-"
#: Where the folder of a node is.
RUN: Final = Path("/run")
_NETWORKS: Final = Path("/run/netns")
_NSPAWN: Final = Path("/run/systemd/nspawn")
_GONE_TIMEOUT_S: Final = 20.0
_numbers: Final = itertools.count(1)


def new_name() -> str:
    """Return a name nobody has: of this process, told from an older one of the same pid."""
    pid = os.getpid()
    return f"{PREFIX}{pid}-{_started(pid)}-{next(_numbers)}"


def sweep() -> None:
    """Remove what killed runs left: all names whose owner is dead."""
    for name in names():
        pid, started, _ = (int(part) for part in name.removeprefix(PREFIX).split("-"))
        if _started(pid) != started:
            remove(name)


def remove(name: str) -> None:
    """Remove every trace of *name*, dead or alive; what is not there is no mistake."""
    with ExitStack() as steps:  # all are taken, last one first, though one may raise
        steps.callback(_remove_folder, name)
        steps.callback(_remove_network, name)
        steps.callback(_remove_nspawn_files, name)
        steps.callback(_remove_mounts, name)
        steps.callback(_remove_nspawn_lock, name)
        steps.callback(kill, name)


def left_by(name: str) -> list[str]:
    """Return all traces of *name* on the host."""
    places = [folder / name for folder in (*hierarchies(), _NETWORKS, RUN)]
    found = [str(place) for place in (*places, *_NSPAWN.glob(f"*/{name}")) if place.exists()]
    return found + [str(mount) for mount in _mounts(name)]


def hierarchies() -> tuple[Path, ...]:
    """Return the cgroup hierarchies that systemd uses: v2, and v1's name=systemd where it exists.

    Empty where there is no cgroup v2 at all.
    """
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    v2 = [Path(target) for _, target, kind, *_ in mounts if kind == "cgroup2"]
    v1 = [Path(target) for _, target, kind, options, *_ in mounts
          if kind == "cgroup" and "name=systemd" in options.split(",")]  # fmt: skip
    return (*v2[:1], *v1[:1]) if v2 else ()


def make_cgroups(name: str) -> tuple[Path, ...]:
    """Make the cgroups of *name* and return the files a process enters them by."""
    for hierarchy in hierarchies():
        (hierarchy / name).mkdir()
    return tuple(hierarchy / name / "cgroup.procs" for hierarchy in hierarchies())


def init_pid(name: str) -> int:
    """Return the pid of the systemd that runs in the cgroups of *name*, 0 when none does.

    It is the process 1 of its own pid namespace (NSpid in proc(5)'s status).
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        scope = hierarchies()[0] / name / "payload/init.scope"
        for pid in (scope / "cgroup.procs").read_text().split():
            _, _, status = Path(f"/proc/{pid}/status").read_text().partition("NSpid:")
            if status.partition("\n")[0].endswith("\t1"):
                return int(pid)
    return 0


def freeze(name: str) -> None:
    """Stop all processes of *name* in one stroke: from now on they see nothing and do nothing."""
    (hierarchies()[0] / name / "cgroup.freeze").write_text("1")


def kill(name: str) -> None:
    """SIGKILL all processes of *name* in one stroke of the kernel, and remove their cgroups.

    A cgroup killed once is of no more use: the kernel (6.18) counts the kills, and kills whatever
    is cloned into a cgroup whose count is not its parent's. systemd 257 starts its services so.
    """
    cgroup = hierarchies()[0] / name
    if cgroup.exists():
        (cgroup / "cgroup.kill").write_text("1")
        populated = cgroup / "cgroup.events"
        wait_until(
            lambda: "populated 0" in populated.read_text(), f"{name} is dead", _GONE_TIMEOUT_S
        )
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            Path(folder).rmdir()


def names() -> set[str]:
    """All names that anything bears; cgroups first of all, for there are the processes."""
    folders = (*hierarchies(), _NETWORKS, RUN)
    return {path.name for folder in folders for path in folder.glob(f"{PREFIX}*-*-*")}


def _started(pid: int) -> int | None:
    """Return when *pid* was started, in clock ticks since boot: field 22 of proc(5)'s stat."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


def _mounts(name: str) -> list[Path]:
    """Mount points of *name*, the innermost first."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    targets = [Path(line.split()[1]) for line in mounts]
    return [target for target in reversed(targets) if name in target.parts]


def _remove_mounts(name: str) -> None:
    for target in _mounts(name):
        run(("umount", str(target)))


def _remove_nspawn_lock(name: str) -> None:
    """A killed systemd-nspawn leaves its lock on the image, named by device and inode."""
    with suppress(FileNotFoundError):
        root = (RUN / name / "root").stat()
        (_NSPAWN / "locks" / f"inode-{root.st_dev}:{root.st_ino}").unlink()


def _remove_nspawn_files(name: str) -> None:
    for folder in _NSPAWN.glob(f"*/{name}"):
        folder.rmdir()


def _remove_network(name: str) -> None:
    if (_NETWORKS / name).exists():
        run(("ip", "netns", "delete", name))


def _remove_folder(name: str) -> None:
    """Remove it; while mounts come and go on a busy machine one may have been overlooked."""

    def removed() -> bool:
        _remove_mounts(name)
        try:
            shutil.rmtree(RUN / name)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        return not (RUN / name).exists()

    wait_until(removed, f"{RUN / name} is removed", _GONE_TIMEOUT_S)
