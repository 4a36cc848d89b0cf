"""Load balancers for the tests beside this file: booted once, reset before every test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from lab.fixtures import image, lab
from system.boot import SUITES, running_load_balancer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from system.loadbalancer import LoadBalancer

__all__ = ["balancer", "image", "lab", "machine"]


@pytest.fixture(scope="session")
def machine(image: Callable[[str], Path]) -> Iterator[Callable[[str], LoadBalancer]]:
    """Boot the load balancer of a Debian release when it is asked for the first time."""
    running: dict[str, LoadBalancer] = {}
    with ExitStack() as stack:

        def boot(suite: str) -> LoadBalancer:
            if suite not in running:
                running[suite] = stack.enter_context(running_load_balancer(image(suite)))
            return running[suite]

        yield boot


@pytest.fixture
def balancer(
    request: pytest.FixtureRequest, machine: Callable[[str], LoadBalancer]
) -> Iterator[LoadBalancer]:
    """Give a load balancer in a good state, on which sentinel has still to be started."""
    balancer = machine(getattr(request, "param", SUITES[0]))
    balancer.reset()
    yield balancer
    request.node.user_properties += [("fault", note) for note in balancer.notes]
    print(balancer.journal())  # noqa: T201  (pytest shows it when the test has failed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how long each fault lasted; for information, the machine's noise is in it."""
    reports = terminalreporter.getreports("")
    notes = [note for report in reports for name, note in report.user_properties if name == "fault"]
    if notes:
        terminalreporter.section("after a fault, by sentinel's own events")
        terminalreporter.write_line("\n".join(notes))
