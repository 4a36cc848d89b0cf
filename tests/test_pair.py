"""The daemon's view of the pair: the checks a configuration makes, and the files it follows."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hanging import hanging
from haproxies import DEADLINE_S
from namespaces import needs_root
from servers import answering, serving
from threadless import run_threadless

from sentinel.aside import Aside
from sentinel.config import Config, Hook, Peer, Vrrp
from sentinel.model import Verdict
from sentinel.pair import Pair
from sentinel.vrrp import VrrpView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SHIPPED: Final = Path(__file__).parents[1] / "contrib/keepalived"
BARE: Final = """\
vrrp_instance {name} {{
    interface eth0
    virtual_router_id 51
    virtual_ipaddress {{
        192.0.2.99
    }}
}}
"""


@asynccontextmanager
async def following(config: Config, aside: Aside | None = None) -> AsyncIterator[Pair]:
    """Follow a pair as *config* says; no keepalived runs, and nothing has been seen yet."""
    pair = Pair(
        config,
        node="lb1",
        view=lambda: None,
        keepalived_pid=lambda: 0,
        wake=lambda _name: None,
        tell=lambda _event: None,
        aside=aside or Aside("reading keepalived.conf"),
    )
    try:
        yield pair
    finally:
        pair.close()


def config_of(folder: Path, conf: str | None = None) -> Config:
    """Return a configuration that follows a keepalived.conf in *folder*, which may be made."""
    file = folder / "keepalived.conf"
    if conf is not None:
        file.write_text(conf)
    return Config(run_dir=str(folder), vrrp=Vrrp(file=str(file)))


def instances(pair: Pair) -> list[str]:
    """Return the names of the instances that the advice speaks of."""
    return [words.split()[2] for words in pair.advice if "tracks no script" in words]


def touch(path: Path, text: str) -> None:
    """Write *path*; it is surely newer than before, however coarse the file system's clock is."""
    before_ns = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before_ns + 1_000_000, before_ns + 1_000_000))


# --- checks by configuration ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vrrp", "peer", "names"),
    [
        (Vrrp(), Peer(), ["vrrp", "rivals"]),
        (Vrrp(enabled=False), Peer(), []),
        (Vrrp(), Peer(url="http://192.0.2.2:8406/"), ["vrrp", "rivals", "peer"]),
        (Vrrp(enabled=False), Peer(url="http://192.0.2.2:8406/"), ["peer"]),
        (Vrrp(enabled=False), Peer(listen="127.0.0.1:8406"), []),
    ],
)
async def test_checks_by_configuration(
    tmp_path: Path, vrrp: Vrrp, peer: Peer, names: list[str]
) -> None:
    """VRRP is followed unless that is switched off, a peer is asked where one is named."""
    async with following(Config(run_dir=str(tmp_path), vrrp=vrrp, peer=peer)) as pair:
        assert [check.name for check in pair.checks] == names


