"""The drill from outside: files, permission, the process that everything hangs on.

The worlds live below one process, the first of a pid namespace, which the kernel kills together
with ``unshare``, which it kills together with us (PR_SET_PDEATHSIG). Nothing has to be tidied up,
so nothing can be left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from sentinel import __version__
from sentinel.drill.confs import PlanError
from sentinel.drill.faults import Fault
from sentinel.drill.plan import Files, make_plan
from sentinel.drill.records import Finding
from sentinel.drill.rehearsal import arguments
from sentinel.drill.users import only_existing

#: The project's folder contrib; a link in the working tree, and copied into the wheel.
_SHIPPED: Final = Path(__file__).with_name("shipped").resolve()
_PROGRAMS: Final = {
    "haproxy": "haproxy",
    "keepalived": "keepalived",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "hostname": "hostname",
}
_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin"
_NAMESPACES: Final = ("-n", "-m", "-p", "-u", "--fork", "--kill-child", "--mount-proc")
#: As root, and as an ordinary user, for whom one id is mapped: their own, as root's.
_WAYS: Final = (
    ("unshare", *_NAMESPACES),
    ("unshare", "--user", "--map-root-user", *_NAMESPACES),
)
_ONE_ID_NOTE: Final = (
    "without root, in a user namespace: haproxy and all other users are root by another name, with"
    " your own supplementary groups;"
    " a vrrp_script's program and the folders above it are root's; what you may not read, nobody"
    " can; and no program is put before others (vrrp_priority, nice)"
)
_ANSWER_S: Final = 10.0


class NotPossibleError(Exception):
    """This machine does not allow or have what a drill needs; the message names the cure."""


def choose_files(
    haproxy: Path | None,
    keepalived: Sequence[Path] | None,
    sentinel: Path | None,
    pair: str,
    config_ids: Sequence[str] | None = None,
) -> Files:
    """Return the user's files, and the shipped ones where there are none; raises PlanError."""
    if (haproxy is None) != (keepalived is None):
        raise PlanError("--haproxy and --keepalived belong together: their addresses must agree")
    shipped = _SHIPPED / "keepalived" / pair
    master, backup = keepalived or (shipped / "master.conf", shipped / "backup.conf")
    return Files(
        haproxy=(haproxy or _SHIPPED / "haproxy" / "haproxy.cfg").resolve(),
        master=master.absolute(),  # a link's target may have other files beside it
        backup=backup.absolute(),
        sentinel=sentinel and sentinel.resolve(),
        hook=_SHIPPED / "keepalived" / "chk_sentinel.sh",
        config_ids=(config_ids[0], config_ids[1]) if config_ids else None,
    )


class Drill:
    """One drill under way; ``close`` ends it, wherever it is."""

    def __init__(self, files: Files, faults: Sequence[Fault]) -> None:
        self.name: Final = f"{files.master.parent.name} pair" if _is_shipped(files) else "your pair"
        self._environment: Final = {
            **os.environ,
            "PATH": f"{os.environ.get('PATH', '')}:{_PATH}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        plan = make_plan(files)
        self._check_programs()
        way, id_map = self._find_way()
        everybody = Path("/etc/passwd").read_text()
        notes = () if only_existing(everybody, id_map) == everybody else (_ONE_ID_NOTE,)
        self.plan: Final = replace(plan, notes=(*notes, *plan.notes))
        self.made: Final = f"{time.strftime('%Y-%m-%d %H:%M')}, {', '.join(self._versions())}"
        with _own_file(plan.sentinel_toml) as sentinel:
            files = replace(files, sentinel=Path(f"/proc/self/fd/{sentinel}"))
            self._process: Final = subprocess.Popen(
                (
                    *("setpriv", "--pdeathsig", "KILL", *way),
                    *(sys.executable, "-m", "sentinel.drill.rehearsal"),
                    *arguments(files, tuple(fault.name for fault in faults)),
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                env=self._environment,
                pass_fds=(sentinel,),
                start_new_session=True,  # Ctrl-C is ours
            )

    def findings(self, begun: Callable[[str], None]) -> Iterator[Finding]:
        """Yield every finding as it comes; *begun* hears the name of each fault before."""
        assert self._process.stdout is not None  # noqa: S101  (a pipe, as we asked)
        for line in self._process.stdout:
            match json.loads(line):
                case {"begun": str(name)}:
                    begun(name)
                case {"finding": document}:
                    yield Finding.from_json(document)
                case {"failed": reason}:
                    raise NotPossibleError(f"the nodes do not come up: {reason}")

    def close(self) -> None:
        """End everything that is still there."""
        self._process.kill()
        self._process.communicate()

    # --- what the machine has and allows --------------------------------------------------------

    def _check_programs(self) -> None:
        """Raise NotPossibleError if a program is missing."""
        for program, package in _PROGRAMS.items():
            if shutil.which(program, path=self._environment["PATH"]) is None:
                raise NotPossibleError(f"there is no {program}: apt-get install {package}")

    def _find_way(self) -> tuple[tuple[str, ...], str]:
        """Return the way into the namespaces that is permitted, and its map of user ids."""
        for way in _WAYS:
            id_map = self._output(*way, "cat", "/proc/self/uid_map")
            if id_map is not None:
                return way, id_map
        raise NotPossibleError(
            "namespaces are not permitted here: run it as root, in a container with the"
            " capabilities SYS_ADMIN and NET_ADMIN; or permit them to users (sysctl"
            " user.max_user_namespaces, kernel.unprivileged_userns_clone,"
            " kernel.apparmor_restrict_unprivileged_userns)"
        )

    def _versions(self) -> Iterator[str]:
        yield f"sentinel {__version__}"
        for program, flag in (("haproxy", "-v"), ("keepalived", "--version")):
            words = (self._output(program, flag) or "").replace("version", "").split()
            number = next((word for word in words if word[:1].isdigit() or word[:2] == "v2"), "?")
            yield f"{program} {number.lstrip('v')}"

    def _output(self, *argv: str) -> str | None:
        """Return what a program says, None when it fails."""
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_ANSWER_S,
                env=self._environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None


@contextmanager
def _own_file(text: str) -> Iterator[int]:
    """Give a descriptor of a file in memory that is ours, on both sides of a user namespace.

    The user's own sentinel.toml was found trustworthy out here. In there its owner may have no id,
    and nobody's file is not obeyed.
    """
    descriptor = os.memfd_create("sentinel.toml")
    try:
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
        yield descriptor
    finally:
        os.close(descriptor)


def _is_shipped(files: Files) -> bool:
    return files.master.is_relative_to(_SHIPPED)
