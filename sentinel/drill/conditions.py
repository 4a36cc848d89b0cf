"""What ``.if`` leaves of a haproxy.cfg (configuration manual, 2.4): a target must really listen."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from typing import Final

_FALSE: Final = 1
_ANSWER_S: Final = 10.0


def asked(executable: str) -> Callable[[str], bool]:
    """Return a judge of conditions: HAProxy itself, by ``-cc``.

    What it cannot judge (it has ``-cc`` since 2.5) is taken as true. It knows the variables of our
    environment, and none that the file sets.
    """
    return partial(_holds, executable)


def _holds(executable: str, condition: str) -> bool:
    argv = (executable, "-cc", condition)
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return done.returncode != _FALSE


def settled(text: str, holds: Callable[[str], bool]) -> str:
    """Return *text* with the lines emptied that its conditions exclude; *holds* judges those."""
    lines: list[str] = []
    open_blocks: list[tuple[bool, bool]] = []  # whether lines count now; whether any did before
    for line in text.split("\n"):
        word, _, condition = line.strip().partition(" ")
        outside = all(counts for counts, _ in open_blocks[:-1])
        match word:
            case ".if":
                counts = all(counts for counts, _ in open_blocks) and holds(condition)
                open_blocks.append((counts, counts))
            case ".elif" | ".else" if open_blocks:
                done = open_blocks[-1][1]
                counts = outside and not done and (word == ".else" or holds(condition))
                open_blocks[-1] = (counts, done or counts)
            case ".endif" if open_blocks:
                open_blocks.pop()
            case _:
                lines.append(line if all(counts for counts, _ in open_blocks) else "")
                continue
        lines.append("")
    return "\n".join(lines)
