"""Which processes there are."""

import os
import subprocess

from sentinel.processes import listing


def test_those_of_a_name_are_found_among_all() -> None:
    """A process is listed by its pid, and under its own name alone."""
    with subprocess.Popen(["sleep", "60"]) as process:
        assert process.pid in listing.pids()
        assert process.pid in listing.pids_named(frozenset({"sleep"}))
        assert process.pid not in listing.pids_named(frozenset({"slee", "cat"}))
        process.kill()


def test_children_are_those_that_the_kernel_lists() -> None:
    """Searching all processes gives what /proc/PID/task/PID/children gives."""
    with subprocess.Popen(["sleep", "60"]) as one, subprocess.Popen(["sleep", "60"]) as other:
        assert {one.pid, other.pid} <= set(listing.children(os.getpid()))
        assert listing.children(one.pid) == ()
        one.kill()
        other.kill()
