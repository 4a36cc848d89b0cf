"""A real keepalived for tests, in the namespaces of whoever starts it, with a /tmp of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from haproxies import wait_until

from sentinel.model import Proc
from sentinel.processes import listing, procfs
from sentinel.vrrp import Vip, VrrpInstance

if TYPE_CHECKING:
    from collections.abc import Iterator

CONF: Final = Path("/run/keepalived.conf")
PIDFILE: Final = Path("/run/keepalived.pid")
VRRP_PIDFILE: Final = Path("/run/vrrp.pid")
FIFO: Final = "/run/sentinel/vrrp.fifo"
LOG: Final = Path("/run/keepalived.log")
VIP: Final = Vip(address="192.0.2.1", prefix=32, interface="v0")
VI_1: Final = VrrpInstance(name="VI_1", interface="v0", priority=150, vips=(VIP,))


def conf(*, fifo: str = FIFO, priority: int = 150, vips: str = "192.0.2.1", more: str = "") -> str:
    """Return a keepalived.conf with one instance, VI_1, that soon becomes MASTER of *vips*."""
    notify = f"vrrp_notify_fifo {fifo}" if fifo else ""
    return f"""\
global_defs {{
    vrrp_version 3
    {notify}
}}
vrrp_instance VI_1 {{
    interface v0
    virtual_router_id 51
    priority {priority}
    advert_int 0.1
    virtual_ipaddress {{
        {vips}
    }}
    {more}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalived:
    """A keepalived that runs; *pid* is its parent process."""

    pid: int

    @property
    def vrrp_pid(self) -> int:
        """Its child that speaks VRRP."""
        return int(VRRP_PIDFILE.read_text())

    def reload(self, text: str) -> None:
        """Give it another configuration; wait until it has read it."""
        before = LOG.read_text().count("Reloading finished")
        CONF.write_text(text)
        os.kill(self.pid, signal.SIGHUP)
        wait_until(lambda: LOG.read_text().count("Reload") > before, "keepalived reloads")

    def kill(self) -> None:
        """End all of it by SIGKILL, the parent last, so that no child is told of it."""
        for pid in (self.vrrp_pid, self.pid):
            os.kill(pid, signal.SIGSTOP)
        for pid in (self.vrrp_pid, self.pid):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def running_keepalived(text: str) -> Iterator[Keepalived]:
    """Run a keepalived with this configuration for the length of the block."""
    CONF.write_text(text)
    own_tmp = "mount -t tmpfs tmpfs /tmp && exec keepalived -n -l -D -P -G -f /run/keepalived.conf"
    with (
        LOG.open("wb") as log,
        subprocess.Popen(
            ("unshare", "-m", "sh", "-c", own_tmp),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            wait_until(VRRP_PIDFILE.exists, "keepalived starts")
            yield Keepalived(pid=process.pid)
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


@contextmanager
def running_under_its_name(
    folder: Path, *argv: str, user: int | None = None, name: str = "keepalived"
) -> Iterator[Proc]:
    """Run another program under the name of keepalived, with its standard input held open."""
    program = folder / name
    shutil.copy(Path(shutil.which(argv[0]) or "").resolve(), program)
    with subprocess.Popen((program, *argv[1:]), stdin=subprocess.PIPE, user=user) as process:
        try:
            wait_until(lambda: _runs(process.pid, program), "it runs")
            yield proc_of(process.pid)
        finally:
            process.kill()


@contextmanager
def contained_under_its_name(folder: Path, namespace: str, *argv: str) -> Iterator[Proc]:
    """Run another program under the name of keepalived in a new namespace, an option of unshare."""
    program = folder / "keepalived"
    shutil.copy(Path(shutil.which(argv[0]) or "").resolve(), program)
    wrapper = ("unshare", namespace, "--fork", "--kill-child")
    with subprocess.Popen((*wrapper, program, *argv[1:]), stdin=subprocess.PIPE) as process:
        try:
            wait_until(
                lambda: [_runs(pid, program) for pid in listing.children(process.pid)] == [True],
                "it runs",
            )
            yield proc_of(*listing.children(process.pid))
        finally:
            process.kill()


def _runs(pid: int, program: Path) -> bool:
    return Path(f"/proc/{pid}/exe").resolve() == program.resolve()


def proc_of(pid: int) -> Proc:
    """Identify a process that lives."""
    stat = procfs.read_stat(pid)
    assert stat is not None
    return stat.proc
