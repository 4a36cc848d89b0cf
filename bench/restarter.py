"""What systemd does for Debian's haproxy.service: Restart=always, RestartSec=100ms, start limit.

    python bench/restarter.py FOLDER

FOLDER has ``haproxy-start``. HAProxy is started 100 ms after its death, but not more than five
times in ten seconds (StartLimitBurst=, StartLimitIntervalSec=); after that somebody else must.
Its command line may not name HAProxy, which chk_haproxy.sh greps for. Nobody stops HAProxy here,
so that no stop has to be told from a death.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

PIDFILE: Final = Path("/run/haproxy.pid")
RESTART_S: Final = 0.1
BURST: Final = 5
INTERVAL_S: Final = 10.0
POLL_S: Final = 0.1


def wait_death() -> None:
    """Wait until HAProxy's master is dead; return at once if it is."""
    with suppress(OSError, ValueError):
        descriptor = os.pidfd_open(int(PIDFILE.read_text().split()[0]))
        select.select([descriptor], [], [])
        os.close(descriptor)


def lives() -> bool:
    """Tell whether HAProxy's master lives."""
    try:
        os.kill(int(PIDFILE.read_text().split()[0]), 0)
    except (OSError, ValueError, IndexError):
        return False
    return True


def main(folder: str) -> None:
    """Restart for ever."""
    os.umask(0o022)
    starts_s: deque[float] = deque([time.monotonic()], maxlen=BURST)
    while True:
        wait_death()
        time.sleep(RESTART_S)
        while len(starts_s) == BURST and starts_s[0] > time.monotonic() - INTERVAL_S:
            while not lives():
                time.sleep(POLL_S)
            starts_s.clear()
        if not lives():
            starts_s.append(time.monotonic())
            subprocess.run([f"{folder}/haproxy-start"], stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main(sys.argv[1])
