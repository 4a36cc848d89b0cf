"""The shipped keepalived.conf pairs, unmodified, in a real keepalived: who holds the VIP when."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from nodes import HOOK, Node, connect, needs_root, running_node

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT: Final = Path(__file__).parents[2]
PAIRS: Final = PROJECT / "contrib/keepalived"
#: The pair that ran chk_haproxy.sh, as it was published.
ARTICLES: Final = PROJECT / "tests/data/keepalivedcfg"
FILES: Final = sorted(PAIRS.glob("*/*.conf"))
VIP: Final = "192.168.1.99/32"

pytestmark = [pytest.mark.real, needs_root]


def write_lease(node: Node, word: str) -> None:
    """Write a lease that outlasts the test's step, as sentinel does: by rename."""
    deadline_s = time.clock_gettime(time.CLOCK_BOOTTIME) + 60
    replace(node, "/run/sentinel/lease", f"{word} {int(deadline_s * 100)}\n")


def replace(node: Node, path: str, text: str) -> None:
    """Replace a file of the node by rename."""
    fresh = node.path(f"{path}.new")
    fresh.write_text(text)
    fresh.rename(node.path(path))


def holds_vip(node: Node) -> bool:
    """Say whether the VIP is on this node's eth0."""
    return VIP in node.run("ip", "-4", "-o", "address", "show", "dev", "eth0").stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two cabled nodes, each with a keepalived under one of the shipped files."""

    master: Node
    backup: Node

    def wait_for_vip(self, holder: Node, why: str) -> None:
        """Wait until *holder* alone holds the VIP."""
        other = self.backup if holder is self.master else self.master
        wait_until(lambda: holds_vip(holder) and not holds_vip(other), why)


@contextmanager
def running_pair(kind: str, folder: Path) -> Iterator[Pair]:
    """Run the pair *kind* with leases that say OK, until its master holds the VIP."""
    with (
        two_nodes() as pair,
        pair.master.running(*keepalived(kind, "master"), log=folder / "master.log"),
        pair.backup.running(*keepalived(kind, "backup"), log=folder / "backup.log"),
    ):
        pair.wait_for_vip(pair.master, "the master takes the VIP")
        yield pair


def keepalived(kind: str, role: str) -> tuple[str, ...]:
    """Return the command line of keepalived under a shipped file."""
    return keepalived_with(str(PAIRS / kind / f"{role}.conf"))


def keepalived_with(file: str) -> tuple[str, ...]:
    """Return the command line of keepalived: in the foreground, VRRP alone, log on its output."""
    return ("keepalived", "-n", "-l", "-D", "-P", "-f", file)


@contextmanager
def two_nodes() -> Iterator[Pair]:
    """Give two cabled nodes with leases that say OK, and no keepalived on either."""
    with running_node() as master, running_node() as backup:
        connect(master, backup, "192.168.1.189/24", "192.168.1.222/24")
        for node in (master, backup):
            write_lease(node, "OK")
        yield Pair(master=master, backup=backup)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """Give a node with an eth0 and no cable."""
    with running_node() as node:
        node.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far")
        yield node


@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(file.parts[-2:]))
def test_keepalived_accepts_every_file_without_a_word(node: Node, file: Path) -> None:
    """``keepalived -t``, where the hook is installed at the path the files name."""
    done = node.run("keepalived", "-t", "-f", str(file), check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_four_files_are_there() -> None:
    """The parametrization above must not shrink in silence."""
    names = ["/".join(file.parts[-2:]) for file in FILES]
    assert names == [
        "classic/backup.conf",
        "classic/master.conf",
        "fast/backup.conf",
        "fast/master.conf",
    ]


def test_the_classic_pair_moves_by_priority(tmp_path: Path) -> None:
    """The hook's no costs the master its 2, and the VIP; its yes brings both back."""
    with running_pair("classic", tmp_path) as pair:
        write_lease(pair.master, "FAIL")
        pair.wait_for_vip(pair.backup, "the VIP leaves a master whose hook says no")
        write_lease(pair.master, "OK")
        pair.wait_for_vip(pair.master, "the VIP returns to a mended master")


def test_the_fast_pair_moves_by_track_file_and_by_hook(tmp_path: Path) -> None:
    """Either of the two takes the VIP away; it returns when both agree."""
    with running_pair("fast", tmp_path) as pair:
        assert int(pair.master.path("/run/sentinel/track").read_text()) == 0, "made by init_file"
        replace(pair.master, "/run/sentinel/track", "1\n")
        pair.wait_for_vip(pair.backup, "the VIP leaves a master whose track file says 1")
        replace(pair.master, "/run/sentinel/track", "0\n")
        pair.wait_for_vip(pair.master, "the VIP returns when the track file says 0")
        write_lease(pair.master, "FAIL")
        pair.wait_for_vip(pair.backup, "the VIP leaves a master whose hook says no")
        write_lease(pair.master, "OK")
        pair.wait_for_vip(pair.master, "the VIP returns when the hook says yes")
        assert pair.master.path("/run/sentinel/hook-called").read_text().endswith("\n")


