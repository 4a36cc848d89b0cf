"""Run the programs the lab is made of: bounded, and dead when the test that started them is dead.

Output goes through a file, never a pipe: a daemon that keeps a pipe open would hold its reader up
for ever. At the deadline the whole process group is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Prefix of a command line: when we die, the kernel kills the program with all its offspring, and
#: its mounts are gone. The first kill is by prctl(2), the others by the end of a pid namespace.
CONTAINED: Final = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
)
#: What a program of the lab sees of our environment: nothing.
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}
_TAIL_CHARACTERS: Final = 4000
_REAP_S: Final = 10.0


class CommandFailed(Exception):  # noqa: N818  (a test that reads "CommandFailed" needs no "Error")
    """A program ended badly or, with *returncode* None, not at all; the message quotes it."""

    def __init__(self, argv: Sequence[str], returncode: int | None, output: str) -> None:
        self.returncode = returncode
        self.output = output
        end = "killed at its deadline" if returncode is None else f"exit {returncode}"
        super().__init__(f"{' '.join(argv)}: {end}\n{output[-_TAIL_CHARACTERS:]}")


def run(
    argv: Sequence[str],
    *,
    timeout_s: float = 10.0,
    check: bool = True,
    stdin: str = "",
    env: Mapping[str, str] = ENVIRONMENT,
) -> subprocess.CompletedProcess[str]:
    """Run *argv* to its end and return its exit status, stdout and stderr.

    Raises CommandFailed at the deadline, and with *check* when it does not exit 0.
    """
    with (
        tempfile.TemporaryFile() as source,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        source.write(stdin.encode())
        source.seek(0)
        process = subprocess.Popen(
            argv, stdin=source, stdout=output, stderr=errors, env=env, start_new_session=True
        )
        returncode = _returncode(process, timeout_s)
        output.seek(0)
        errors.seek(0)
        stdout = output.read().decode("utf-8", "replace")
        stderr = errors.read().decode("utf-8", "replace")
    if returncode is None or (check and returncode != 0):
        raise CommandFailed(argv, returncode, stdout + stderr)
    return subprocess.CompletedProcess(argv, returncode, stdout, stderr)


def _returncode(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """Wait for the end; kill the group at the deadline, and when the wait itself is interrupted."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_REAP_S)
