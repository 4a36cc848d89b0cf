"""A test's own network and mounts: its body runs in a child process that has left ours."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Final

import pytest
from privileges import IS_ROOT

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may make a network namespace")

_NEW_MOUNTS: Final = 0x20000  # CLONE_NEWNS, linux/sched.h
_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_SETUP: Final = """\
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sentinel
ip link set lo up
ip link add v0 type veth peer name v1
ip address add 192.0.2.10/24 dev v0
for end in v0 v1; do ip link set $end addrgenmode none up; done
for end in v0 v1; do until ip link show $end | grep -q "state UP"; do sleep 0.01; done; done
"""


def ip(*words: str) -> None:
    """Run ``ip`` in the namespace of whoever calls."""
    subprocess.run(("ip", *words), check=True, timeout=20)


def apart(body: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run *body* on a loop of its own, in a network of two cabled interfaces, v0 and v1.

    Nothing changes there any more by itself: no link comes up, no address is still tentative.
    /run is empty but for /run/sentinel. What fails there fails here, with its traceback shown.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(_child(body))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "see the traceback above"


def _child(body: Callable[[], Coroutine[None, None, None]]) -> int:
    """Leave, run, and say whether all went well; whatever was raised is shown."""
    try:
        _leave()
        asyncio.run(body())
    except BaseException:  # noqa: BLE001  (of a forked pytest nothing may return to pytest)
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _leave() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS | _NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(("sh", "-e", "-c", _SETUP), check=True, timeout=20)
