"""The daemon's view of the pair: VRRP on this node, rivals for its VIPs, and the peer's sentinel.

Composed here and handed to ``wiring`` as a whole, because all of it rests on one reading of
keepalived.conf.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from sentinel import keepalivedcfg, peerdocument
from sentinel.actions import Outcome
from sentinel.checks import Check
from sentinel.checks.peer import PeerCheck
from sentinel.checks.rivals import RivalsCheck
from sentinel.checks.vrrp import VrrpCheck
from sentinel.config import Config
from sentinel.drivers.addresses import Addresses
from sentinel.drivers.peerserver import PeerServer
from sentinel.events import AddressTaken, InstanceClaimed
from sentinel.neighbours.announce import announce
from sentinel.vrrp import InstanceView, Vip, VrrpInstance, VrrpView


class Pair:
    """What one configuration wants to know of the pair, until ``close``."""

    def __init__(
        self,
        config: Config,
        *,
        node: str,
        view: Callable[[], VrrpView | None],
        keepalived_pid: Callable[[], int],
        wake: Callable[[str], None],
        tell: Callable[[AddressTaken | InstanceClaimed], None],
    ) -> None:
        """Follow keepalived as *config* says; *view* is what was seen last, *wake* runs a check.

        *tell* takes what happened to the VIPs beside what the checks see.
        """
        self._config = config
        self._view = view
        self._conf = keepalivedcfg.KeepalivedConf()
        self._marks: dict[str, int] = {}  # of the files, as they were read
        self._addresses = Addresses(
            lambda: wake("vrrp"),
            lambda removal: tell(AddressTaken(address=removal.address, by=removal.by)),
        )
        self._vrrp = VrrpCheck(
            replace(config.vrrp, fifo=config.fifo),
            self._instances,
            self._addresses.present,
            keepalived_pid,
            lambda: wake("vrrp"),
        )
        self._rivals = RivalsCheck(
            config.vrrp.pace,
            self._held,
            announce,
            lambda: wake("rivals"),
            lambda instance: tell(InstanceClaimed(instance=instance)),
        )
        peer = config.peer
        self._peer = PeerCheck(peer, node, peerdocument.parse) if peer.url else None
        self._server = PeerServer(peer.listen) if peer.listen else None

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks that this configuration wants."""
        vrrp = (self._vrrp, self._rivals) if self._config.vrrp.enabled else ()
        return (*vrrp, *((self._peer,) if self._peer else ()))

    @property
    def advice(self) -> tuple[str, ...]:
        """What people should know of keepalived.conf; nothing where there is none."""
        if not self._config.vrrp.enabled or not self._marks:
            return ()
        return keepalivedcfg.findings(
            self._conf,
            track_file=self._config.track_file,
            weighted_file=self._config.priority_file,
            fifo=self._config.fifo,
        )

    @property
    def error(self) -> str:
        """Why the peer cannot ask this node; empty while it can, or is not meant to."""
        return self._server.error if self._server else ""

    async def refresh(self) -> bool:
        """Read keepalived.conf again if one of its files has changed; tell whether that says more.

        One that is not there, or no more, changes nothing: keepalived goes by what it has read.
        """
        first = self._config.vrrp.file
        marks = await asyncio.to_thread(_marks, (first, *self._marks))
        if not self._config.vrrp.enabled or marks == self._marks or not marks[first]:
            return False
        before = self._conf if self._marks else None
        config_id = self._config.vrrp.config_id
        self._conf = await asyncio.to_thread(keepalivedcfg.read, first, config_id=config_id)
        found = await asyncio.to_thread(_marks, (first, *_places(self._conf)))
        # what changed while it was being read will be read again: the mark from before counts
        self._marks = {path: marks.get(path, mark) for path, mark in found.items()}
        return self._conf != before

    async def serve(self, document: Callable[[], str]) -> None:
        """Answer the peer, until cancelled."""
        if self._server is not None:
            await self._server.run(document)

    async def local(self) -> frozenset[str] | None:
        """Return every address of this node; None when it cannot be told."""
        return await self._addresses.local()

    async def remove(self, vip: Vip) -> Outcome:
        """Take *vip* off this node."""
        return await self._addresses.remove(vip)

    def close(self) -> None:
        """Stop watching."""
        self._vrrp.close()
        self._rivals.close()
        self._addresses.close()

    def _instances(self) -> tuple[VrrpInstance, ...]:
        return self._conf.instances

    def _held(self) -> tuple[InstanceView, ...]:
        view = self._view()
        return view.held if view else ()


def _places(conf: keepalivedcfg.KeepalivedConf) -> tuple[str, ...]:
    """Return the files, and the folders that another one may be included from."""
    return tuple(dict.fromkeys((*conf.files, *map(os.path.dirname, conf.files))))


def _marks(paths: Iterable[str]) -> dict[str, int]:
    """Return what tells versions of each path apart, 0 for what is not there."""
    return {path: _mark(path) for path in paths}


def _mark(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0
