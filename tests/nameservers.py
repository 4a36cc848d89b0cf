"""A name server that never answers, in a network and with mounts of the test's own."""

from __future__ import annotations

import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A name that no file knows, so that the name server is asked.
NAME: Final = "haproxy.example"
_ADDRESS: Final = "127.0.0.53"
_CONF: Final = Path("/run/resolv.conf")


@contextmanager
def silent_name_server() -> Iterator[None]:
    """Let whoever looks NAME up wait for the block; to be called in a body that runs ``apart``."""
    _CONF.write_text(f"nameserver {_ADDRESS}\n")
    subprocess.run(("mount", "--bind", _CONF, "/etc/resolv.conf"), check=True, timeout=20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((_ADDRESS, 53))
        yield
