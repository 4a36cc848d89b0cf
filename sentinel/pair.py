"""The daemon's view of the pair: VRRP on this node, rivals for its VIPs, and the peer's sentinel.

Composed here and handed to ``wiring`` as a whole, because all of it rests on one reading of
keepalived.conf.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from sentinel import keepalivedcfg, peerdocument
from sentinel.actions import Outcome
from sentinel.aside import Aside
from sentinel.checks import Check
from sentinel.checks.peer import PeerCheck
from sentinel.checks.rivals import RivalsCheck
from sentinel.checks.vrrp import VrrpCheck
from sentinel.config import Config
from sentinel.drivers.addresses import Addresses
from sentinel.drivers.peerserver import PeerServer
from sentinel.events import AddressTaken, InstanceTakenOver
from sentinel.neighbours.announce import announce
from sentinel.vrrp import InstanceView, Vip, VrrpInstance, VrrpView

#: A disk that needs longer hangs: what it says then is not waited for.
READ_TIMEOUT_S: Final = 3.0


class Pair:
    """What one configuration wants to know of the pair, until ``close``."""

    def __init__(  # noqa: PLR0913  (all that it is plugged into, by name)
        self,
        config: Config,
        *,
        node: str,
        view: Callable[[], VrrpView | None],
        keepalived_pid: Callable[[], int],
        wake: Callable[[str], None],
        tell: Callable[[AddressTaken | InstanceTakenOver], None],
        aside: Aside,
    ) -> None:
        """Follow keepalived as *config* says; *view* is what was seen last, *wake* runs a check.

        *tell* takes what happened to the VIPs beside what the checks see. Files are read *aside*.
        """
        self._config = config
        self._view = view
        self._wake = wake
        self._aside = aside
        self._unread = ""
        self._conf: keepalivedcfg.KeepalivedConf | None = None  # before it is known
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
            lambda instance: tell(InstanceTakenOver(instance=instance)),
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
        if self._conf is None or not self._marks:
            return ()
        return keepalivedcfg.findings(
            self._conf,
            track_file=self._config.track_file,
            weighted_file=self._config.priority_file,
            fifo=self._config.fifo,
        )

    @property
    def error(self) -> str:
        """Why keepalived.conf cannot be read, or the peer cannot ask this node; else empty."""
        return self._unread or (self._server.error if self._server else "")

    async def refresh(self) -> bool:
        """Read keepalived.conf again if one of its files has changed; tell whether that says more.

        One that is not there, or no more, changes nothing: keepalived goes by what it has read.
        """
        settings = self._config.vrrp
        if not settings.enabled:
            return False
        read = partial(_read, settings.file, settings.config_id, self._marks)
        try:
            found = await self._aside.run(read, READ_TIMEOUT_S)
        except OSError as error:
            self._unread = str(error) if error.errno is None else f"{settings.file}: {error}"
            return False
        self._unread = ""
        before = self._conf
        self._conf, self._marks = found or (before or keepalivedcfg.KeepalivedConf(), self._marks)
        if self._conf == before:
            return False
        self._wake("vrrp")
        return bool(self._marks)

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

    def _instances(self) -> tuple[VrrpInstance, ...] | None:
        return self._conf.instances if self._conf is not None else None

    def _held(self) -> tuple[InstanceView, ...]:
        view = self._view()
        return view.held if view else ()


def _read(
    file: str, config_id: str, known: Mapping[str, int]
) -> tuple[keepalivedcfg.KeepalivedConf, dict[str, int]] | None:
    """Return what *file* says, and the marks of all that it includes; None when that is *known*."""
    marks = _marks((file, *known))
    if marks == known or not marks[file]:
        return None
    conf = keepalivedcfg.read(file, config_id=config_id)
    found = _marks((file, *_places(conf)))
    # what changed while it was being read will be read again: the mark from before counts
    return conf, {path: marks.get(path, mark) for path, mark in found.items()}


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
