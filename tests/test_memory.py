"""The memory file: what is stored comes back, what is broken never stops sentinel."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.core import Intent, Memory
from sentinel.events import Verb
from sentinel.memory import invocation_file, memory_file
from sentinel.processes.invocation import Invocation

FULL = Memory(
    restarts=(1.5, 2.5),
    attempt=2,
    next_attempt_s=9.0,
    failed_since_s=4.0,
    keepalived_stopped=True,
    proven=("runtime", "web"),
    intents=(
        Intent(verb=Verb.PAUSE, drain=True, since_s=3.0, reason="disks", by="eve"),
        Intent(verb=Verb.STEPDOWN, until_s=60.0, until_worker=77),
    ),
)

INVOCATION = Invocation(
    executable="/usr/sbin/haproxy",
    argv=("-f", "/etc/haproxy/haproxy.cfg"),
    env=(("SECRET", "x"),),
    cwd="/",
    doubt="MINE cannot be known",
)

_TIMES = st.floats(0, 1e9)
MEMORIES = st.builds(
    Memory,
    restarts=st.lists(_TIMES, max_size=5).map(tuple),
    attempt=st.integers(0, 99),
    next_attempt_s=_TIMES,
    failed_since_s=st.none() | _TIMES,
    keepalived_stopped=st.booleans(),
    proven=st.lists(st.text(max_size=8), max_size=3).map(tuple),
    intents=st.lists(
        st.builds(
            Intent,
            verb=st.sampled_from([Verb.PAUSE, Verb.STEPDOWN]),
            drain=st.booleans(),
            since_s=_TIMES,
            until_s=st.none() | _TIMES,
            until_worker=st.none() | st.integers(0, 2**60),
            reason=st.text(max_size=8),
            by=st.text(max_size=8),
        ),
        max_size=3,
    ).map(tuple),
)


def test_what_was_saved_is_loaded_by_a_successor(tmp_path: Path) -> None:
    """A memory survives the process that saved it."""
    memory_file(tmp_path / "memory.json").save(FULL)
    assert memory_file(tmp_path / "memory.json").load() == FULL


@given(memory=MEMORIES)
def test_every_memory_survives(tmp_path_factory: pytest.TempPathFactory, memory: Memory) -> None:
    """No value is lost or changed on the way through the file."""
    path = tmp_path_factory.mktemp("memory") / "memory.json"
    memory_file(path).save(memory)
    assert memory_file(path).load() == memory


def test_a_reboot_ends_the_memory(tmp_path: Path) -> None:
    """Times of another boot mean nothing on this one's clock."""
    memory_file(tmp_path / "memory.json", boot_id="one").save(FULL)
    assert memory_file(tmp_path / "memory.json", boot_id="two").load() is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"boot_id": "here", "attempt": "many"}',
        '{"boot_id": "here", "unknown_key": 1}',
        '{"boot_id": "here", "restarts": ["x"]}',
        '{"boot_id": "here", "proven": [1]}',
        '{"boot_id": "here", "intents": [{"verb": "dance"}]}',
        '{"boot_id": "here", "intents": [{"verb": "pause", "until_s": "soon"}]}',
        '{"boot_id": "here", "intents": [{"verb": "pause", "by": 1}]}',
        '{"boot_id": "here", "intents": ["pause"]}',
        '{"boot_id": "here", "intent": {"paused": true}}',
        "\udcff",
    ],
)
def test_a_broken_file_is_reported_and_forgotten(tmp_path: Path, content: str) -> None:
    """A damaged file is as good as none, and sentinel says which file it was."""
    path = tmp_path / "memory.json"
    path.write_bytes(os.fsencode(content))
    kept = memory_file(path, boot_id="here")
    assert kept.load() is None
    assert str(path) in kept.error


@pytest.mark.parametrize(
    ("paused", "stepped_down", "intents"),
    [
        (True, False, [(Verb.PAUSE, False)]),
        (False, True, [(Verb.STEPDOWN, False)]),
        (True, True, [(Verb.PAUSE, True)]),
        (False, False, []),
    ],
)
def test_an_older_file_is_read(
    tmp_path: Path,
    paused: bool,  # noqa: FBT001  (as the file has it)
    stepped_down: bool,  # noqa: FBT001
    intents: list[tuple[Verb, bool]],
) -> None:
    """It held one order, in other words: a pause outlives an upgrade of sentinel."""
    rest = {"since_s": 3.0, "until_s": 60.0, "until_worker": 7, "reason": "disks", "by": "eve"}
    older = {"paused": paused, "stepped_down": stepped_down, **rest}
    path = tmp_path / "memory.json"
    path.write_text(json.dumps({"boot_id": "here", "attempt": 2, "intent": older}))
    kept = memory_file(path, boot_id="here")
    memory = kept.load()
    assert kept.error == ""
    assert memory is not None
    assert memory.attempt == 2
    assert [(intent.verb, intent.drain) for intent in memory.intents] == intents
    assert all(getattr(memory.intents[0], key) == rest[key] for key in rest if intents)
    kept.save(memory)
    assert memory_file(path, boot_id="here").load() == memory


def test_a_write_that_fails_is_kept_as_error_and_tried_again(tmp_path: Path) -> None:
    """A missing directory is no crash, and the memory is stored once it is there."""
    folder = tmp_path / "run"
    kept = memory_file(folder / "memory.json")
    kept.save(FULL)
    assert "No such file" in kept.error
    folder.mkdir()
    kept.save(FULL)
    assert kept.error == ""
    assert json.loads((folder / "memory.json").read_text())["attempt"] == 2


def test_an_unchanged_memory_is_not_written_again(tmp_path: Path) -> None:
    """Saving at every step costs nothing while nothing changes."""
    path = tmp_path / "memory.json"
    kept = memory_file(path)
    kept.save(FULL)
    path.unlink()
    kept.save(FULL)
    assert not path.exists()


def test_the_directory_is_left_clean(tmp_path: Path) -> None:
    """No temporary file stays behind, and the memory is a plain file."""
    memory_file(tmp_path / "memory.json").save(FULL)
    assert [entry.name for entry in tmp_path.iterdir()] == ["memory.json"]


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """An environment may hold passwords, so the files are their owner's alone."""
    invocation_file(tmp_path / "invocation.json").save(INVOCATION)
    mode = (tmp_path / "invocation.json").stat().st_mode
    assert (stat.S_ISREG(mode), stat.S_IMODE(mode)) == (True, 0o600)


def test_how_haproxy_was_run_is_kept(tmp_path: Path) -> None:
    """An invocation comes back as it was, environment and all."""
    invocation_file(tmp_path / "invocation.json").save(INVOCATION)
    assert invocation_file(tmp_path / "invocation.json").load() == INVOCATION


@pytest.mark.parametrize("damage", [{"argv": [1]}, {"env": ["x"]}, {"cwd": None}])
def test_a_damaged_invocation_is_forgotten(tmp_path: Path, damage: dict[str, object]) -> None:
    """What is not text is no command line."""
    path = tmp_path / "invocation.json"
    invocation_file(path, boot_id="here").save(INVOCATION)
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    kept = invocation_file(path, boot_id="here")
    assert kept.load() is None
    assert str(path) in kept.error


def test_what_others_may_write_is_not_read(tmp_path: Path) -> None:
    """It says what is executed as root."""
    path = tmp_path / "invocation.json"
    invocation_file(path).save(INVOCATION)
    assert invocation_file(path).load() == INVOCATION
    path.chmod(0o602)
    again = invocation_file(path)
    assert again.load() is None
    assert again.error == f"{path}: others than root may write it: starting without it"