def test_a_standing_track_file_outlives_a_start_of_keepalived(tmp_path: Path) -> None:
    """``init_file`` writes 0 only where there is nothing: a node known to be broken stays so."""
    with running_node() as node, running_node() as other:
        connect(node, other, "192.168.1.189/24", "192.168.1.222/24")
        replace(node, "/run/sentinel/track", "1\n")
        log = tmp_path / "log"
        with node.running(*keepalived("fast", "master"), log=log):
            fault = "entering FAULT state (tracked file sentinel has status"
            wait_until(lambda: fault in log.read_text(), "keepalived goes to FAULT")
        assert node.path("/run/sentinel/track").read_text() == "1\n"


def test_keepalived_holds_a_hook_it_cannot_execute_for_a_yes(tmp_path: Path) -> None:
    """The fact behind the alarm hook.call_within: the VIP is taken, and no sign is left."""
    with running_node() as node, running_node() as other:
        connect(node, other, "192.168.1.189/24", "192.168.1.222/24")
        write_lease(node, "FAIL")
        node.path(HOOK).chmod(0o644)
        with node.running(*keepalived("fast", "master"), log=tmp_path / "log"):
            wait_until(lambda: holds_vip(node), "the VIP is taken in spite of the lease")
        assert not node.path("/run/sentinel/hook-called").exists()


# --- from one pair to the other, in the order that contrib/README.md gives ------------------------


def entered(log: Path) -> list[str]:
    """Return the states that keepalived has entered, as its log names them."""
    return re.findall(r"Entering (\w+) STATE", log.read_text())


def test_the_classic_pair_replaces_the_old_one_by_reloads(tmp_path: Path) -> None:
    """The backup first, then the master: each hook is called, and the VIP stays where it is."""
    with two_nodes() as pair:
        nodes = {"backup": pair.backup, "master": pair.master}
        logs = {role: tmp_path / f"{role}.log" for role in nodes}
        conf = "/run/keepalived.conf"
        for role, node in nodes.items():
            old = (ARTICLES / f"article-{role}.conf").read_text()
            # the old script says yes, and is not here
            replace(node, conf, old.replace("/usr/local/keepalived/chk_haproxy.sh", "/bin/true"))
        with (
            pair.master.running(*keepalived_with(conf), log=logs["master"]),
            pair.backup.running(*keepalived_with(conf), log=logs["backup"]),
        ):
            pair.wait_for_vip(pair.master, "the old master takes the VIP")
            for role, node in nodes.items():
                replace(node, conf, (PAIRS / "classic" / f"{role}.conf").read_text())
                node.run("sh", "-c", "kill -HUP $(cat /run/keepalived.pid)")
                wait_until(node.path("/run/sentinel/hook-called").exists, "the hook is called")
            assert entered(logs["master"]) == ["BACKUP", "MASTER"]
            assert entered(logs["backup"]) == ["BACKUP"]
            write_lease(pair.master, "FAIL")
            pair.wait_for_vip(pair.backup, "the new pair moves as it should")


def test_two_versions_of_vrrp_do_not_hear_each_other(tmp_path: Path) -> None:
    """The reason for the order: side by side, both nodes hold the VIP."""
    with (
        two_nodes() as pair,
        pair.master.running(*keepalived("classic", "master"), log=tmp_path / "master.log"),
        pair.backup.running(*keepalived("fast", "backup"), log=tmp_path / "backup.log"),
    ):
        wait_until(
            lambda: holds_vip(pair.master) and holds_vip(pair.backup), "the VIP is on both nodes"
        )


def test_the_fast_pair_replaces_a_v2_pair(tmp_path: Path) -> None:
    """Backup stopped, master restarted, backup started: it never is MASTER meanwhile."""
    with two_nodes() as pair:
        master_log, backup_log = tmp_path / "master.log", tmp_path / "backup.log"
        with (
            pair.master.running(*keepalived("classic", "master"), log=tmp_path / "old.log"),
            pair.backup.running(*keepalived("classic", "backup"), log=tmp_path / "old-backup.log"),
        ):
            pair.wait_for_vip(pair.master, "the old master takes the VIP")
        with pair.master.running(*keepalived("fast", "master"), log=master_log):
            pair.wait_for_vip(pair.master, "the new master takes the VIP")
            with pair.backup.running(*keepalived("fast", "backup"), log=backup_log):
                wait_until(lambda: entered(backup_log) == ["BACKUP"], "the backup hears the master")
                write_lease(pair.master, "FAIL")
                pair.wait_for_vip(pair.backup, "the new pair moves as it should")
        assert entered(backup_log) == ["BACKUP", "MASTER"]
