"""split() against HAProxy's own reading of the same lines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import answering_config, free_port, running_haproxy
from hypothesis import given
from hypothesis import strategies as st

from sentinel.haproxycfg.words import expand_address, split

if TYPE_CHECKING:
    from pathlib import Path

#: What is written, and what HAProxy takes it for while HOME_OF_Q is /home/q.
WRITTEN: Final = {
    r"""'a b'\ c"d e" f""": "a b cd e",
    r'''"x $HOME_OF_Q y ${HOME_OF_Q}z"''': "x /home/q y /home/qz",
    r"""'$HOME_OF_Q'""": "$HOME_OF_Q",
    r"""$HOME_OF_Q""": "$HOME_OF_Q",
    r"""a#b c""": "a",
    r""""a#b" # comment""": "a#b",
    r"""a\#b""": "a#b",
    r'''"a\"b\$c\\d\'e"''': r"""a"b$c\d'e""",
    r"""a\\b\zc""": r"a\b\zc",
    r'''"a\zb"''': r"a\zb",
    r"""\x41\x42""": "AB",
    r'''"\x41"''': "A",
    r'''"${UNSET_BY_ALL}x"''': "x",
    r'''"${UNSET_BY_ALL-default}x"''': "defaultx",
    r"""'it\'""": "it\\",
    r'''"it's"''': "it's",
    r"""a\tb""": "a\tb",
    r"""a\$b""": r"a\$b",
    r'''"'$HOME_OF_Q'"''': "'/home/q'",
    r"""a"b"'c'd""": "abcd",
    r"""'"'""": '"',
}


@pytest.mark.parametrize("written", WRITTEN)
def test_a_word_is_read_as_haproxy_reads_it(written: str) -> None:
    """Quotes, escapes, comments and variables of one word."""
    assert split(f"\tset  {written}\r", {"HOME_OF_Q": "/home/q"})[:2] == ["set", WRITTEN[written]]


@pytest.mark.real
def test_haproxy_reads_the_same(tmp_path: Path) -> None:
    """The table above is HAProxy's opinion, not ours: ``show env`` prints what it understood."""
    lines = "".join(f"    setenv Q{n} {written}\n" for n, written in enumerate(WRITTEN))
    config = f"global\n    setenv HOME_OF_Q /home/q\n{lines}{answering_config(free_port())}"
    assert "UNSET_BY_ALL" not in os.environ
    with running_haproxy(config, tmp_path) as haproxy:
        shown = haproxy.ask("show env").splitlines()
    assert [f"Q{n}={value}" for n, value in enumerate(WRITTEN.values())] == [
        line for line in shown if line.partition("=")[0].removeprefix("Q").isdecimal()
    ]


def test_empty_words_and_lines() -> None:
    """Quotes can make an empty word; a comment or nothing makes none."""
    assert split('a "" b', {}) == ["a", "", "b"]
    assert split("  # nothing", {}) == []
    assert split("", {}) == []


def test_addresses_expand_without_quotes() -> None:
    """HAProxy expands ``${NAME}`` in addresses even where no quotes are."""
    assert expand_address("${HOST}:${PORT}$", {"HOST": "::1"}) == "::1:$"


@given(st.text())
def test_no_line_is_refused(line: str) -> None:
    """Whatever a line is, it has words."""
    assert all(isinstance(word, str) for word in split(line, {"A": "b"}))
