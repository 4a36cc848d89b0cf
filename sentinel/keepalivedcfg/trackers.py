"""Track files and scripts: where they are defined, who tracks them, and what is left of that.

A tracker must be defined above whoever tracks it. Weights do not count for the owner of the
address (priority 255), and in a sync group only when the group itself tracks the file or script or
has ``sync_group_tracking_weight`` (keepalived.conf(5), VRRP synchronization group(s)).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from sentinel.keepalivedcfg.words import integer
from sentinel.vrrp import Tracker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentinel.keepalivedcfg.blocks import Statement
    from sentinel.keepalivedcfg.notes import Notes

FILE: Final = "track_file"
SCRIPT: Final = "track_script"
#: The blocks that define what these track.
DEFINED_BY: Final = {FILE: ("track_file", "vrrp_track_file"), SCRIPT: ("vrrp_script",)}
_WEIGHT_MAX: Final = 254
_SCRIPT_WEIGHT_MAX: Final = 253
_FILE_WEIGHT: Final = 1


@dataclass(slots=True, kw_only=True)
class Trackers:
    """The track files and scripts defined so far, and the names of those yet to come."""

    files: dict[str, Tracker] = field(default_factory=dict)
    scripts: dict[str, Tracker] = field(default_factory=dict)
    later: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, top: Statement) -> Trackers:
        """Begin with nothing defined, knowing the names that *top* defines somewhere."""
        return cls(
            later=frozenset(
                (kind, block.value)
                for kind, keywords in DEFINED_BY.items()
                for block in top.every(*keywords)
            )
        )

    def define(self, block: Statement) -> None:
        """Take a block that defines a track file or a script; the first of its name counts."""
        if block.keyword in DEFINED_BY[FILE] and block.value and block.first("file"):
            self.files.setdefault(block.value, _file(block))
        elif block.keyword in DEFINED_BY[SCRIPT] and block.value and (path := _program(block)):
            self.scripts.setdefault(block.value, _script(block, path))

    def tracked(self, kind: str, block: Statement, owner: str, notes: Notes) -> list[Tracker]:
        """Return what the block *kind* of an instance or group, which *owner* names, tracks."""
        known = self.files if kind == FILE else self.scripts
        found: dict[str, Tracker] = {}
        for use in (use for uses in block.every(kind) for use in uses.inside if use.words):
            name = use.keyword
            if name in known:
                found.setdefault(name, _weighed(known[name], use, kind))
                continue
            below = (kind, name) in self.later
            cure = "move its block above" if below else f"define it by {DEFINED_BY[kind][0]}"
            notes.add(
                use.place, f"{owner}: keepalived ignores {kind} {name}, not known yet: {cure}"
            )
        return list(found.values())


def _file(block: Statement) -> Tracker:
    uses = [use for use in block.every("weight") if use.value]
    weight, reverse = _FILE_WEIGHT, False
    for use in uses:
        if weight == _FILE_WEIGHT:  # a later one is refused
            number = integer(use.value, -_WEIGHT_MAX, _WEIGHT_MAX)
            weight = _FILE_WEIGHT if number is None else number
            reverse = reverse or use.words[2:3] == ("reverse",)
    return Tracker(name=block.value, path=block.first("file"), weight=weight, reverse=reverse)


def _script(block: Statement, path: str) -> Tracker:
    weight, reverse = 0, False
    for use in block.every("weight"):
        weight = integer(use.value, -_SCRIPT_WEIGHT_MAX, _SCRIPT_WEIGHT_MAX) or 0
        reverse = reverse or use.words[2:3] == ("reverse",)
    return Tracker(name=block.value, path=path, weight=weight, reverse=reverse)


def _program(block: Statement) -> str:
    """Return the program of a script: the first word in the second word of its line."""
    path = ""
    for line in block.every("script"):
        try:
            words = shlex.split(line.text)
            path = shlex.split(words[1])[0] if len(words) > 1 else path
        except (ValueError, IndexError):  # a quote without its twin, or nothing inside two
            continue
    return path


def _weighed(tracker: Tracker, use: Statement, kind: str) -> Tracker:
    """Return *tracker* with the weight that its user gives it: ``NAME weight 5 reverse``."""
    match use.words[1:]:
        case ["weight", word, *rest]:
            number = integer(word, -_WEIGHT_MAX, _WEIGHT_MAX)
            weight = tracker.weight if number is None else number
            if kind == SCRIPT:
                weight = max(-_SCRIPT_WEIGHT_MAX, min(weight, _SCRIPT_WEIGHT_MAX))
            reverse = {"reverse": True, "noreverse": False}.get("".join(rest[:1]), tracker.reverse)
            return replace(tracker, weight=weight, reverse=reverse)
        case _:
            return tracker


def unweighted(trackers: Iterable[Tracker], kind: str) -> tuple[list[Tracker], list[Tracker]]:
    """Return what remains where weights do not count, and what is dropped.

    A track file of weight 1, the default, stays with weight 0; whatever else has one is dropped.
    """
    kept: list[Tracker] = []
    dropped: list[Tracker] = []
    for tracker in trackers:
        if kind == FILE and tracker.weight == _FILE_WEIGHT:
            kept.append(replace(tracker, weight=0))
        else:
            (dropped if tracker.weight else kept).append(tracker)
    return kept, dropped


def joined(own: Iterable[Tracker], groups: Iterable[Tracker]) -> tuple[Tracker, ...]:
    """Add the group's trackers to a member's own; its own weight 0 outlasts the group's weight."""
    found = {tracker.name: tracker for tracker in own}
    for tracker in groups:
        if tracker.name not in found or found[tracker.name].weight:
            found[tracker.name] = tracker
    return tuple(found.values())
