"""keepalived.conf as the keepalived of a node will read it: the same file, under the same name.

It stays where it is, so that an ``include`` leads to the same files, absolute or relative, and a
node's keepalived is given the config id that the plan was made with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from sentinel.keepalivedcfg import KeepalivedConf, read

#: Of these the nodes see nothing: two are the kernel's own, two are empty in every node.
APART: Final = frozenset({"proc", "sys", "dev", "run"})
#: What depends on the config id: ``@ID`` and ``@^ID`` before a line, and ``${_INSTANCE}`` in it.
_OF_ONE_NODE: Final = re.compile(r"\s*(@\^?\S+)\s|[^!#]*\$\{?(_INSTANCE)\b")
_NAMED: Final = "depends on the node: say what both are called, --config-id MASTER BACKUP"
#: The kernel tells of processes outside namespaces alone (its proc connector).
_PROCESSES: Final = re.compile(r"\s*(vrrp_track_process)\b")
_BLIND: Final = "sees no process in a namespace: take it, and track_process, out of a copy"


class PlanError(Exception):
    """No world can be built from these files; the message says why."""


def read_conf(path: Path, config_id: str, *, given: bool) -> KeepalivedConf:
    """Read one node's file; raises PlanError where keepalived could do nothing with it.

    *given* tells that a person has said the *config_id*, without which nothing may depend on it.
    """
    if not APART.isdisjoint(path.parts[1:2]):
        raise PlanError(f"{path}: a node has its own /{path.parts[1]}: copy the file elsewhere")
    conf = read(str(path), config_id=config_id)
    if conf.error:
        raise PlanError(conf.error)
    for what, why in ((_PROCESSES, _BLIND), *(() if given else ((_OF_ONE_NODE, _NAMED),))):
        for place in _found(what, conf.files):
            raise PlanError(f"{place} {why}")
    if not any(instance.vips for instance in conf.instances):
        noted = "".join(f"; {note}" for note in conf.notes)
        raise PlanError(f"{path}: no vrrp_instance has a virtual_ipaddress{noted}")
    for instance, place in zip(conf.instances, conf.places, strict=True):
        if not instance.interface:
            raise PlanError(f"{place}: vrrp_instance {instance.name} has no interface: add it")
    return conf


def check_apart(master: KeepalivedConf, backup: KeepalivedConf) -> None:
    """Raise PlanError where both nodes speak from one address."""
    sources = {instance.source for instance in master.instances if instance.source}
    for instance, place in zip(backup.instances, backup.places, strict=True):
        if instance.source in sources:
            raise PlanError(
                f"{place}: vrrp_instance {instance.name} speaks from {instance.source}, as the"
                " other node does: give each node's own file"
            )


def _found(what: re.Pattern[str], files: Iterable[str]) -> Iterator[str]:
    """Yield where it is written, and how."""
    for file in files:
        for number, line in enumerate(Path(file).read_text(errors="replace").split("\n"), 1):
            if found := what.match(line):
                yield f"{file}:{number}: {next(filter(None, found.groups()))}"
