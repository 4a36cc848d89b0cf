"""split() against HAProxy's own reading of the same lines."""

from __future__ import annotations

import os
from socket import create_connection
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


#: Values of LIST, and the words that HAProxy takes ``"x${LIST[*]}y"`` for.
LISTS: Final = {
    "a b": ["xa", "by"],
    "a  \t b": ["xa", "by"],
    "a": ["xay"],
    "a ": ["xa", "y"],
    " a": ["x", "ay"],
    " ": ["x", "y"],
}


@pytest.mark.parametrize("value", LISTS)
def test_a_value_may_be_several_words(value: str) -> None:
    """By ``[*]``, which splits it at spaces, quoted though it is."""
    assert split('do "x${LIST[*]}y" z', {"LIST": value}) == ["do", *LISTS[value], "z"]
    assert split('do "x${LIST}y" z', {"LIST": value}) == ["do", f"x{value}y", "z"]
    assert split('"${UNSET[*]-a b}"', {}) == ["a", "b"]


@pytest.mark.real
@pytest.mark.parametrize("value", LISTS)
def test_haproxy_splits_the_same(value: str, tmp_path: Path) -> None:
    """``unsetenv`` takes any number of names: those that are gone are its words."""
    names = {word for words in LISTS.values() for word in words}
    lines = "".join(f"    setenv {name} 1\n" for name in names)
    lines += f"    setenv LIST '{value}'\n    unsetenv \"x${{LIST[*]}}y\"\n"
    with running_haproxy(f"global\n{lines}{answering_config(free_port())}", tmp_path) as haproxy:
        shown = {line.partition("=")[0] for line in haproxy.ask("show env").splitlines()}
    assert names - shown == set(LISTS[value])


def test_empty_words_and_lines() -> None:
    """Quotes can make an empty word; a comment or nothing makes none."""
    assert split('a "" b', {}) == ["a", "", "b"]
    assert split("  # nothing", {}) == []
    assert split("", {}) == []


#: Ports as they may be written without quotes while PORT is the port.
PORTS: Final = ("$PORT", "${PORT}", "${PORT", "$PORT$", "$PORT${}", "$PORT$UNSET_BY_ALL")


@pytest.mark.parametrize("written", PORTS)
def test_addresses_expand_without_quotes(written: str) -> None:
    """HAProxy expands variables in addresses even where no quotes are."""
    assert expand_address(f"${{HOST}}:{written}", {"HOST": "::1", "PORT": "80"}) == "::1:80"


@pytest.mark.real
def test_haproxy_expands_the_same(tmp_path: Path) -> None:
    """It listens on each of them."""
    ports = {name: free_port() for name in (f"P{n}" for n in range(len(PORTS)))}
    config = "global\n" + "".join(f"    setenv {name} {port}\n" for name, port in ports.items())
    config += answering_config(free_port())
    for name, written in zip(ports, PORTS, strict=True):
        config += f"    bind 127.0.0.1:{written.replace('PORT', name)}\n"
    with running_haproxy(config, tmp_path):
        for port in ports.values():
            create_connection(("127.0.0.1", port), timeout=2).close()


@given(st.text())
def test_no_line_is_refused(line: str) -> None:
    """Whatever a line is, it has words."""
    assert all(isinstance(word, str) for word in split(line, {"A": "b"}))
