"""The local sockets: who may ask, what is answered, and that nobody can hold sentinel up."""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import socket
import stat
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from privileges import IS_ROOT, as_nobody

from sentinel.drivers.localsocket import CLIENTS_MAX, WRITE_TIMEOUT_S, LocalSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

#: More than the kernel takes without being read.
LONG = "x" * 4_000_000


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[LocalSocket]:
    """Give an open socket that answers ``{}``."""
    status = LocalSocket(tmp_path / "status.sock", "")
    await status.open(lambda _line: "{}")
    yield status
    status.close()


def names_in(folder: Path) -> list[str]:
    """Return what is in *folder*."""
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that everybody may pass."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


async def ask(path: Path) -> bytes:
    """Connect and read all there is."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_whoever_connects_is_told_once(served: LocalSocket) -> None:
    """One line, then the end; nothing has to be said first."""
    assert served.error == ""
    assert await asyncio.gather(*(ask(served.path) for _ in range(CLIENTS_MAX))) == [b"{}\n"] * 8


async def test_every_answer_is_made_when_it_is_asked_for(tmp_path: Path) -> None:
    """Nobody gets an old one."""
    count = iter(range(10))
    status = LocalSocket(tmp_path / "status.sock", "")
    await status.open(lambda _line: str(next(count)))
    try:
        assert [await ask(status.path) for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
    finally:
        status.close()


async def test_another_document_is_given_without_a_gap(served: LocalSocket) -> None:
    """A reload brings another one; the socket stays where it is."""
    inode = served.path.stat().st_ino
    await served.open(lambda _line: "[]")
    assert await ask(served.path) == b"[]\n"
    assert served.path.stat().st_ino == inode


async def test_a_long_answer_arrives_whole(tmp_path: Path) -> None:
    """A thousand servers do not fit the kernel's buffer."""
    status = LocalSocket(tmp_path / "status.sock", "")
    await status.open(lambda _line: LONG)
    try:
        assert len(await ask(status.path)) == len(LONG) + 1
    finally:
        status.close()


async def test_who_does_not_read_is_dropped(tmp_path: Path) -> None:
    """At a deadline; until then the places are taken, and others are turned away at once."""
    status = LocalSocket(tmp_path / "status.sock", "")
    await status.open(lambda _line: LONG)
    clients = []
    try:
        for _ in range(CLIENTS_MAX):
            client = socket.socket(socket.AF_UNIX)
            client.connect(os.fspath(status.path))
            clients.append(client)
        with suppress(ConnectionError):
            assert await ask(status.path) == b""
        async with asyncio.timeout(WRITE_TIMEOUT_S * 10):
            await served_again(status.path, LONG)
    finally:
        for client in clients:
            client.close()
        status.close()


async def served_again(path: Path, document: str) -> None:
    """Ask until the answer is *document*: nobody tells a client that there is room again."""
    answer = b""
    while answer != document.encode() + b"\n":
        await asyncio.sleep(0.01)
        with suppress(ConnectionError):
            answer = await ask(path)


async def test_who_goes_away_is_forgotten(served: LocalSocket) -> None:
    """A client that closes at once, a hundred times over, takes nobody's place."""
    for _ in range(100):
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(os.fspath(served.path))
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await served_again(served.path, "{}")


async def test_only_root_may_ask_by_default(served: LocalSocket) -> None:
    """No moment at which it is open for others: it is bound under another name first."""
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600
    assert names_in(served.path.parent) == ["status.sock"]


@pytest.mark.skipif(not IS_ROOT, reason="only root can become someone else")
@pytest.mark.parametrize(("group", "error"), [("nogroup", 0), ("daemon", errno.EACCES)])
async def test_a_group_may_ask(open_folder: Path, group: str, error: int) -> None:
    """Its members, and nobody else."""
    status = LocalSocket(open_folder / "status.sock", group)
    await status.open(lambda _line: "{}")
    try:
        found = status.path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_gid == grp.getgrnam(group).gr_gid
        with as_nobody(), closing(socket.socket(socket.AF_UNIX)) as client:
            assert client.connect_ex(os.fspath(status.path)) == error
    finally:
        status.close()


