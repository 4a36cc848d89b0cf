"""A node: one Debian under a real systemd, fresh within milliseconds, booted in about a second.

- Its files are an overlay on the image, in memory and bounded; they survive a power cut.
- It has cgroups of its own. Two nodes booted in one would share system.slice/haproxy.service: one's
  systemd would wait for the other's processes, or kill them.
- Its network is a namespace of its own, with nothing but lo until a Switch is connected.
- Nothing of it is left on the host after ``close``, however far its boot came.
"""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final, Self

from haproxies import wait_until
from lab.command import CONTAINED, ENVIRONMENT, CommandFailed, run
from lab.network import Namespace
from lab.traces import RUN, freeze, init_pid, kill, make_cgroups, new_name, remove

if TYPE_CHECKING:
    from pathlib import Path

DISK_MAX: Final = "512m"
BOOT_TIMEOUT_S: Final = 60.0
_REAP_S: Final = 20.0
_ENTER_CGROUPS: Final = """\
while [ "$1" != -- ]; do echo $$ >"$1" && shift || exit; done
shift
exec "$@"
"""
_WRITE: Final = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'


class BootFailed(Exception):  # noqa: N818  (a test that reads "BootFailed" needs no "Error")
    """A node did not boot; the message quotes what systemd-nspawn said."""


class Node:
    """One machine, switched off until ``power_on``. To be removed by ``close`` or ``with``."""

    def __init__(self, image: Path, hostname: str = "lb1") -> None:
        self.name: Final = new_name()
        self.hostname: Final = hostname
        self._folder: Final = RUN / self.name
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._make_files(image)
            self.network: Final = Namespace(self.name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def root(self) -> Path:
        """The node's files as the host sees them, without its /run, /tmp and /dev.

        Beware of absolute links in it (/var/run): they lead to the host's files.
        """
        return self._folder / "root"

    @property
    def is_on(self) -> bool:
        """Its systemd runs: neither cut off by us, nor gone down by itself."""
        return init_pid(self.name) != 0

    def close(self) -> None:
        """Kill the node and remove every trace of it."""
        try:
            remove(self.name)
        finally:
            self._reap()

    def power_on(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Boot until systemd has finished its start; raises BootFailed."""
        assert not self.is_on, f"{self.hostname} is switched off"
        self.network.regain_power()
        notifications = self._folder / "notify"
        notifications.unlink(missing_ok=True)
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as receiver:
            receiver.bind(str(notifications))
            self._process = self._spawn(notifications)
            self._wait_ready(receiver, self._process, timeout_s)

    def power_cut(self) -> None:
        """End all at once, processes and links; files and cables stay as they are.

        Nothing in the node sees its links go dark, and nobody outside hears a last word from it.
        """
        freeze(self.name)
        self.network.lose_power()
        kill(self.name)
        self._reap()

    def shut_down(self, timeout_s: float = 60.0) -> None:
        """Switch the node off in good order, as an administrator would."""
        assert self._process is not None, "switched on"
        self.run("systemctl", "poweroff", check=False)  # may be cut off by its own success
        self._process.wait(timeout_s)
        self.power_cut()  # of a machine that still had its lamps on: links and cgroups

    def run(
        self, *argv: str, timeout_s: float = 10.0, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the node as root; raises CommandFailed (see ``command.run``)."""
        pid = init_pid(self.name)
        assert pid, f"{self.hostname} is switched on"
        enter = ("nsenter", f"--target={pid}", "-m", "-u", "-i", "-n", "-p", "--")
        return run((*enter, *argv), timeout_s=timeout_s, check=check, stdin=stdin)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, making the folders above it."""
        self.run("sh", "-c", _WRITE, "sh", path, f"{mode:o}", stdin=text)

    def read(self, path: str) -> str:
        """Return a file's text."""
        return self.run("cat", path).stdout

    def wait_until(self, command: str, timeout_s: float = 20.0) -> None:
        """Wait until a shell command in the node succeeds; fail the test when it does not."""

        def succeeds() -> bool:
            return self.run("sh", "-c", command, check=False).returncode == 0

        wait_until(succeeds, f"{self.hostname}: {command}", timeout_s)

    def unit(self, unit: str) -> dict[str, str]:
        """Return the properties of a unit as ``systemctl show`` names them."""
        lines = self.run("systemctl", "show", unit).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def journal(self, unit: str | None = None) -> str:
        """Return the journal, of one unit or of all."""
        selection = () if unit is None else (f"--unit={unit}",)
        return self.run("journalctl", "--no-pager", "--quiet", *selection).stdout

    def _make_files(self, image: Path) -> None:
        self._folder.mkdir(parents=True)
        disk = ("-o", f"size={DISK_MAX},mode=755", "tmpfs", str(self._folder))
        run(("mount", "-t", "tmpfs", *disk))
        upper, work = self._folder / "upper", self._folder / "work"
        for folder in (upper, work, self.root):
            folder.mkdir()
        layers = f"lowerdir={image},upperdir={upper},workdir={work}"
        run(("mount", "-t", "overlay", "-o", layers, "overlay", str(self.root)))

    def _spawn(self, notifications: Path) -> subprocess.Popen[bytes]:
        argv = (
            *("systemd-nspawn", "--quiet", "--boot", "--console=pipe", "--notify-ready=yes"),
            *("--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off"),
            *("--directory", str(self.root), "--machine", self.name, "--hostname", self.hostname),
            f"--network-namespace-path=/run/netns/{self.name}",
            "--capability=CAP_NET_ADMIN,CAP_NET_RAW",
        )
        environment = {
            **ENVIRONMENT,
            "NOTIFY_SOCKET": str(notifications),
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",  # cgroup v2, whatever the host has
        }
        enter = ("sh", "-c", _ENTER_CGROUPS, "sh", *map(str, make_cgroups(self.name)), "--")
        with (self._folder / "console").open("ab") as console:
            return subprocess.Popen(
                (*CONTAINED, *enter, *argv),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def _wait_ready(
        self, receiver: socket.socket, process: subprocess.Popen[bytes], timeout_s: float
    ) -> None:
        """Wait for the READY of the node's systemd (sd_notify(3)), which nspawn passes on."""
        receiver.settimeout(0.1)
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s and process.poll() is None:
            try:
                lines = receiver.recv(4096).decode().splitlines()
            except TimeoutError:
                continue
            if "READY=1" in lines:
                return
        raise BootFailed(f"{self.hostname}: not ready\n{self._last_words()}")

    def _last_words(self) -> str:
        """What there is to read about a boot that failed."""
        console = (self._folder / "console").read_text(errors="replace")
        try:
            return console + self.journal() if self.is_on else console
        except CommandFailed as failure:
            return f"{console}{failure}"

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(_REAP_S)
            self._process = None
