"""Read keepalived.conf as keepalived would, into the nouns of ``vrrp``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sentinel.keepalivedcfg.addresses import Base, Macvlans
from sentinel.keepalivedcfg.blocks import Statement, nested
from sentinel.keepalivedcfg.instances import OWNER, Draft
from sentinel.keepalivedcfg.notes import Notes
from sentinel.keepalivedcfg.source import Source
from sentinel.keepalivedcfg.trackers import FILE, SCRIPT, Trackers, joined, unweighted
from sentinel.keepalivedcfg.words import integer
from sentinel.vrrp import Tracker, Vip, VrrpInstance, VrrpState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_VERSION: Final = 2
_PREFIX: Final = "vrrp"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepalivedConf:
    """What one node's configuration says; *error* is why the first file could not be read.

    *files* are all that were read, *fifos* the paths that ``notify_fifo`` and ``vrrp_notify_fifo``
    name. *track_files* and *scripts* are all that are defined, tracked or not. *interfaces* are
    those that must exist before keepalived starts, so no macvlan of its own. *places*
    says where each of *instances* is written (``FILE:LINE``), *weighted_groups* are the sync groups
    whose members' own weights count. *notes* are sentences with place and cure.
    """

    error: str = ""
    files: tuple[str, ...] = ()
    instances: tuple[VrrpInstance, ...] = ()
    fifos: tuple[str, ...] = ()
    track_files: tuple[Tracker, ...] = ()
    scripts: tuple[Tracker, ...] = ()
    interfaces: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    weighted_groups: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def read(path: str, *, config_id: str) -> KeepalivedConf:
    """Read the configuration that begins at *path*; never raises, and is bounded.

    *config_id* is keepalived's ``--config-id``; empty stands for its default, the host name up to
    the first dot. Blocks on the disk: call it in a thread.
    """
    notes = Notes()
    source = Source(config_id or os.uname().nodename.partition(".")[0], notes)
    if why := source.begin(path):
        return KeepalivedConf(error=f"{path}: {why}")
    reading = _Reading(notes=notes, top=nested(source.lines()))
    instances = tuple(reading.instances())
    return KeepalivedConf(
        files=tuple(dict.fromkeys(source.files)),
        instances=instances,
        fifos=tuple(filter(None, map(reading.globals.first, ("notify_fifo", "vrrp_notify_fifo")))),
        track_files=tuple(reading.trackers.files.values()),
        scripts=tuple(reading.trackers.scripts.values()),
        interfaces=tuple(reading.interfaces()),
        places=tuple(draft.place for draft in reading.drafts.values()),
        weighted_groups=frozenset(g.name for g in reading.groups.values() if g.weighted),
        notes=notes.all(),
    )


@dataclass(slots=True, kw_only=True)
class _Group:
    """One ``vrrp_sync_group``; *weighted* is ``sync_group_tracking_weight``."""

    name: str
    members: Sequence[str] = ()
    weighted: bool = False
    track_files: list[Tracker] = field(default_factory=list)
    track_scripts: list[Tracker] = field(default_factory=list)


class _Reading:
    """The blocks from first to last, then the instances as the whole makes them."""

    def __init__(self, *, notes: Notes, top: Statement) -> None:
        self.notes = notes
        self.top = top
        self.globals = Statement(
            inside=[line for block in top.every("global_defs") for line in block.inside]
        )
        self.trackers = Trackers.of(top)
        self.drafts: dict[str, Draft] = {}
        self.groups: dict[str, _Group] = {}
        for block in top.inside:
            self._take(block)

    def _take(self, block: Statement) -> None:
        match block.words:
            case ["vrrp_instance", name]:
                self._take_instance(name, block)
            case ["vrrp_sync_group", name] if name not in self.groups:
                self.groups[name] = self._group(name, block)
            case ["vrrp_instance", *_]:
                self.notes.add(
                    block.place, "keepalived skips a vrrp_instance without a name: name it"
                )
            case _:
                self.trackers.define(block)

    def _take_instance(self, name: str, block: Statement) -> None:
        draft = Draft(name=name, place=block.place)
        if name in self.drafts:
            self.notes.add(block.place, f"keepalived skips a second {draft}: rename or remove it")
            return
        for statement in block.inside:
            draft.take(statement, self.notes)
        draft.track_files = self.trackers.tracked(FILE, block, str(draft), self.notes)
        draft.track_scripts = self.trackers.tracked(SCRIPT, block, str(draft), self.notes)
        for missing, keyword in (
            (draft.interface, "interface"),
            (draft.router_id, "virtual_router_id"),
        ):
            if not missing:
                self.notes.add(
                    draft.place, f"keepalived refuses a {draft} with no {keyword}: add it"
                )
        self.drafts[name] = draft

    def _group(self, name: str, block: Statement) -> _Group:
        owner = f"vrrp_sync_group {name}"
        lists = [lines.inside for lines in block.every("group")]
        return _Group(
            name=name,
            members=[word for line in (lists[0] if lists else ()) for word in line.words],
            weighted=any(block.every("sync_group_tracking_weight")),
            track_files=self.trackers.tracked(FILE, block, owner, self.notes),
            track_scripts=self.trackers.tracked(SCRIPT, block, owner, self.notes),
        )

    def instances(self) -> Iterator[VrrpInstance]:
        """Yield the instances as keepalived runs them."""
        version = integer(self.globals.first("vrrp_version"), _VERSION, 3) or _VERSION
        strict = any(self.globals.every("vrrp_strict"))
        for draft in self.drafts.values():
            draft.settle(version, strict=strict, notes=self.notes)
        macvlans = Macvlans(taken={draft.vmac for draft in self.drafts.values()})
        for draft in self.drafts.values():
            groups = (group for group in self.groups.values() if draft.name in group.members)
            group = next(groups, _Group(name="", weighted=True))
            yield VrrpInstance(
                name=draft.name,
                interface=draft.interface,
                router_id=draft.router_id,
                version=draft.version,
                priority=draft.priority,
                advert_int_s=draft.advert_int_s,
                initial=draft.state or VrrpState.BACKUP,
                nopreempt=draft.nopreempt,
                preempt_delay_s=draft.preempt_delay_s,
                source=draft.source,
                peers=tuple(draft.peers),
                group=group.name,
                vips=tuple(self._vips(draft, macvlans)),
                track_files=self._tracked(draft, group, FILE),
                track_scripts=self._tracked(draft, group, SCRIPT),
            )

    def _vips(self, draft: Draft, macvlans: Macvlans) -> Iterator[Vip]:
        prefix = self.globals.first("vmac_prefix") or _PREFIX
        own = draft.interface
        if draft.use_vmac:
            base = Base(router_id=draft.router_id, family=draft.family, interface=draft.interface)
            own = macvlans.name(base, prefix, draft.vmac)
        for vip in draft.vips:
            family = vip.address.version
            device = vip.device or draft.interface
            at_home = device == draft.interface and family == draft.family
            if at_home and (draft.use_vmac or not vip.use_vmac):
                device = own
            elif vip.use_vmac or (draft.use_vmac_addr and not at_home):
                base = Base(router_id=draft.router_id, family=family, interface=device)
                device = macvlans.name(base, self.globals.first("vmac_addr_prefix") or prefix)
            yield Vip(address=str(vip.address), prefix=vip.prefix, interface=device)

    def _tracked(self, draft: Draft, group: _Group, kind: str) -> tuple[Tracker, ...]:
        """Return what counts for one instance in the end, and say what does not."""
        own, groups = (
            (draft.track_files, group.track_files)
            if kind == FILE
            else (draft.track_scripts, group.track_scripts)
        )
        if draft.priority == OWNER or not group.weighted:
            own, dropped = unweighted(own, kind)
            why = (
                f"weights do not count in vrrp_sync_group {group.name}: let the group track it"
                if not group.weighted
                else f"weights do not count with priority {OWNER}: write priority 254 or less"
            )
            for tracker in dropped:
                self.notes.add(
                    draft.place, f"{draft}: keepalived drops {kind} {tracker.name}, {why}"
                )
        if any(
            self.drafts[name].priority == OWNER for name in group.members if name in self.drafts
        ):
            groups = [Tracker(name=t.name, path=t.path, reverse=t.reverse) for t in groups]
        return joined(own, groups)

    def interfaces(self) -> Iterator[str]:
        """Yield the interfaces that the files name, each once."""
        drafts = self.drafts.values()
        named = [draft.interface for draft in drafts]
        named += [vip.device for draft in drafts for vip in draft.vips]
        blocks = self.top.every("vrrp_instance", "vrrp_sync_group")
        tracked = (lines for block in blocks for lines in block.every("track_interface"))
        named += [line.keyword for lines in tracked for line in lines.inside]
        yield from dict.fromkeys(filter(None, named))
