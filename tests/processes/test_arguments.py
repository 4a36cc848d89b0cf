"""HAProxy's command line, as its own processes show it."""

from __future__ import annotations

import subprocess

import pytest
from haproxies import wait_until

from sentinel.processes import procfs
from sentinel.processes.arguments import Arguments, beginning, parse


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("haproxy", Arguments()),
        ("haproxy -f a.cfg", Arguments(files=("a.cfg",))),
        ("haproxy -W -f a -p b", Arguments(files=("a",), master_worker=True)),
        ("haproxy -Ws -f /a -f /b", Arguments(files=("/a", "/b"), master_worker=True)),
        ("haproxy -db -- a -f b", Arguments(files=("a", "-f", "b"))),
        ("haproxy -C /etc -f a -p -W", Arguments(files=("a",), folder="/etc")),
        ("haproxy -p -f -L -f -n 1 -f a", Arguments(files=("a",))),
        (
            "haproxy -sf 9200 9201 -x sockpair@3 -W -f a",
            Arguments(files=("a",), master_worker=True),
        ),
        ("haproxy -S /run/master.sock,mode,600 -f a", Arguments(files=("a",))),
        ("haproxy -f", Arguments(files=("",))),
        ("haproxy -c -q -f a", Arguments(files=("a",), checks_only=True)),
        ("haproxy -f a -p -c", Arguments(files=("a",))),
    ],
)
def test_a_command_line_is_read(line: str, expected: Arguments) -> None:
    """Files and process model are found among all other options and their values."""
    assert parse(line.split()) == expected


def test_nothing_is_read_from_nothing() -> None:
    """A zombie has no arguments at all."""
    assert parse([]) == Arguments()


@pytest.mark.parametrize(
    ("folder", "file", "expected"),
    [
        ("", "/a/b.cfg", "/a/b.cfg"),
        ("", "b.cfg", "/run/b.cfg"),
        ("", "../b.cfg", "/b.cfg"),
        ("sub", "b.cfg", "/run/sub/b.cfg"),
        ("/etc", "b.cfg", "/etc/b.cfg"),
    ],
)
def test_relative_files_become_absolute(folder: str, file: str, expected: str) -> None:
    """Names are relative to -C, and that to where HAProxy was started."""
    assert Arguments(files=(file,), folder=folder).paths("/run") == (expected,)


READING = ("sh", "-c", "read line")


@pytest.mark.parametrize("word", ["a", "a" * 1000])
def test_of_a_stranger_only_the_beginning_is_read(word: str) -> None:
    """However many arguments it has, and however long they are: some, and those whole."""
    with subprocess.Popen((*READING, *[word] * 1000), stdin=subprocess.PIPE) as process:
        wait_until(lambda: procfs.argv(process.pid), "it executes")
        words = beginning(process.pid)
    assert words[:3] == READING
    assert 0 < words.count(word) == len(words) - 3 < 64


def test_what_is_short_is_read_whole() -> None:
    """An empty word is one as well; who is gone has none."""
    with subprocess.Popen((*READING, "", "-f", ""), stdin=subprocess.PIPE) as process:
        wait_until(lambda: procfs.argv(process.pid), "it executes")
        assert beginning(process.pid) == (*READING, "", "-f", "")
    assert beginning(process.pid) == ()
