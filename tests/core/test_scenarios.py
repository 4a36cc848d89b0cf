"""The scenario files are the specification of the core: each is played, and must come out as it is.

With SENTINEL_REWRITE=1 the files are written anew with what really happened. Commit such a change
only when you can explain every line of its diff.
"""

import os
from pathlib import Path

import pytest
from transcripts import transcript

SCENARIOS = sorted(Path(__file__).parents[1].joinpath("scenarios").glob("*.txt"))
REWRITE = bool(os.environ.get("SENTINEL_REWRITE"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    """The core does what the file says, no more and no less."""
    played = transcript(path)
    if REWRITE:
        path.write_text(played)
    assert path.read_text() == played


def test_every_scenario_says_what_it_shows() -> None:
    """A specification without a title and without an outcome specifies nothing."""
    assert len(SCENARIOS) >= 30
    for path in SCENARIOS:
        lines = path.read_text().splitlines()
        assert lines[0].startswith("# "), path
        assert any(line.startswith("    ") for line in lines), path
