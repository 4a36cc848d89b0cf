"""A service manager's part in held listeners: sockets that HAProxy inherits and somebody keeps."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from haproxies import EXECUTABLE

if TYPE_CHECKING:
    from pathlib import Path

#: The forked process keeps the sockets as systemd does, until the test's HAProxy is killed.
_LAUNCHER: Final = """\
#!{python} -IS
import fcntl, os, signal, socket, sys
ports = {ports}
spares = [
    fcntl.fcntl(socket.create_server(("127.0.0.1", port)).detach(), fcntl.F_DUPFD_CLOEXEC, 64)
    for port in ports
]
for descriptor, spare in enumerate(spares, 3):
    os.dup2(spare, descriptor)
if not os.fork():
    signal.pause()
os.environ |= {{"LISTEN_FDS": str(len(ports)), "LISTEN_PID": str(os.getpid())}}
os.execv("{haproxy}", ["{haproxy}", *sys.argv[1:]])
"""


def launcher(folder: Path, *ports: int) -> str:
    """Return a program that starts HAProxy with sockets on *ports* of 127.0.0.1, from fd@3 up."""
    path = folder / "launcher"
    path.write_text(_LAUNCHER.format(python=sys.executable, ports=ports, haproxy=EXECUTABLE))
    path.chmod(0o755)
    return str(path)
