"""``sentinel check``: the verdict that keepalived gets on this node, in words.

Reads what keepalived and its hook read: the lease, HAProxy's process when the lease is over, and
the track file, in which anything but 0 is FAULT (keepalived.conf(5)). Exit status: 0 this node may
hold the VIP, 1 it may not. It asks nobody and changes nothing.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import time
from typing import TYPE_CHECKING, Final

from sentinel.commands import CONFIG_DEFAULT, Subparsers, configuration

if TYPE_CHECKING:
    from sentinel.config import Config

#: The hook's own bounds (contrib/keepalived/chk_sentinel.sh).
_PIDS_MAX: Final = 64
_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,8}")
_BLANKS: Final = re.compile(rb"[ \t]+")
_PIDFILE_BYTES_MAX: Final = 64 * 1024


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "check",
        help="print and exit with the verdict that keepalived gets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", default=CONFIG_DEFAULT, metavar="FILE", help="sentinel.toml (%(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the verdict and return it."""
    serving, why = _verdict(configuration("check", args.config))
    print(f"{'OK' if serving else 'FAIL'}: {why}")
    return 0 if serving else 1


def _verdict(config: Config) -> tuple[bool, str]:
    """Return whether this node may hold the VIP, and by what."""
    from sentinel.drivers.lease import read_lease, read_track  # noqa: PLC0415  (as light as can be)

    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    lease = read_lease(config.lease_file, now_cs=round(now_s * 100))
    path, number = config.track_file, read_track(config.track_file)
    if lease is not None:
        why = f"by sentinel's lease, good for {lease.deadline_cs / 100 - now_s:.1f} s"
        if lease.serving and number != 0:
            why = f"{path} says {number}, which is FAULT, and is not as sentinel writes it"
        serving = lease.serving and number == 0
        return serving, why if serving else f"{why}: see sentinel status"
    serving, why = _look(config.haproxy.pidfile)
    if number == 0:
        return serving, f"there is no valid lease (is sentinel running?); {why}"
    return False, (
        f"there is no valid lease (is sentinel running?), and {path} was left at {number}, which is"
        f" FAULT to keepalived: systemctl start sentinel, or echo 0 > {path}; {why}"
    )


def _look(pidfile: str) -> tuple[bool, str]:
    """Look for a process of HAProxy's pidfile, exactly as the hook does."""
    from sentinel.processes.procfs import read_stat  # noqa: PLC0415

    try:
        pids = _pids(pidfile)
    except OSError as error:
        return False, f"no HAProxy found: {pidfile}: {error.strerror}"
    for pid in pids:
        stat = read_stat(pid)
        if stat is not None and stat.name.startswith("haproxy") and stat.state not in "ZTtXx":
            return True, f"{stat.name} {pid} of {pidfile} is running"
    return False, f"no process of {pidfile} is a running haproxy"


def _pids(pidfile: str) -> list[int]:
    """Return the pids that the hook reads: the first word of each line, where that is a number."""
    if not os.path.isfile(pidfile):  # noqa: PTH113  (pathlib costs its import)
        raise FileNotFoundError(errno.ENOENT, "there is no such plain file")
    with open(pidfile, "rb") as file:  # noqa: PTH123
        lines = file.read(_PIDFILE_BYTES_MAX).split(b"\n")[:_PIDS_MAX]
    words = (_BLANKS.split(line.strip(b" \t"), maxsplit=1)[0] for line in lines)
    return [int(word) for word in words if _NUMBER.fullmatch(word)]
