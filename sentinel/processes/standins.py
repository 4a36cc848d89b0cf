"""Stand-ins for inherited sockets, so that ``haproxy -c`` accepts ``bind fd@3`` as a start does.

HAProxy asks a descriptor in a ``bind`` for its kind while it reads the configuration, and ``-c``
ends there: nothing is bound, listened on or accepted. So one fresh socket, connected to nothing,
stands in for all, and the held ones are not touched. A program must hand it on: only the child may
have just these descriptors, and in ours they are long taken. When that fails it ends by a signal,
which no verdict of HAProxy does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from sentinel.processes.invocation import FIRST_INHERITED

if TYPE_CHECKING:
    from collections.abc import Sequence

_HAND_ON: Final = """\
import fcntl, os, signal, socket, sys
first, end = int(sys.argv[1]), int(sys.argv[2])
try:
    with socket.socket() as sock:
        spare = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, end)
    for descriptor in range(first, end):
        os.dup2(spare, descriptor)
    os.execv(sys.argv[3], sys.argv[3:])
except OSError:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def with_inherited(count: int, argv: Sequence[str]) -> tuple[str, ...]:
    """Return the command line that runs *argv*, an absolute path first, with *count* sockets."""
    if not count:
        return tuple(argv)
    end = FIRST_INHERITED + count
    return (sys.executable, "-I", "-S", "-c", _HAND_ON, str(FIRST_INHERITED), str(end), *argv)
