"""The files that a node has of its own when it boots. Pure.

haproxy.cfg as it is, commands in place of a service manager, and what systemd-tmpfiles
makes at boot (systemd/sentinel.tmpfiles.conf; keepalived's FIFO, which is no file, is the node's).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote
from typing import Final

from sentinel.drill.plan import (
    COMMANDS,
    MASTER_CLI,
    SENTINEL_TOML,
    Machine,
    Plan,
)

#: Starting what already runs is no mistake, as with init scripts: sentinel and a person may both
#: want it. The lock, held until the pidfile is written, keeps the two from starting it twice.
_START: Final = """\
#!/bin/sh
exec 9>{folder}/{name}.lock
flock 9
kill -0 "$(cat {pidfile} 2>/dev/null)" 2>/dev/null && exit 0
{command} 9>&-
"""
_STOP: Final = """\
#!/bin/sh
exec 9>{folder}/{name}.lock
flock 9
pid=$(cat {pidfile}) && kill "$pid" 2>/dev/null || exit 0
for _ in $(seq 500); do
    kill -0 "$pid" 2>/dev/null || exit 0
    sleep 0.01
done
exit 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file to be: its absolute path, what is in it, and its permissions."""

    path: str
    text: str
    mode: int = 0o644


def files(machine: Machine, plan: Plan) -> Iterator[File]:
    """Yield what is to be written into the node."""
    config = plan.config
    yield File(path=config.haproxy.config[0], text=plan.haproxy_cfg)
    yield File(path=SENTINEL_TOML, text=plan.sentinel_toml_of(machine))
    for path in (config.track_file, config.priority_file):
        yield File(path=path, text="0")
    yield File(path=config.sign, text="")
    pidfile = config.haproxy.pidfile
    command = f"{config.haproxy.executable} -W -D -S {MASTER_CLI} -p {pidfile} -n {plan.maxconn}"
    cfg = " ".join(f"-f {path}" for path in config.haproxy.config)
    yield from _service("haproxy", pidfile, f"{command} {cfg}")
    pidfile = "/run/keepalived.pid"
    own = f"-f {quote(machine.keepalived_conf)} -i {quote(machine.config_id)}"
    command = f"keepalived -P -D -p {pidfile} -r /run/vrrp.pid {own}"
    yield from _service("keepalived", pidfile, command)


def _service(name: str, pidfile: str, command: str) -> Iterator[File]:
    words = {"folder": COMMANDS, "name": name, "pidfile": pidfile, "command": command}
    for verb, script in (("start", _START), ("stop", _STOP)):
        yield File(path=f"{COMMANDS}/{name}-{verb}", text=script.format(**words), mode=0o755)
