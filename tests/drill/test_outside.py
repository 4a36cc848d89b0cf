"""What a drill finds without being given any file: the shipped pair, installed or not."""

from __future__ import annotations

import tomllib
from pathlib import Path

from sentinel.drill import outside

ROOT = Path(__file__).parents[2]


def test_the_wheel_has_all_that_a_drill_of_the_shipped_pairs_needs() -> None:
    """The files of contrib, through a link: there is one copy of each, and the wheel takes that."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = Path(outside.__file__).parent
    packed = {
        path.resolve()
        for pattern in setuptools["package-data"]["sentinel.drill"]
        for path in package.glob(pattern)
    }
    assert (package / "shipped").is_symlink()
    assert all(path.is_relative_to(ROOT / "contrib") for path in packed)
    wanted = set[Path]()
    for pair in ("fast", "classic"):
        files = outside.choose_files(None, None, None, pair)
        assert files.hook is not None
        wanted |= {files.haproxy, files.master, files.backup, files.hook}
    assert packed == wanted
