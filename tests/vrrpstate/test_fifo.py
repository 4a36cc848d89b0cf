"""The notify FIFO, with a real one, and lines as keepalived writes them."""

# ruff: noqa: ASYNC240  (files of the test's own, none of which can hang)

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from haproxies import DEADLINE_S
from hypothesis import given
from hypothesis import strategies as st
from processes import descriptors

from sentinel.vrrp import VrrpState
from sentinel.vrrpstate.fifo import Fifo, Notice, parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Ear:
    """Keeps what is heard, and lets a test wait for it."""

    def __init__(self, path: Path) -> None:
        self.notices: list[Notice] = []
        self.heard = asyncio.Event()
        self.fifo = Fifo(str(path), self._hear)

    def _hear(self, notice: Notice) -> None:
        self.notices.append(notice)
        self.heard.set()

    async def names(self, count: int) -> list[str]:
        """Wait for so many notices; return the names in them."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.notices) < count:
                self.heard.clear()
                await self.heard.wait()
        return [notice.name for notice in self.notices]


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> Path:
    """Name a FIFO that is not there."""
    return tmp_path / "fifo"


@pytest.fixture(name="ear")
async def fixture_ear(path: Path) -> AsyncIterator[Ear]:
    """Listen at *path*, not opened yet."""
    ear = Ear(path)
    with closing(ear.fifo):
        yield ear


def say(path: Path, *names: str, word: str = "MASTER") -> None:
    """Write lines as keepalived does, without waiting for a reader."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    for name in names:
        os.write(descriptor, f'INSTANCE "{name}" {word} 150\n'.encode())
    os.close(descriptor)


@pytest.mark.parametrize(
    ("line", "state", "priority"),
    [
        ('INSTANCE "VI_1" MASTER 150', VrrpState.MASTER, 150),
        ('INSTANCE "VI_1" BACKUP 100', VrrpState.BACKUP, 100),
        ('INSTANCE "VI_1" FAULT 254', VrrpState.FAULT, 254),
        ('INSTANCE "VI_1" STOP 1', VrrpState.STOP, 1),
        ('INSTANCE "VI_1" DELETED 1', VrrpState.STOP, 1),
        ('INSTANCE "VI_1" MASTER_RX_LOWER_PRI 150', VrrpState.MASTER, 150),
        ('INSTANCE "VI_1" MASTER_PRIORITY 148', VrrpState.MASTER, 148),
        ('INSTANCE "VI_1" BACKUP_PRIORITY 98', VrrpState.BACKUP, 98),
        ('INSTANCE "VI_1" MASTER', VrrpState.MASTER, None),
        ('GROUP "VI_1" FAULT 0', VrrpState.FAULT, None),
    ],
)
def test_every_line_of_keepalived_is_understood(
    line: str, state: VrrpState, priority: int | None
) -> None:
    """All words of its notify_fifo; a group has no priority, and is sent with 0."""
    notice = parse(line.encode())
    assert notice == Notice(
        name="VI_1",
        is_group=line.startswith("GROUP"),
        word=line.split()[2],
        state=state,
        priority=priority,
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "INSTANCE VI_1 MASTER 150",
        'INSTANCE "VI_1" {UNKNOWN} 150',
        'INSTANCE "VI_1" SOMETHING 150',
        'INSTANCE "VI_1" MASTER 150 more',
        'INSTANCE "VI_1" MASTER -1',
    ],
)
def test_other_lines_are_none(line: str) -> None:
    """What keepalived does not write is not guessed at."""
    assert parse(line.encode()) is None


@given(st.binary(max_size=80))
def test_no_line_is_an_error(line: bytes) -> None:
    """Whatever comes."""
    parse(line)


async def test_a_missing_fifo_is_made_for_root_alone(ear: Ear, path: Path) -> None:
    """So keepalived finds it, and does not make one of its own."""
    ear.fifo.attend()
    found = path.stat()
    assert stat.S_ISFIFO(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert (ear.fifo.error, ear.fifo.opened) == ("", 1)


async def test_lines_are_heard_in_their_order(ear: Ear, path: Path) -> None:
    """More than are read at once, and one that comes in two pieces."""
    ear.fifo.attend()
    names = [f"VI_{number}" for number in range(500)]
    say(path, *names)
    assert await ear.names(500) == names
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(descriptor, b'INSTANCE "VI_')
    await asyncio.sleep(0)
    os.write(descriptor, b'1000" MASTER 150\nGROUP "VG" MASTER 0\n')
    os.close(descriptor)
    assert (await ear.names(502))[500:] == ["VI_1000", "VG"]


async def test_what_was_said_before_we_came_is_not_heard(ear: Ear, path: Path) -> None:
    """A full pipe of it, kept alive by a keepalived that has it open."""
    os.mkfifo(path, 0o600)
    keepalived = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with closing(os.fdopen(keepalived, "wb", buffering=0)) as fifo:
        while fifo.write(b'INSTANCE "VI_OLD" MASTER 150\n'):
            pass
        ear.fifo.attend()
        say(path, "VI_NEW")
        assert await ear.names(1) == ["VI_NEW"]


async def test_a_fifo_made_anew_is_found_and_heard_from_its_start(ear: Ear, path: Path) -> None:
    """As keepalived does at a reload with one that it made itself."""
    ear.fifo.attend()
    say(path, "VI_1")
    path.unlink()
    os.mkfifo(path, 0o644)
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(writer, b'INSTANCE "VI_3" BACKUP 150\n')
    ear.fifo.attend()
    os.close(writer)
    assert ear.fifo.opened == 2
    assert await ear.names(2) == ["VI_1", "VI_3"]


async def test_a_fifo_that_stays_is_not_opened_again(ear: Ear) -> None:
    """Each opening is a sign that something was missed."""
    for _ in range(3):
        ear.fifo.attend()
    assert ear.fifo.opened == 1


async def test_a_line_without_end_is_bounded(ear: Ear, path: Path) -> None:
    """And it does no harm to the lines after it."""
    ear.fifo.attend()
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(writer, b"x" * 60_000 + b"\n")
    os.close(writer)
    say(path, "VI_1")
    assert await ear.names(1) == ["VI_1"]


async def test_what_others_may_write_is_refused(ear: Ear, path: Path) -> None:
    """Whoever may write could make a MASTER of a BACKUP."""
    os.mkfifo(path)
    path.chmod(0o622)
    ear.fifo.attend()
    assert ear.fifo.error == f"{path}: may be written by others than root"
    path.chmod(0o600)
    ear.fifo.attend()
    assert ear.fifo.error == ""


async def test_what_is_no_fifo_is_refused(ear: Ear, path: Path) -> None:
    """A file is left alone, and so is a missing folder."""
    path.write_text("precious")
    ear.fifo.attend()
    assert ear.fifo.error == f"{path}: is not a FIFO"
    assert path.read_text() == "precious"
    elsewhere = Ear(path / "fifo")
    elsewhere.fifo.attend()
    assert elsewhere.fifo.error == f"{path}/fifo: Not a directory"


async def test_a_symlink_is_not_followed(ear: Ear, path: Path) -> None:
    """It could lead to where others write."""
    os.mkfifo(f"{path}.other")
    path.symlink_to(f"{path}.other")
    ear.fifo.attend()
    assert ear.fifo.error == f"{path}: Too many levels of symbolic links"


async def test_nothing_stays_open(path: Path) -> None:
    """Also of a FIFO that was refused."""
    before = descriptors()
    path.write_text("")
    for _ in range(5):
        ear = Ear(path)
        ear.fifo.attend()
        ear.fifo.close()
        ear.fifo.close()
    assert descriptors() == before