async def test_the_peer_is_asked_as_another_node(tmp_path: Path) -> None:
    """Whoever answers with something else is no peer to be believed."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with serving(answering(answer)) as address:
        peer = Peer(url=f"http://{address}/")
        config = Config(run_dir=str(tmp_path), vrrp=Vrrp(enabled=False), peer=peer)
        async with following(config) as pair:
            (check,) = pair.checks
            assert (await check()).verdict is Verdict.FAIL


async def test_a_place_that_is_taken_is_an_error(tmp_path: Path) -> None:
    """The peer is answered where it can be; nobody else is."""
    async with following(Config(run_dir=str(tmp_path))) as pair:
        await pair.serve(lambda: "{}")
        assert pair.error == ""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        place = f"127.0.0.1:{somebody.getsockname()[1]}"
        async with following(Config(run_dir=str(tmp_path), peer=Peer(listen=place))) as pair:
            async with asyncio.TaskGroup() as group:
                served = group.create_task(pair.serve(lambda: "{}"))
                async with asyncio.timeout(DEADLINE_S):
                    while not pair.error:  # noqa: ASYNC110  (nothing tells of it)
                        await asyncio.sleep(0.005)
                served.cancel()
            assert place in pair.error


# --- following keepalived.conf --------------------------------------------------------------------


async def test_it_is_read_once(tmp_path: Path) -> None:
    """And again only when it has changed, and says something else."""
    config = config_of(tmp_path, BARE.format(name="A"))
    file = tmp_path / "keepalived.conf"
    async with following(config) as pair:
        assert instances(pair) == []
        assert await pair.refresh()
        assert instances(pair) == ["A:"]
        assert not await pair.refresh()

        touch(file, BARE.format(name="A"))
        assert not await pair.refresh()
        touch(file, BARE.format(name="B"))
        assert await pair.refresh()
        assert instances(pair) == ["B:"]
        assert not await pair.refresh()


async def test_one_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    """Nothing is said about a keepalived that this node does not have."""
    config = config_of(tmp_path)
    async with following(config) as pair:
        assert not await pair.refresh()
        assert pair.advice == ()
        config_of(tmp_path, BARE.format(name="A"))
        assert await pair.refresh()
        assert pair.advice


async def test_one_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    """Keepalived goes by what it has read; another that takes the place is read."""
    config = config_of(tmp_path, BARE.format(name="A"))
    async with following(config) as pair:
        assert await pair.refresh()
        (tmp_path / "keepalived.conf").unlink()
        assert not await pair.refresh()
        assert instances(pair) == ["A:"]
        config_of(tmp_path, BARE.format(name="B"))
        assert await pair.refresh()
        assert instances(pair) == ["B:"]


async def test_included_files_are_followed(tmp_path: Path) -> None:
    """One that changes, one that goes, and one that comes where another one is."""
    folder = tmp_path / "conf.d"
    folder.mkdir()
    config = config_of(tmp_path, "include conf.d/*.conf\n")
    touch(folder / "a.conf", BARE.format(name="A"))
    async with following(config) as pair:
        assert await pair.refresh()
        assert instances(pair) == ["A:"]
        touch(folder / "a.conf", BARE.format(name="B"))
        assert await pair.refresh()
        assert instances(pair) == ["B:"]

        (folder / "c.conf").write_text(BARE.format(name="C"))
        os.utime(folder, ns=(1, 1))
        assert await pair.refresh()
        assert instances(pair) == ["B:", "C:"]
        (folder / "a.conf").unlink()
        assert await pair.refresh()
        assert instances(pair) == ["C:"]


async def test_one_that_cannot_be_read_is_advised_about(tmp_path: Path) -> None:
    """A folder in its place, for example."""
    (tmp_path / "keepalived.conf").mkdir()
    async with following(config_of(tmp_path)) as pair:
        assert await pair.refresh()
        (words,) = pair.advice
        assert words.startswith(f"cannot read {tmp_path}/keepalived.conf")
        assert not await pair.refresh()


async def test_one_that_hangs_holds_up_nothing(tmp_path: Path) -> None:
    """It is an error, and keepalived's instances are unknown until it answers."""
    aside = Aside("reading it")
    async with following(config_of(tmp_path, BARE.format(name="A")), aside) as pair:
        vrrp, _ = pair.checks
        async with hanging(aside, tmp_path / "pipe"):
            for _ in range(2):
                assert not await pair.refresh()
                assert pair.error == "reading it hangs"
                assert (await vrrp()).verdict is Verdict.UNKNOWN
        assert await pair.refresh()
        assert pair.error == ""
        assert instances(pair) == ["A:"]
        view = (await vrrp()).view
        assert isinstance(view, VrrpView)
        assert [seen.instance.name for seen in view.instances] == ["A"]


#: A pair that is followed where no thread can be had.
REFUSED = """
import sys
from sentinel.aside import Aside
from sentinel.config import Config, Vrrp
from sentinel.pair import Pair

async def main():
    pair = Pair(
        Config(run_dir=sys.argv[1], vrrp=Vrrp(file="/etc/keepalived.conf")),
        node="lb1", view=lambda: None, keepalived_pid=lambda: 0, wake=print, tell=print,
        aside=Aside("reading it"),
    )
    begin_no_thread()
    assert not await pair.refresh()
    assert pair.error == "/etc/keepalived.conf: [Errno 11] no thread for reading it", pair.error
    pair.close()

asyncio.run(main())
"""


@needs_root
def test_what_cannot_be_looked_at_is_an_error(tmp_path: Path) -> None:
    """And nothing that ends sentinel; a service at its TasksMax= has no thread to look in."""
    assert run_threadless(REFUSED, str(tmp_path)) == ""


async def test_switched_off_it_reads_nothing(tmp_path: Path) -> None:
    """And has no advice to give."""
    config = config_of(tmp_path, BARE.format(name="A"))
    off = Config(run_dir=str(tmp_path), vrrp=Vrrp(file=config.vrrp.file, enabled=False))
    async with following(off) as pair:
        assert not await pair.refresh()
        assert pair.advice == ()


# --- advice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classic", "fast"])
@pytest.mark.parametrize("role", ["master", "backup"])
async def test_the_shipped_pairs_need_no_advice(kind: str, role: str) -> None:
    """With the default paths; with others each of them is missed."""
    vrrp = Vrrp(file=str(SHIPPED / kind / f"{role}.conf"))
    async with following(Config(vrrp=vrrp)) as pair:
        assert await pair.refresh()
        assert pair.advice == ()
    elsewhere = Hook(track_file="/run/other/track")
    async with following(Config(run_dir="/run/other", hook=elsewhere, vrrp=vrrp)) as pair:
        assert await pair.refresh()
        said = "\n".join(pair.advice)
        assert "/run/other/vrrp.fifo" in said
        assert "does not track /run/other/track-priority" in said


async def test_nothing_is_held_before_anything_is_seen(tmp_path: Path) -> None:
    """There are no rivals for what nobody has."""
    async with following(config_of(tmp_path)) as pair:
        vrrp, rivals = pair.checks
        assert (await rivals()).detail == "not MASTER"
        assert (await vrrp()).verdict is Verdict.UNKNOWN
        await pair.refresh()
        seen = await vrrp()
        assert (seen.detail, seen.view) == ("no keepalived", VrrpView())
