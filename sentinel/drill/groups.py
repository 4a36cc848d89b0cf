"""setgroups(2) in a user namespace that an ordinary user has made: denied, whatever is asked.

keepalived drops its supplementary groups before it executes a script; when it may not, the script
is not executed, and counts as a success. A seccomp filter lets setgroups do nothing and succeed
instead (seccomp(2): SECCOMP_RET_ERRNO with 0), for this process and all that it starts.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from pathlib import Path
from typing import Final

#: Of each machine its AUDIT_ARCH (linux/audit.h) and its number of setgroups.
_NUMBERS: Final = {
    "x86_64": (0xC000003E, 116),
    "aarch64": (0xC00000B7, 159),
    "riscv64": (0xC00000F3, 159),
    "ppc64le": (0xC0000015, 81),
    "s390x": (0x80000016, 206),
}
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h: words, against a constant
_NUMBER_AT, _ARCH_AT = 0, 4  # linux/seccomp.h: struct seccomp_data
_ALLOW, _SUCCEED = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP, _FILTER = 22, 2


def are_denied() -> bool:
    """Tell whether nobody here may change supplementary groups (user_namespaces(7))."""
    return Path("/proc/self/setgroups").read_text().strip() == "deny"


def pretend() -> None:
    """Let setgroups succeed from now on; raises OSError where that is not possible."""
    if platform.machine() not in _NUMBERS:
        raise OSError(f"the number of setgroups is not known for {platform.machine()}")
    arch, number = _NUMBERS[platform.machine()]
    program = (
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_EQUAL, 0, 3, arch),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _SUCCEED),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    described = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _FILTER, described, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "seccomp")
