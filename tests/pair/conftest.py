"""Pairs of load balancers for the tests beside this file: booted once, reset before every test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from lab.fixtures import image, lab
from pair.loadbalancers import Pair, running_pair
from pair.setups import FAST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["image", "lab", "machines", "pair", "setup"]


@pytest.fixture(scope="session")
def machines(image: Callable[[str], Path]) -> Iterator[Callable[[str], Pair]]:
    """Boot the pair of a Debian release when it is asked for the first time."""
    running: dict[str, Pair] = {}
    with ExitStack() as stack:

        def boot(suite: str) -> Pair:
            if suite not in running:
                running[suite] = stack.enter_context(running_pair(image(suite)))
            return running[suite]

        yield boot


@pytest.fixture(scope="session")
def setup(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Say which release and which pair; tests of the same are run one after the other."""
    chosen: tuple[str, str] = getattr(request, "param", FAST)
    return chosen


@pytest.fixture
def pair(
    request: pytest.FixtureRequest, setup: tuple[str, str], machines: Callable[[str], Pair]
) -> Iterator[Pair]:
    """Give a pair in a good state, on which sentinel has still to be started."""
    suite, kind = setup
    pair = machines(suite)
    pair.reset(kind)
    yield pair
    request.node.user_properties += [("client", f"{suite}: {note}") for note in pair.notes]
    print(pair.journal())  # noqa: T201  (pytest shows it when the test has failed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what clients saw; for information, the machine's noise is in it."""
    reports = terminalreporter.getreports("")
    notes = [
        note for report in reports for kind, note in report.user_properties if kind == "client"
    ]
    if notes:
        terminalreporter.section("what a client saw that asks every 10 ms")
        terminalreporter.write_line("\n".join(notes))
