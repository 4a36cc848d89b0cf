"""Time two starts of HAProxy: systemd's of the unit, and a plain one. Run in a node, on its Python.

    python3 starts.py PORT  < nothing, prints "SYSTEMCTL_START_MS PLAIN_START_MS"

HAProxy must not be running, and is not afterwards. A plain start ends with the first answer 200 of
an HTTP request; it is asked for every half millisecond. ``systemctl start`` ends when it returns.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import Final

CONFIG: Final = "/etc/haproxy/haproxy.cfg"
DEADLINE_S: Final = 20.0


def systemctl_start_ms() -> float:
    """Return what ``systemctl start haproxy`` takes, and stop it again."""
    begun_s = time.monotonic()
    subprocess.run(["systemctl", "start", "haproxy"], check=True)
    took_ms = (time.monotonic() - begun_s) * 1000
    subprocess.run(["systemctl", "stop", "haproxy"], check=True)
    return took_ms


def plain_start_ms(port: int) -> float:
    """Return what ``haproxy -W`` takes to its first answer, and kill it again."""
    argv = ["/usr/sbin/haproxy", "-W", "-f", CONFIG]
    begun_s = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        while not answers(port):
            if time.monotonic() - begun_s > DEADLINE_S:
                raise TimeoutError("haproxy does not answer")
            time.sleep(0.0005)
        return (time.monotonic() - begun_s) * 1000
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port: int) -> bool:
    """Tell whether a request is answered well."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b" 200 " in sock.recv(4096)
    except OSError:
        return False


if __name__ == "__main__":
    print(systemctl_start_ms(), plain_start_ms(int(sys.argv[1])))
