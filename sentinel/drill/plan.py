"""The plan of a world: what the user's own files ask for, read once, before anything is built.

haproxy.cfg and the two keepalived.conf go into the nodes as they are. sentinel.toml keeps every
key but those that say who starts and stops the services, since there is no systemd in there.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from sentinel.config import Config, Manager
from sentinel.configfile import dump, load
from sentinel.drill import servers
from sentinel.drill.servers import Place, Target
from sentinel.haproxycfg import HaproxyCfg, parse
from sentinel.keepalivedcfg import KeepalivedConf, findings, read
from sentinel.vrrp import VrrpInstance

MASTER: Final = "master"
BACKUP: Final = "backup"
#: The client's own address on the switch (RFC 2544: for benchmarks).
CLIENT: Final = "198.18.0.1"
KEEPALIVED_CONF: Final = "/etc/keepalived/keepalived.conf"
SENTINEL_TOML: Final = "/etc/sentinel/sentinel.toml"
#: Where the drill keeps the commands that stand in for a service manager.
COMMANDS: Final = "/run/sentinel-drill"
#: HAProxy's master CLI, which Debian's unit has as well.
MASTER_CLI: Final = f"{COMMANDS}/haproxy-master.sock"
HOOK: Final = "/usr/libexec/keepalived/chk_sentinel.sh"
#: HAProxy's limit in the nodes: few enough for one machine to fill.
MAXCONN_MAX: Final = 1000


class PlanError(Exception):
    """No world can be built from these files; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The user's files, or the shipped ones."""

    haproxy: Path
    master: Path
    backup: Path
    sentinel: Path | None
    hook: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cable:
    """One interface of a node, its own addresses (``192.168.1.189/24``) and the switch it is in."""

    interface: str
    switch: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One node to be: what it is called, its keepalived.conf, its cables and its web servers."""

    name: str
    keepalived_conf: str
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


def make_plan(files: Files) -> Plan:
    """Read *files*; raises PlanError, OSError or sentinel's own ConfigError."""
    config = Config() if files.sentinel is None else load(str(files.sentinel))
    text = files.haproxy.read_text()
    cfg = parse([text], os.environ)
    confs = tuple(_keepalived(file) for file in (files.master, files.backup))
    found = servers.read_servers(text)
    vips = [(vip, instance) for instance in confs[0].instances for vip in instance.vips]
    names = list(dict.fromkeys(vip.address for vip, _ in vips))
    target = servers.choose_target(cfg, names)
    if target is None:
        raise PlanError(f"{files.haproxy}: no frontend listens on a VIP ({', '.join(names)})")
    cables = _cables(confs, [*names, *(place.host for place in found.places)])
    machines = tuple(
        _machine(name, file.read_text(), own, found.places)
        for name, file, own in zip(
            (MASTER, BACKUP), (files.master, files.backup), cables, strict=True
        )
    )
    switch_of = {cable.interface: cable.switch for cable in cables[0]}
    maxconn = _maxconn(cfg.maxconn)
    return Plan(
        machines=(machines[0], machines[1]),
        switches=max(switch_of.values()) + 1,
        places=_elsewhere(found.places, machines),
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


def _keepalived(file: Path) -> KeepalivedConf:
    conf = read(str(file), config_id="")
    if conf.error:
        raise PlanError(conf.error)
    if not any(instance.vips for instance in conf.instances):
        raise PlanError(f"{file}: no vrrp_instance has a virtual_ipaddress")
    nameless = [instance.name for instance in conf.instances if not instance.interface]
    if nameless:
        raise PlanError(f"{file}: vrrp_instance {nameless[0]} has no interface")
    return conf


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
    vrrp = replace(config.vrrp, file=KEEPALIVED_CONF)
    return replace(config, haproxy=haproxy, keepalived=keepalived, vrrp=vrrp)


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
    files += [KEEPALIVED_CONF, SENTINEL_TOML, HOOK, f"{COMMANDS}/haproxy-start"]
    files += [tracked.path for conf in confs for tracked in conf.track_files]
    files += [stats.path for stats in cfg.stats_sockets if stats.path.startswith("/")]
    parents = [str(Path(path).parent) for path in files]
    yield from dict.fromkeys([*parents, config.run_dir, *([cfg.chroot] if cfg.chroot else [])])


# --- the network --------------------------------------------------------------------------------


def _cables(confs: Sequence[KeepalivedConf], taken: Sequence[str]) -> list[tuple[Cable, ...]]:
    """Lay a cable to every interface; those of one virtual router lead to the same switch."""
    master, backup = confs
    switches = {name: number for number, name in enumerate(master.interfaces)}
    twin = {
        (theirs.interface): switches[ours.interface]
        for ours in master.instances
        for theirs in backup.instances
        if (ours.router_id, ours.name) == (theirs.router_id, theirs.name)
        or ours.router_id == theirs.router_id
    }
    spare = iter(range(250, 1, -1))
    used = {*taken, *(i.source for conf in confs for i in conf.instances)}
    cables = []
    for conf, other, known in ((master, backup, switches), (backup, master, twin)):
        cables.append(
            tuple(
                Cable(
                    interface=name,
                    switch=known.get(name, switches.get(name, 0)),
                    addresses=_addresses(name, conf, other, used, spare),
                )
                for name in conf.interfaces
            )
        )
    return cables


def _addresses(
    name: str, conf: KeepalivedConf, other: KeepalivedConf, used: set[str], spare: Iterator[int]
) -> tuple[str, ...]:
    """Return the addresses that the files give an interface, or one near its VIP."""
    here = [instance for instance in conf.instances if instance.interface == name]
    written = [address for instance in here for address in _sources(instance, other)]
    if not any("." in address for address in written):
        vips = [vip.address for instance in here for vip in instance.vips]
        base = next((vip for vip in vips if "." in vip), f"{servers.INVENTED}0")
        network = ip_network(f"{base}/24", strict=False)
        free = (str(network[number]) for number in spare)
        written.append(next(address for address in free if address not in used))
        used.add(written[-1])
    return tuple(f"{a}/64" if ":" in a else f"{a}/24" for a in dict.fromkeys(written))


def _sources(instance: VrrpInstance, other: KeepalivedConf) -> Iterator[str]:
    """Yield what a node must be known by: its own word, else the only peer its peer names."""
    twins = [i for i in other.instances if i.router_id == instance.router_id]
    if instance.source:
        yield instance.source
    elif len(twins) == 1 and len(twins[0].peers) == 1:
        yield twins[0].peers[0]


def _machine(name: str, text: str, cables: tuple[Cable, ...], places: Sequence[Place]) -> Machine:
    machine = Machine(name=name, keepalived_conf=text, cables=cables, places=())
    local = (*machine.addresses, "127.0.0.1", "::1")
    return replace(machine, places=tuple(place for place in places if place.host in local))


def _elsewhere(places: Sequence[Place], machines: Sequence[Machine]) -> tuple[Place, ...]:
    """Return the servers that are machines of their own."""
    on_nodes = {place for machine in machines for place in machine.places}
    return tuple(place for place in places if place not in on_nodes)
