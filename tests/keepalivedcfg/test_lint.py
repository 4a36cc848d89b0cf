"""What stands in sentinel's way."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from sentinel.keepalivedcfg import findings, read

GOOD: Final = """
global_defs { vrrp_notify_fifo /run/fifo }
track_file fault { file /run/./track
    weight 0
}
track_file weight {
    file /run/track-priority
}
vrrp_script hook { script "/bin/chk_sentinel.sh /run/lease" }
vrrp_script old { script /bin/chk_haproxy.sh }
vrrp_script ping { script /bin/ping }
"""


def found(folder: Path, text: str) -> list[str]:
    """Return the findings of a text, without the folder's name."""
    (folder / "k.conf").write_text(text)
    return [
        words.replace(f"{folder}/", "")
        for words in findings(
            read(str(folder / "k.conf"), config_id="lb1"),
            track_file="/run/track",
            weighted_file="/run/track-priority",
            fifo="/run/fifo",
        )
    ]


def of_instance(folder: Path, body: str, around: str = GOOD) -> list[str]:
    """Return the findings of one instance with this body, without its place and name."""
    text = f"{around}\nvrrp_instance V {{\ninterface eth0\nvirtual_router_id 1\n{body}\n}}"
    start = f"k.conf:{around.count(chr(10)) + 2}: vrrp_instance V: "
    words = found(folder, text)
    assert all(one.startswith(start) for one in words)
    return [one.removeprefix(start) for one in words]


HOOK: Final = "track_script { hook }"
BOTH: Final = f"{HOOK}\ntrack_file {{\nfault\nweight\n}}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (BOTH, []),
        (f"{BOTH}\ntrack_script {{ ping }}", []),
        (
            f"{HOOK}\ntrack_file {{ weight }}",
            [
                ("does not track /run/track, so a dead HAProxy keeps the VIP for longer than it"
                " must: add track_file with weight 0 for /run/track")
            ],
        ),
        (
            "track_script { ping }\ntrack_file {\nfault\nweight\n}",
            [
                ("tracks no script chk_sentinel.sh, so nobody looks at HAProxy while sentinel is"
                " gone: add a vrrp_script for it")
            ],
        ),
        (
            "track_script { old }\ntrack_file {\nfault\nweight\n}",
            [
                ("runs /bin/chk_haproxy.sh, which starts HAProxy and stops keepalived against"
                " sentinel: put chk_sentinel.sh in its place")
            ],
        ),
        (
            f"{HOOK}\ntrack_file {{\nfault weight 1\nweight\n}}",
            [
                "tracks /run/track with weight 1, so a failure does not lead to FAULT: set weight 0"
            ],
        ),
        (
            f"{HOOK}\ntrack_file {{ fault }}",
            [
                ("does not track /run/track-priority, so a hand-over must go through FAULT: add"
                " track_file with weight 1 for /run/track-priority")
            ],
        ),
        (
            f"{HOOK}\ntrack_file {{\nfault\nweight weight 0\n}}",
            [
                ("tracks /run/track-priority with weight 0, so a hand-over must go through FAULT:"
                " set weight 1")
            ],
        ),
        (
            f"{BOTH}\npriority 255",
            [
                ("has priority 255, which no weight can lower, so a hand-over must go"
                " through FAULT:"
                " write priority 254 or less")
            ],
        ),
        (
            f"{BOTH}\nnopreempt",
            [
                ("has nopreempt, and where the peer has it too a lower priority moves nothing, so a"
                " hand-over must go through FAULT: remove nopreempt on both nodes if that loses too"
                " much")
            ],
        ),
        (
            f"{BOTH}\nnopreempt\nstate MASTER\npriority 9",
            [
                "state MASTER makes keepalived ignore nopreempt: write state BACKUP on both nodes"
            ],
        ),
    ],
)  # fmt: skip
def test_instances(tmp_path: Path, body: str, words: list[str]) -> None:
    """One sentence each, with the cure."""
    assert of_instance(tmp_path, body) == words


def test_members_of_a_sync_group(tmp_path: Path) -> None:
    """Their own weight does not count, the group's does, as with sync_group_tracking_weight."""
    group = "vrrp_sync_group G {{ group {{ V }}\n{}\n}}"
    assert of_instance(tmp_path, BOTH, GOOD + group.format("")) == [
        (
            "is in vrrp_sync_group G without sync_group_tracking_weight, and the group"
            " does not track"
            " /run/track-priority, so a hand-over must go through FAULT: let the group"
            " track it with"
            " weight 1"
        )
    ]
    weighted = GOOD + group.format("sync_group_tracking_weight")
    assert of_instance(tmp_path, BOTH, weighted) == []
    tracked = GOOD + group.format("track_file { weight }")
    assert of_instance(tmp_path, f"{HOOK}\ntrack_file {{ fault }}", tracked) == []


def test_the_whole_file(tmp_path: Path) -> None:
    """No instance, no FIFO, notes first; and a file that cannot be read."""
    assert found(tmp_path, "include none\n") == [
        "k.conf:1: no file matches include none: make it, or remove it",
        "k.conf: has no vrrp_instance, so there is no VIP to follow: add one",
        (
            "k.conf: keepalived does not say its state to /run/fifo, so changes are seen late: add"
            " vrrp_notify_fifo /run/fifo to global_defs"
        ),
    ]
    unreadable = read(str(tmp_path / "none"), config_id="")
    words = findings(unreadable, track_file="/a", weighted_file="/b", fifo="/c")
    assert words == (
        (
            f"cannot read {tmp_path}/none: No such file or directory: correct vrrp.file, or let"
            " sentinel read it"
        ),
    )