@pytest.mark.parametrize(
    ("path", "group", "words"),
    [
        ("none/status.sock", "", "No such file"),
        ("x" * 120, "", "too long"),
    ],
)
async def test_what_cannot_be_opened_is_told(
    tmp_path: Path, path: str, group: str, words: str
) -> None:
    """The daemon goes on without it and says why; closing it is no error."""
    status = LocalSocket(tmp_path / path, group)
    await status.open(lambda _line: "{}")
    assert words in status.error
    status.close()
    assert not (tmp_path / ".status.sock.new").exists()


async def test_a_group_that_is_missing_leaves_root(tmp_path: Path) -> None:
    """Who looks why nobody may ask must be able to; once there is a group, it may."""
    status = LocalSocket(tmp_path / "status.sock", "no-such-group")
    await status.open(lambda _line: "{}")
    try:
        assert "there is no group no-such-group, so that only root may ask" in status.error
        assert stat.S_IMODE(status.path.stat().st_mode) == 0o600
        assert await ask(status.path) == b"{}\n"
    finally:
        status.close()
    assert names_in(tmp_path) == []


async def test_what_a_killed_one_left_is_replaced(tmp_path: Path) -> None:
    """The socket's file, and the temporary one, when nobody listens there."""
    for name in ("status.sock", ".status.sock.new"):
        with closing(socket.socket(socket.AF_UNIX)) as left:
            left.bind(os.fspath(tmp_path / name))
    status = LocalSocket(tmp_path / "status.sock", "")
    await status.open(lambda _line: "{}")
    try:
        assert status.error == ""
        assert await ask(status.path) == b"{}\n"
    finally:
        status.close()
    assert names_in(tmp_path) == []


async def test_one_that_listens_is_not_replaced(served: LocalSocket) -> None:
    """Whoever acts must stay visible; a later attempt may succeed."""
    second = LocalSocket(served.path, "")
    await second.open(lambda _line: "[]")
    assert "another process listens on it" in second.error
    second.close()
    assert await ask(served.path) == b"{}\n"
    served.close()
    await second.open(lambda _line: "[]")
    assert second.error == ""
    assert await ask(served.path) == b"[]\n"
    second.close()


async def test_a_successors_socket_is_left_alone(served: LocalSocket) -> None:
    """Removed by hand and opened by another: it is not ours to remove."""
    served.path.unlink()
    second = LocalSocket(served.path, "")
    await second.open(lambda _line: "[]")
    try:
        served.close()
        assert await ask(second.path) == b"[]\n"
    finally:
        second.close()


async def test_an_order_is_heard_before_it_is_answered(tmp_path: Path) -> None:
    """A socket that hears answers the one line it was given."""
    control = LocalSocket(tmp_path / "control.sock", "", hears=True)
    await control.open(lambda line: line.upper().strip())
    reader, writer = await asyncio.open_unix_connection(control.path)
    writer.write(b"pau")
    await writer.drain()
    writer.write(b"se\n")
    assert await reader.read() == b"PAUSE\n"
    writer.close()
    await writer.wait_closed()
    control.close()


@pytest.mark.parametrize("line", [b"no end", b"x" * 100_000 + b"\n", b"\xff\xfe\n"])
async def test_what_is_no_line_is_not_answered(tmp_path: Path, line: bytes) -> None:
    """A client that ends early, writes on and on, or writes no text, is hung up on."""
    heard: list[str] = []
    control = LocalSocket(tmp_path / "control.sock", "", hears=True)

    def answer(line: str) -> str:
        heard.append(line)
        return "{}"

    await control.open(answer)
    reader, writer = await asyncio.open_unix_connection(control.path)
    with suppress(ConnectionError):
        writer.write(line)
        writer.write_eof()
        assert await reader.read() == b""
    assert heard == []
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    control.close()
