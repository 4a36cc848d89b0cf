"""Ask the daemon, or tell it something, over its sockets; every call has a deadline."""

from __future__ import annotations

import json
import socket
import time
from typing import Any, Final

NOT_RUNNING: Final = 3
UNKNOWN: Final = 4
ANSWER_TIMEOUT_S: Final = 3.0
#: A thousand servers are a third of a megabyte.
ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024


class NoAnswerError(Exception):
    """The daemon could not be asked; *exit_code* is what the command exits with."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def ask(path: str, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
    """Return the daemon's document; raises NoAnswerError with a cure when there is none."""
    document = _answer(path, b"", timeout_s)
    if "schema_version" not in document:
        raise NoAnswerError(f"{path} is answered by something else than sentinel", UNKNOWN)
    return document


def tell(path: str, order: str, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    """Give the daemon an order; raises NoAnswerError when it is not taken."""
    answer = _answer(path, order.encode() + b"\n", timeout_s)
    if answer.get("ok") is not True:
        raise NoAnswerError(str(answer.get("error", "the order was not understood")), UNKNOWN)


def _answer(path: str, line: bytes, timeout_s: float) -> dict[str, Any]:
    try:
        document = json.loads(_receive(path, line, timeout_s))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NoAnswerError(
            "sentinel is not running (systemctl start sentinel), or could not listen"
            f" (journalctl -u sentinel): nobody listens on {path}",
            NOT_RUNNING,
        ) from error
    except PermissionError as error:
        raise NoAnswerError(
            f"you may not read {path}: run it as root, or, to ask for the status, as a member of"
            " the group that status.group names in sentinel.toml",
            UNKNOWN,
        ) from error
    except (OSError, ValueError) as error:
        raise NoAnswerError(
            f"no usable answer from {path} ({error}): sentinel may be hung; systemd's"
            " watchdog restarts it",
            UNKNOWN,
        ) from error
    if not isinstance(document, dict):
        raise NoAnswerError(f"{path} is answered by something else than sentinel", UNKNOWN)
    return document


def _receive(path: str, line: bytes, timeout_s: float) -> bytes:
    """Send *line* and read all that comes; raises OSError, TimeoutError when it does not end."""
    deadline_s = time.monotonic() + timeout_s
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        client.connect(path)
        if line:  # a status socket does not listen, and may have closed already
            client.sendall(line)
        while chunk := client.recv(65536):
            answer += chunk
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or len(answer) > ANSWER_MAX_BYTES:
                raise TimeoutError(f"no end of the answer after {len(answer)} bytes")
            client.settimeout(left_s)
    return bytes(answer)
