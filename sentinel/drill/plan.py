"""The plan of a world: what the user's own files ask for, read once, before anything is built.

haproxy.cfg goes into the nodes as it is, and keepalived.conf is read where it is. sentinel.toml
keeps every key but those that say who starts and stops the services, since there is no systemd in
there, and those that say which keepalived.conf is the node's.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sentinel.config import Config, Manager
from sentinel.configfile import dump, load
from sentinel.drill import servers
from sentinel.drill.cables import Cable, cables_of
from sentinel.drill.conditions import asked, settled
from sentinel.drill.confs import PlanError, check_apart, read_conf
from sentinel.drill.servers import Place, Target
from sentinel.haproxycfg import HaproxyCfg, parse, statements
from sentinel.keepalivedcfg import KeepalivedConf, findings

MASTER: Final = "master"
BACKUP: Final = "backup"
#: The client's own address on the switch (RFC 2544: for benchmarks).
CLIENT: Final = "198.18.0.1"
SENTINEL_TOML: Final = "/etc/sentinel/sentinel.toml"
#: Where the drill keeps the commands that stand in for a service manager.
COMMANDS: Final = "/run/sentinel-drill"
#: HAProxy's master CLI, which Debian's unit has as well.
MASTER_CLI: Final = f"{COMMANDS}/haproxy-master.sock"
HOOK: Final = "/usr/libexec/keepalived/chk_sentinel.sh"
#: HAProxy's limit in the nodes: few enough for one machine to fill.
MAXCONN_MAX: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The user's files, or the shipped ones; *config_ids* are keepalived's on both nodes.

    None: nobody has said what the nodes are called, and nothing may depend on it.
    """

    haproxy: Path
    master: Path
    backup: Path
    sentinel: Path | None
    hook: Path | None
    config_ids: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One node to be: its name, what its keepalived is given, its cables and its web servers."""

    name: str
    keepalived_conf: str
    config_id: str
    cables: tuple[Cable, ...]
    places: tuple[Place, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The node's own addresses, without their prefix."""
        return tuple(a.partition("/")[0] for cable in self.cables for a in cable.addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that the world must hold."""

    machines: tuple[Machine, Machine]
    switches: int
    places: tuple[Place, ...]
    hosts: tuple[tuple[str, str], ...]
    vips: tuple[tuple[str, int], ...]
    target: Target
    nopreempt: bool
    advert_int_s: float
    haproxy_cfg: str
    maxconn: int
    config: Config
    hook: Path | None
    folders: tuple[str, ...]
    scripts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sentinel_toml(self) -> str:
        """The configuration of sentinel, with the service manager replaced."""
        return dump(self.config)

    def sentinel_toml_of(self, machine: Machine) -> str:
        """Return the one of a node, which knows what its keepalived reads."""
        vrrp = replace(self.config.vrrp, file=machine.keepalived_conf, config_id=machine.config_id)
        return dump(replace(self.config, vrrp=vrrp))


def make_plan(files: Files) -> Plan:
    """Read *files*; raises PlanError, OSError or sentinel's own ConfigError."""
    config = Config() if files.sentinel is None else load(str(files.sentinel))
    text = files.haproxy.read_text()
    holds = asked(config.haproxy.executable)
    texts = [settled(each, holds) for each in (text, *map(_text, config.haproxy.config[1:]))]
    cfg = parse(texts, os.environ)
    paths, ids = (files.master, files.backup), files.config_ids or (MASTER, BACKUP)
    given = files.config_ids is not None
    confs = [read_conf(path, own, given=given) for path, own in zip(paths, ids, strict=True)]
    check_apart(*confs)
    found = servers.read_servers(statements(texts, os.environ))
    vips = [(vip, instance) for instance in confs[0].instances for vip in instance.vips]
    names = list(dict.fromkeys(vip.address for vip, _ in vips))
    target = servers.choose_target(cfg, names)
    if target is None:
        raise PlanError(f"{files.haproxy}: {servers.why_no_target(cfg, names)}")
    cables = cables_of(confs, [*names, *(place.host for place in found.places)])
    master, backup = (
        Machine(name=name, keepalived_conf=str(path), config_id=own, cables=lines, places=())
        for name, path, own, lines in zip((MASTER, BACKUP), paths, ids, cables, strict=True)
    )
    away = servers.beside(cfg, found.places, {*names, *master.addresses, *backup.addresses})
    master, backup = (
        replace(node, places=servers.on_node(away, {*names, *node.addresses}))
        for node in (master, backup)
    )
    switch_of = {cable.interface: cable.switch for cable in cables[0]}
    maxconn = _maxconn(cfg.maxconn)
    return Plan(
        machines=(master, backup),
        switches=max(switch_of.values()) + 1,
        places=tuple(place for place in away if place not in master.places + backup.places),
        hosts=found.names,
        # a VIP on a macvlan is reached through the interface below it, its instance's
        vips=tuple(
            (vip.address, switch_of.get(vip.interface, switch_of.get(instance.interface, 0)))
            for vip, instance in vips
        ),
        target=target,
        nopreempt=any(instance.nopreempt for instance in confs[0].instances),
        advert_int_s=max(instance.advert_int_s for instance in confs[0].instances),
        haproxy_cfg=text,
        maxconn=maxconn,
        config=_managed(config),
        hook=files.hook,
        folders=tuple(_folders(config, confs, cfg)),
        scripts=_scripts(confs),
        notes=(*_notes(cfg.maxconn, maxconn, files, confs, config), *found.notes),
    )


def _managed(config: Config) -> Config:
    """Let the drill's own commands start and stop the services."""
    haproxy = replace(
        config.haproxy,
        manager=Manager.COMMANDS,
        start=(f"{COMMANDS}/haproxy-start",),
        stop=(f"{COMMANDS}/haproxy-stop",),
        restart=(),
    )
    keepalived = replace(
        config.keepalived,
        manager=Manager.COMMANDS,
        start=(f"{COMMANDS}/keepalived-start",),
        stop=(f"{COMMANDS}/keepalived-stop",),
    )
    return replace(config, haproxy=haproxy, keepalived=keepalived)


def _notes(
    wanted: int, maxconn: int, files: Files, confs: Sequence[KeepalivedConf], config: Config
) -> Iterator[str]:
    """Yield what differs from a real site, and what keepalived.conf keeps sentinel from."""
    yield (
        "there is no systemd in the nodes: [haproxy] and [keepalived] manager, start, stop and"
        " restart are the drill's own commands; all other keys are yours"
    )
    yield (
        f"HAProxy is started with -n {maxconn} instead of"
        f" {f'maxconn {wanted}' if wanted else 'its own limit'}, so that it can be filled here"
    )
    missing = [path for path in _scripts(confs) if not Path(path).exists()]
    for path in (path for path in missing if path != HOOK or files.hook is None):
        yield f"{path}: not on this machine; keepalived takes a missing script for a success"
    for conf in confs:
        yield from findings(
            conf,
            track_file=config.track_file,
            weighted_file=config.priority_file,
            fifo=config.fifo,
        )


def _scripts(confs: Sequence[KeepalivedConf]) -> tuple[str, ...]:
    """Return the paths of all programs that a vrrp_script calls."""
    return tuple(dict.fromkeys(script.path for conf in confs for script in conf.scripts))


def _maxconn(wanted: int) -> int:
    """Return what the machine's limit of open files lets one HAProxy have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    able = MAXCONN_MAX if hard == resource.RLIM_INFINITY else max(1, (hard - 200) // 4)
    return min(wanted or MAXCONN_MAX, able, MAXCONN_MAX)


def _folders(config: Config, confs: Sequence[KeepalivedConf], cfg: HaproxyCfg) -> Iterator[str]:
    """Yield the folders that packages, tmpfiles or an administrator would have made."""
    files = [config.haproxy.pidfile, config.lease_file, config.sign]
    files += [config.track_file, config.priority_file, config.fifo]
    files += [config.status_socket, config.control_socket, *config.haproxy.config]
    files += [SENTINEL_TOML, HOOK, f"{COMMANDS}/haproxy-start"]
    files += [tracked.path for conf in confs for tracked in conf.track_files]
    files += [stats.path for stats in cfg.stats_sockets if stats.path.startswith("/")]
    parents = [str(Path(path).parent) for path in files]
    yield from dict.fromkeys([*parents, config.run_dir, *([cfg.chroot] if cfg.chroot else [])])


def _text(path: str) -> str:
    """Return a further file of ``haproxy.config``, which the nodes see as it is here."""
    if Path(path).is_dir():
        raise PlanError(f"haproxy.config: {path} is a folder: name its files one by one")
    return Path(path).read_text()
