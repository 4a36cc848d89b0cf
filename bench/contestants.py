"""Who competes for the best pair, and how each is set up: keepalived.conf, scripts, Monit.

All have the VRRP settings of the shipped pairs: a contestant's keepalived.conf is the shipped one
with sentinel's script and track files taken out and its own script put in. All have what Debian's
haproxy.service brings, Restart=always (``restarter.py``); one contestant has nothing else.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sentinel.config import OnCrash

PROJECT: Final = Path(__file__).parents[1]
PAIRS: Final = ("classic", "fast")
_SHIPPED: Final = PROJECT / "contrib" / "keepalived"
_PEERS: Final = PROJECT / ".lab" / "peers"
_MONIT: Final = _PEERS / "usr" / "bin" / "monit"
#: What a shipped keepalived.conf has of sentinel's.
_SENTINELS: Final = ("vrrp_notify_", "vrrp_script", "track_file", "track_script")
_VIP_BLOCK: Final = "    virtual_ipaddress {"
_INSTANCE: Final = "vrrp_instance "

CHK_HAPROXY: Final = "/etc/keepalived/chk_haproxy.sh"
MONITRC: Final = "/etc/monit/monitrc"
#: As it was published.
_CHK_HAPROXY_SH: Final = """\
#!/bin/bash
status=$(ps aux|grep haproxy | grep -v grep | grep -v bash | wc -l)
if [ "${status}" = "0" ]; then
    /etc/init.d/haproxy start

    status2=$(ps aux|grep haproxy | grep -v grep | grep -v bash |wc -l)

    if [ "${status2}" = "0"  ]; then
            /etc/init.d/keepalived stop
    fi
fi
"""
_KILLALL: Final = "/usr/bin/killall -0 haproxy"
_CURL: Final = "/usr/bin/curl -sf -o /dev/null -m 1 http://127.0.0.1/"
#: The quickest cycle there is. Monit probes nothing before a start's timeout has passed, which is
#: 30 s by itself. A hung HAProxy does not die of the stop program's SIGTERM.
_MONITRC_TEXT: Final = """\
set daemon 1
set log /run/monit.log
set pidfile /run/monit.pid
set idfile /run/monit.id
set statefile /run/monit.state
check process haproxy with pidfile /run/haproxy.pid
    start program = "/etc/init.d/haproxy start" with timeout 1 seconds
    stop program = "/etc/init.d/haproxy stop"
    if failed host 127.0.0.1 port 80 protocol http with timeout 1 seconds for 2 cycles
        then exec "/usr/bin/killall -9 haproxy"
check process keepalived with pidfile /run/keepalived.pid
    start program = "/etc/init.d/keepalived start"
    stop program = "/etc/init.d/keepalived stop"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One way to watch a pair; *name* is for the command line, *title* for the table.

    *script* is its vrrp_script, *pace* the script's other lines on each pair. *on_crash* is
    sentinel's setting, None for the others. *unfit* says why it cannot compete here.
    """

    name: str
    title: str
    script: str = ""
    pace: tuple[str, str] = ("interval 2\nweight 2", "interval 1\ntimeout 1\nweight 0")
    on_crash: OnCrash | None = None
    unfit: str = ""

    @property
    def is_sentinel(self) -> bool:
        """It is ours, and no peer."""
        return self.on_crash is not None

    @property
    def is_variant(self) -> bool:
        """It is sentinel with another setting for crashes than its default."""
        return self.on_crash not in {None, OnCrash.AUTO}

    @property
    def has_monit(self) -> bool:
        """Monit runs on both nodes."""
        return self.name == "monit"

    @property
    def files(self) -> Iterator[tuple[str, str, int]]:
        """Yield path, text and mode of what it needs on a node."""
        if self.script == CHK_HAPROXY:
            yield CHK_HAPROXY, _CHK_HAPROXY_SH, 0o755
        if self.has_monit:
            yield MONITRC, _MONITRC_TEXT, 0o600

    def keepalived_conf(self, pair: str, node: str) -> str:
        """Return its keepalived.conf of *node* in *pair*."""
        shipped = (_SHIPPED / pair / f"{node}.conf").read_text()
        if self.is_sentinel:
            return shipped
        text = "\n".join(_without(shipped, _SENTINELS))
        if not self.script:
            return text
        block = f'vrrp_script chk {{\nscript "{self.script}"\n{self.pace[PAIRS.index(pair)]}\n}}\n'
        return text.replace(_INSTANCE, f"{block}{_INSTANCE}", 1).replace(
            _VIP_BLOCK, f"    track_script {{\n        chk\n    }}\n{_VIP_BLOCK}", 1
        )


def _without(text: str, words: tuple[str, ...]) -> Iterator[str]:
    """Yield a keepalived.conf without the lines and blocks that begin with one of *words*."""
    closing = None
    for line in text.splitlines():
        if closing is not None:
            closing = None if line == closing else closing
        elif line.lstrip().startswith(words):
            indent = line[: len(line) - len(line.lstrip())]
            closing = f"{indent}}}" if line.endswith("{") else None
        else:
            yield line


def monit() -> Path | None:
    """Return Monit's program, unpacked from its Debian package; None where it cannot be had.

    It is not installed: that would start it on this machine.
    """
    if not _MONIT.exists() and shutil.which("apt-get"):
        _PEERS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            got = subprocess.run(
                ("apt-get", "-qq", "download", "monit"),
                cwd=folder,
                capture_output=True,
                check=False,
            )
            for package in Path(folder).glob("monit_*.deb"):
                subprocess.run(("dpkg-deb", "-x", package, _PEERS), check=got.returncode == 0)
    return _MONIT if _MONIT.exists() else None


def contestants() -> tuple[Contestant, ...]:
    """Return all, in the order of the table."""
    # its grep would count every process whose command line names a folder so called
    greps_us = "haproxy" in f"{PROJECT}{sys.executable}"
    return (
        Contestant(
            name="chk_haproxy",
            title="chk_haproxy.sh",
            script=CHK_HAPROXY,
            unfit="it greps for haproxy, which this folder is called" if greps_us else "",
        ),
        Contestant(name="killall", title="killall -0", script=_KILLALL),
        Contestant(
            name="curl",
            title="curl",
            script=_CURL,
            pace=(
                "interval 1\ntimeout 1\nfall 2\nweight 2",
                "interval 1\ntimeout 1\nfall 2\nweight 0",
            ),
        ),
        Contestant(
            name="track_process",
            title="track_process",
            unfit="keepalived's track_process works in the first pid namespace alone, and no"
            " node here is there",
        ),
        Contestant(
            name="monit",
            title="Monit + killall -0",
            script=_KILLALL,
            unfit="" if monit() else "its Debian package could not be had",
        ),
        Contestant(name="systemd", title="Restart=always alone"),
        Contestant(name="sentinel", title="sentinel", on_crash=OnCrash.AUTO),
        *(
            Contestant(
                name=f"sentinel-{on_crash}",
                title=f'sentinel, on_crash = "{on_crash}"',
                on_crash=on_crash,
            )
            for on_crash in (OnCrash.YIELD, OnCrash.RESTART)
        ),
    )
