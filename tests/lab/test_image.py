"""Keeping images: whole or not there, one builder at a time, none deleted under a user's feet."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from lab.image import Recipe, choose_mirror, held_image

if TYPE_CHECKING:
    from pathlib import Path

RECIPE: Final = Recipe(suite="bookworm", packages=("systemd",), dependencies=("h11",))
CHANGED: Final = replace(RECIPE, dependencies=("h11", "psutil"))
TARGETS: Final = """\
bookworm oldstable http://mirror.example/debian/
$(CODENAME) bookworm-security http://mirror.example/security/
bookworm bookworm http://other.example/debian/
"""


def build(recipe: Recipe, root: Path) -> None:
    """Build nothing but a list of the dependencies."""
    (root / "dependencies").write_text(" ".join(recipe.dependencies))


def refuse(_: Recipe, __: Path) -> None:
    """Stand for a build that nobody may begin."""
    raise AssertionError("built a second time")


def test_image_is_made_once(tmp_path: Path) -> None:
    """The second user gets what the first one had made."""
    with held_image(tmp_path, RECIPE, build) as first:
        assert (first / "dependencies").read_text() == "h11"
    with held_image(tmp_path, RECIPE, refuse) as second:
        assert second == first


@pytest.mark.parametrize(
    "changed",
    [CHANGED, replace(RECIPE, packages=("dbus",)), replace(RECIPE, suite="trixie")],
    ids=["dependencies", "packages", "suite"],
)
def test_changed_recipe_makes_another_image(tmp_path: Path, changed: Recipe) -> None:
    """Whatever changes in the recipe, the old image is not taken for the new one."""
    with held_image(tmp_path, RECIPE, build) as old, held_image(tmp_path, changed, build) as new:
        assert old != new


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """A build that fails is no image, and the next one is free to succeed."""
    with pytest.raises(AssertionError, match="second time"), held_image(tmp_path, RECIPE, refuse):
        pass

    assert list(tmp_path.iterdir()) == []
    with held_image(tmp_path, RECIPE, build) as root:
        assert root.exists()


def test_remains_of_killed_build_are_deleted(tmp_path: Path) -> None:
    """What a killed builder left is neither used nor kept."""
    (tmp_path / "building-abc" / "etc").mkdir(parents=True)

    with held_image(tmp_path, RECIPE, build) as root:
        assert list(tmp_path.iterdir()) == [root]


def test_outdated_image_is_deleted_when_nobody_holds_it(tmp_path: Path) -> None:
    """A held image outlives its successor's build; once let go, the next user deletes it."""
    with held_image(tmp_path, RECIPE, build) as old, held_image(tmp_path, CHANGED, build) as new:
        assert (old / "dependencies").exists()

    with held_image(tmp_path, CHANGED, refuse):
        assert list(tmp_path.iterdir()) == [new]


def test_images_of_other_suites_are_kept(tmp_path: Path) -> None:
    """Two releases are tested in turn without a new build for each turn."""
    with held_image(tmp_path, replace(RECIPE, suite="trixie"), build) as other:
        pass
    with held_image(tmp_path, RECIPE, build):
        assert other.exists()


def test_two_users_build_once(tmp_path: Path) -> None:
    """Who comes while another builds waits for that image."""
    building, finish = threading.Event(), threading.Event()

    def build_slowly(recipe: Recipe, root: Path) -> None:
        building.set()
        assert finish.wait(20)
        build(recipe, root)

    def first() -> None:
        with held_image(tmp_path, RECIPE, build_slowly):
            pass

    thread = threading.Thread(target=first)
    thread.start()
    assert building.wait(20)
    threading.Timer(0.05, finish.set).start()
    with held_image(tmp_path, RECIPE, refuse) as root:
        assert (root / "dependencies").exists()
    thread.join()


def test_mirror_is_the_suites_own() -> None:
    """The first of apt's repositories that has the suite is taken, by codename or by release."""
    assert choose_mirror(TARGETS, "bookworm", "bookworm") == "http://mirror.example/debian/"


def test_mirror_of_another_suite_is_the_hosts() -> None:
    """A release that apt does not fetch lies where the host's own does."""
    assert choose_mirror(TARGETS, "trixie", "bookworm") == "http://mirror.example/debian/"


def test_unknown_mirror_names_the_cure() -> None:
    """With neither, the refusal says what to set."""
    with pytest.raises(LookupError, match="set SENTINEL_LAB_MIRROR"):
        choose_mirror("", "trixie", "bookworm")
