"""The shipped systemd files, read by systemd's own tools (without a running systemd)."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from nodes import Node, needs_root, running_node

if TYPE_CHECKING:
    from collections.abc import Iterator

SHIPPED: Final = Path(__file__).parents[2] / "systemd"
UNIT: Final = SHIPPED / "sentinel.service"
TMPFILES: Final = SHIPPED / "sentinel.tmpfiles.conf"
HELD_SOCKET: Final = SHIPPED / "haproxy.socket"
HELD_DROPIN: Final = SHIPPED / "haproxy.service.d/held-listeners.conf"
DROPINS: Final = tuple(SHIPPED.glob("*.d/*.conf"))
EXPOSURE_MAX: Final = 40  # tenths, as --threshold= wants it
INSTALL: Final = f"""
set -e
mount -t tmpfs -o mode=755 tmpfs /etc/systemd/system
cp -r {SHIPPED}/*.service {SHIPPED}/*.socket {SHIPPED}/*.service.d /etc/systemd/system
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir -p /opt/sentinel/bin
printf '#!/bin/sh\n' >/opt/sentinel/bin/sentinel
chmod 755 /opt/sentinel/bin/sentinel
"""


def settings(file: Path) -> dict[str, list[str]]:
    """Return the words of every setting of a unit file; repeated ones add up."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in file.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[key] += value.split()
    return found


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """Give a node where the files are installed beside the distribution's units."""
    with running_node() as node:
        node.run("sh", "-c", INSTALL)
        yield node


@pytest.mark.real
@needs_root
def test_systemd_accepts_the_unit_and_the_drop_ins_without_a_word(node: Node) -> None:
    """``systemd-analyze verify`` knows every key, and finds no ordering cycle."""
    units = ("sentinel.service", "haproxy.service", "keepalived.service", "haproxy.socket")
    assert node.run("systemd-analyze", "verify", "--man=no", *units).stdout == ""


@pytest.mark.real
@needs_root
def test_systemd_rates_the_sandbox_ok(node: Node) -> None:
    """``systemd-analyze security`` fails above the threshold; what is left out says why."""
    node.run(
        *("systemd-analyze", "security", "--offline=yes", "--no-pager"),
        *(f"--threshold={EXPOSURE_MAX}", "/etc/systemd/system/sentinel.service"),
    )


def test_the_service_is_fed_and_comes_back() -> None:
    """What makes sentinel's own death or hang short, whatever its number."""
    unit = settings(UNIT)
    expected = {
        "Type": ["notify"],
        "NotifyAccess": ["main"],
        "WatchdogSec": ["10"],
        "Restart": ["always"],
        "StartLimitIntervalSec": ["0"],
    }
    assert {key: unit[key] for key in expected} == expected


def test_a_wrong_configuration_is_not_started_for_ever() -> None:
    """What ``sentinel run`` exits with ends the restarts, and a reload looks at the file first.

    systemd.service(5), ExecReload=: of several lines the first that fails is the last.
    """
    unit = settings(UNIT)
    assert unit["RestartPreventExitStatus"] == [str(os.EX_CONFIG)]
    program = unit["ExecStart"][0]
    assert unit["ExecReload"] == [program, "config", "check", "/bin/kill", "-HUP", "$MAINPID"]


@pytest.mark.parametrize("file", [UNIT, *DROPINS], ids=lambda file: "/".join(file.parts[-2:]))
def test_no_unit_pulls_another_down(file: Path) -> None:
    """Stopping one of the three never stops another: no dependency, ordering alone."""
    pulling = {"Requires", "Requisite", "BindsTo", "PartOf", "Conflicts", "PropagatesStopTo"}
    assert not pulling & settings(file).keys()


def test_every_held_socket_has_its_variable() -> None:
    """Descriptors count from 3 in the order of the sockets, and no check before a reload has one.

    A connection to them starts nothing that serves.
    """
    sockets, held = settings(HELD_SOCKET), settings(HELD_DROPIN)
    numbers = range(3, 3 + len(sockets["ListenStream"]))
    variables = [word.partition("=")[0] for word in held["Environment"]]
    assert held["Environment"] == [
        f"{name}=fd@{n}" for name, n in zip(variables, numbers, strict=True)
    ]
    unset = [word for word in held["ExecReload"] if word.startswith("--unset=")]
    assert unset == [f"--unset={name}" for name in variables]
    assert (held["Sockets"], sockets["Service"]) == (["haproxy.socket"], ["haproxy-held.service"])


def test_stopping_sentinel_ends_nothing_else() -> None:
    """Neither a process it has started, nor the folder that keepalived watches."""
    unit = settings(UNIT)
    assert unit["KillMode"] == ["process"]
    assert unit["OOMPolicy"] == ["continue"]
    assert "RuntimeDirectory" not in unit
    assert unit["ReadWritePaths"] == ["-/run/sentinel"]


def test_the_sandbox_lets_haproxy_check_what_haproxy_sees() -> None:
    """Each of these would make ``haproxy -c`` refuse a good configuration, or hide a socket."""
    unit = settings(UNIT)
    blinding = {"MemoryDenyWriteExecute", "PrivateTmp", "PrivateNetwork", "PrivateUsers"}
    assert not blinding & unit.keys()
    assert unit["ProtectHome"] == ["read-only"]


@pytest.mark.real
@needs_root
def test_haproxy_checks_its_configuration_with_these_capabilities(tmp_path: Path) -> None:
    """Under the bounding set of the unit, with files of another user that only root may read."""
    wanted = settings(UNIT)["CapabilityBoundingSet"]
    bounding = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in wanted)])
    errorfile = tmp_path / "503.http"
    errorfile.write_text("HTTP/1.0 503 Service Unavailable\r\n\r\n")
    errorfile.chmod(0o400)
    subprocess.run(["chown", "nobody", str(errorfile)], check=True)
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        (SHIPPED.parent / "contrib/haproxy/haproxy.cfg").read_text()
        + f"    errorfile 503 {errorfile}\n    http-request deny if {{ path_reg ^/x.*y }}\n"
    )
    done = subprocess.run(
        [
            *("setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", "--no-new-privs"),
            *("haproxy", "-c", "-f", str(config)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.real
@needs_root
def test_tmpfiles_makes_what_is_missing_and_spares_what_is_there(node: Node) -> None:
    """A track file that says 1 and the hook's sign outlive an upgrade of the package."""
    snippet = node.path("/run/sentinel.tmpfiles.conf")
    snippet.write_text(TMPFILES.read_text())  # the node's /opt hides a project that lies there
    create = ("systemd-tmpfiles", "--create", "--prefix=/run/sentinel", f"/run/{snippet.name}")
    folder, track = node.path("/run/sentinel"), node.path("/run/sentinel/track")
    sign = node.path("/run/sentinel/hook-called")
    folder.rmdir()
    node.run(*create)
    found = [path.stat().st_mode & 0o777 for path in (folder, track, sign)]
    assert (found, track.read_text(), sign.read_text()) == ([0o755, 0o644, 0o644], "0", "")
    track.write_text("1\n")
    sign.write_text("1000.08\n")
    node.run(*create)
    assert (track.read_text(), sign.read_text()) == ("1\n", "1000.08\n")
