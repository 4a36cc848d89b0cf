"""What in keepalived.conf stands in sentinel's way: one sentence each, with place and cure.

A planned hand-over lowers the priority through the weighted track file; where that cannot
work, sentinel must go through FAULT instead, and the people on call must know it beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from os.path import normpath
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentinel.keepalivedcfg.reader import KeepalivedConf
    from sentinel.vrrp import Tracker, VrrpInstance

_OWNER: Final = 255
_SO: Final = "so a hand-over must go through FAULT"
_HOOK: Final = "chk_sentinel.sh"
#: It starts HAProxy and stops keepalived by itself.
_OLD_HOOK: Final = "chk_haproxy.sh"


def findings(
    conf: KeepalivedConf, *, track_file: str, weighted_file: str, fifo: str
) -> tuple[str, ...]:
    """Return all that people should know at the start: the notes of *conf*, then what is found.

    *track_file* is sentinel's weightless track file, *weighted_file* the one for priorities, and
    *fifo* where it hears keepalived.
    """
    if conf.error:
        return (f"cannot read {conf.error}: correct vrrp.file, or let sentinel read it",)
    return (*conf.notes, *_found(conf, track_file, weighted_file, fifo))


def _found(conf: KeepalivedConf, track_file: str, weighted_file: str, fifo: str) -> Iterator[str]:
    first = conf.files[0] if conf.files else ""
    if not conf.instances:
        yield f"{first}: has no vrrp_instance, so there is no VIP to follow: add one"
    if normpath(fifo) not in map(normpath, conf.fifos):
        yield (
            f"{first}: keepalived does not say its state to {fifo}, so changes are seen late:"
            f" add vrrp_notify_fifo {fifo} to global_defs"
        )
    for instance, written in zip(conf.instances, conf.places, strict=True):
        place = f"{written}: vrrp_instance {instance.name}"
        yield from (f"{place}: {words}" for words in _fault(instance, track_file))
        yield from (f"{place}: {words}" for words in _scripts(instance))
        yield from (f"{place}: {words}" for words in _hand_over(conf, instance, weighted_file))


def _fault(instance: VrrpInstance, path: str) -> Iterator[str]:
    """Say what keeps FAULT from working."""
    tracker = _of(instance.track_files, path)
    if tracker is None:
        yield (
            f"does not track {path}, so a dead HAProxy keeps the VIP for longer than it must:"
            f" add track_file with weight 0 for {path}"
        )
    elif tracker.weight:
        yield (
            f"tracks {path} with weight {tracker.weight}, so a failure does not lead to FAULT:"
            f" set weight 0"
        )


def _scripts(instance: VrrpInstance) -> Iterator[str]:
    """Say whether the hook is there, and nothing that works against sentinel."""
    scripts = {PurePath(tracker.path).name: tracker.path for tracker in instance.track_scripts}
    if _OLD_HOOK in scripts:
        yield (
            f"runs {scripts[_OLD_HOOK]}, which starts HAProxy and stops keepalived against"
            f" sentinel: put {_HOOK} in its place"
        )
    elif _HOOK not in scripts:
        yield (
            f"tracks no script {_HOOK}, so nobody looks at HAProxy while sentinel is gone:"
            " add a vrrp_script for it"
        )


def _hand_over(conf: KeepalivedConf, instance: VrrpInstance, path: str) -> Iterator[str]:
    """Say what keeps a lower priority from handing the VIP over."""
    tracker = _of(instance.track_files, path)
    if instance.priority == _OWNER:
        yield f"has priority {_OWNER}, which no weight can lower, {_SO}: write priority 254 or less"
    elif tracker is None or not tracker.weight:
        yield _why_unweighted(conf, instance, tracker, path)
    if instance.nopreempt:
        yield (
            f"has nopreempt, and where the peer has it too a lower priority moves nothing, {_SO}:"
            " remove nopreempt on both nodes if that loses too much"
        )


def _why_unweighted(
    conf: KeepalivedConf, instance: VrrpInstance, tracker: Tracker | None, path: str
) -> str:
    if instance.group and instance.group not in conf.weighted_groups:
        return (
            f"is in vrrp_sync_group {instance.group} without sync_group_tracking_weight, and the"
            f" group does not track {path}, {_SO}: let the group track it with weight 1"
        )
    if tracker is None:
        return f"does not track {path}, {_SO}: add track_file with weight 1 for {path}"
    return f"tracks {path} with weight 0, {_SO}: set weight 1"


def _of(trackers: Sequence[Tracker], path: str) -> Tracker | None:
    wanted = normpath(path)
    return next((tracker for tracker in trackers if normpath(tracker.path) == wanted), None)
