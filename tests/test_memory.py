"""The memory file: what is stored comes back, what is broken never stops sentinel."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.core import Memory
from sentinel.memory import MemoryFile

FULL = Memory(
    restarts=(1.5, 2.5),
    attempt=2,
    next_attempt_s=9.0,
    failed_since_s=4.0,
    keepalived_stopped=True,
    proven=("runtime", "web"),
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
)


def test_what_was_saved_is_loaded_by_a_successor(tmp_path: Path) -> None:
    """A memory survives the process that saved it."""
    MemoryFile(tmp_path / "memory.json").save(FULL)
    assert MemoryFile(tmp_path / "memory.json").load() == FULL


@given(memory=MEMORIES)
def test_every_memory_survives(tmp_path_factory: pytest.TempPathFactory, memory: Memory) -> None:
    """No value is lost or changed on the way through the file."""
    path = tmp_path_factory.mktemp("memory") / "memory.json"
    MemoryFile(path).save(memory)
    assert MemoryFile(path).load() == memory


def test_a_reboot_ends_the_memory(tmp_path: Path) -> None:
    """Times of another boot mean nothing on this one's clock."""
    MemoryFile(tmp_path / "memory.json", boot_id="one").save(FULL)
    assert MemoryFile(tmp_path / "memory.json", boot_id="two").load() == Memory()


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
        "\udcff",
    ],
)
def test_a_broken_file_is_reported_and_forgotten(tmp_path: Path, content: str) -> None:
    """A damaged file gives an empty memory and says which file it was."""
    path = tmp_path / "memory.json"
    path.write_bytes(os.fsencode(content))
    memory_file = MemoryFile(path, boot_id="here")
    assert memory_file.load() == Memory()
    assert str(path) in memory_file.error


def test_a_write_that_fails_is_kept_as_error_and_tried_again(tmp_path: Path) -> None:
    """A missing directory is no crash, and the memory is stored once it is there."""
    folder = tmp_path / "run"
    memory_file = MemoryFile(folder / "memory.json")
    memory_file.save(FULL)
    assert "No such file" in memory_file.error
    folder.mkdir()
    memory_file.save(FULL)
    assert memory_file.error == ""
    assert json.loads((folder / "memory.json").read_text())["attempt"] == 2


def test_an_unchanged_memory_is_not_written_again(tmp_path: Path) -> None:
    """Saving at every step costs nothing while nothing changes."""
    path = tmp_path / "memory.json"
    memory_file = MemoryFile(path)
    memory_file.save(FULL)
    path.unlink()
    memory_file.save(FULL)
    assert not path.exists()


def test_the_directory_is_left_clean(tmp_path: Path) -> None:
    """No temporary file stays behind, and the memory is a plain file."""
    MemoryFile(tmp_path / "memory.json").save(FULL)
    assert [entry.name for entry in tmp_path.iterdir()] == ["memory.json"]
    assert stat.S_ISREG((tmp_path / "memory.json").stat().st_mode)
