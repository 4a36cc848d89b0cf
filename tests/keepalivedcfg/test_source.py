"""The lines that are left of keepalived's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel.keepalivedcfg.files import matches
from sentinel.keepalivedcfg.notes import Notes
from sentinel.keepalivedcfg.source import LINES_MAX, Source


def lines(folder: Path, text: str, config_id: str = "lb1") -> list[str]:
    """Write *text* to a file and return the lines that are left of it."""
    return noted(folder, text, config_id)[0]


def noted(folder: Path, text: str, config_id: str = "lb1") -> tuple[list[str], tuple[str, ...]]:
    """Return the lines that are left of *text*, and the notes, without the folder's name."""
    file = folder / "k.conf"
    file.write_text(text)
    notes = Notes()
    source = Source(config_id, notes)
    assert source.begin(str(file)) == ""
    left = [line.text for line in source.lines()]
    return left, tuple(note.replace(f"{folder}/", "") for note in notes.all())


def test_comments_braces_and_quotes(tmp_path: Path) -> None:
    """# and ! begin comments outside quotes; a brace stands for itself wherever it is."""
    text = '! no\na # no\nb{c}d\n script "x # {y} !" # z\n  \nv { 10.0.0.1 }\r\ni\\#j'
    assert lines(tmp_path, text) == [
        *("a", "b", "{", "c", "}", "d"),
        *('script "x # {y} !"', "v", "{", "10.0.0.1", "}", "i\\#j"),
    ]


def test_conditions(tmp_path: Path) -> None:
    """``@id`` holds for this node alone, ``@^id`` for all others, also behind a brace."""
    text = "@lb1 a\n@lb2 b\n@^lb1 c\n@^lb2 d\n@lb1\nv { @lb1 e }\n@lb1  f\n"
    assert lines(tmp_path, text) == ["a", "d", "v", "{", "e", "}", "f"]


def test_definitions_are_put_in_where_they_are_used(tmp_path: Path) -> None:
    """A value may name others, and what they are at that moment counts (the manual's example)."""
    text = (
        "$BASE=10.2.${SUB}\n$SUB=0\n${BASE}.100/32\n$SUB=10\n${BASE}.100/32\n"
        "$SUB/x $SUB ${NONE} $NONE\n$EMPTY=\na ${EMPTY}b\n@lb2 $SUB=11\n$SUB\n"
    )
    assert lines(tmp_path, text) == [
        *("10.2.0.100/32", "10.2.10.100/32", "$SUB/x 10 $", "{", "NONE", "}", "$NONE"),
        *("a b", "10"),
    ]


def test_a_definition_that_holds_a_condition(tmp_path: Path) -> None:
    """The manual's ``$IF_MAIN=@main``."""
    text = "$IF_MAIN=@lb1\n$IF_OTHER=@lb2\n$IF_MAIN priority 240\n$IF_OTHER priority 100\n"
    assert lines(tmp_path, text) == ["priority 240"]


def test_definitions_of_several_lines(tmp_path: Path) -> None:
    """They are put in line by line, may hold conditions and definitions, and may be nested."""
    text = (
        "$RS= \\\n real ${N} { \\\n # no \\\n weight 1 \\\n }\n"
        "$VS= \\\nvs { \\\n @lb2 no \\\n $N=1 \\\n $RS \\\n $N=2 \\\n $RS \\\n end \\\n }\n"
        "$VS\nlast\n$RS ignored\n"
    )
    one, two = ("real 1", "{", "weight 1", "}"), ("real 2", "{", "weight 1", "}")
    assert lines(tmp_path, text) == ["vs", "{", *one, *two, "end", "}", "last", "$RS ignored"]


def test_an_empty_line_ends_a_definition(tmp_path: Path) -> None:
    """As 2.2.7's parser does, whatever the manual's example looks like."""
    assert lines(tmp_path, "$A=x \\\n\ny\n$A\n") == ["y", "x"]


def test_predefined_definitions(tmp_path: Path) -> None:
    """The folder and the id are known; what is random is left, with a note."""
    left, notes = noted(tmp_path, '"${_PWD}/x" ${_INSTANCE}\n"${_RANDOM 1 9}"\n')
    assert left == [f'"{tmp_path}/x" lb1', '"${_RANDOM 1 9}"']
    assert notes == (
        'k.conf:2: sentinel cannot know the value in ""${_RANDOM 1 9}"": write it out',
    )


def test_sequences(tmp_path: Path) -> None:
    """The manual's examples of ~SEQ, ~SEQx and ~LST, alone and together."""
    text = (
        "~SEQ(SUBNET, 0, 3) 10.0.${SUBNET}.1\n~SEQx(S, 0x90, 0x10, 0xb0) fe80::${S}:1\n"
        "~LST({IP, IP1}, {10,1},{20,4}) ~SEQ(X,2) ${X}.${IP}.${IP1}\n$N=2\n~SEQ(Y, ${N}, 1) y${Y}\n"
        "~LST(Z, a) $Z\n"
    )
    assert lines(tmp_path, text) == [
        *("10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.3.1"),
        *("fe80::90:1", "fe80::a0:1", "fe80::b0:1"),
        *("1.10.1", "2.10.1", "1.20.4", "2.20.4", "y2", "y1", "a"),
    ]


def test_a_sequence_of_definitions(tmp_path: Path) -> None:
    """Every repetition is read to its end before the next begins."""
    text = "$V= \\\nv${I} { \\\n${J} \\\n}\n~SEQ(I,1,2) ~SEQ(J,1,2) $V\n"
    made = [[f"v{i}", "{", f"{j}", "}"] for i in (1, 2) for j in (1, 2)]
    assert lines(tmp_path, text) == [word for block in made for word in block]


@pytest.mark.parametrize(
    "wrong", ["~SEQ(A)", "~SEQ(A,x) y", "~SEQ(A,1,0,2) y", "~LST(A) y", "~SEQ"]
)
def test_a_wrong_sequence_is_passed_over_with_a_note(tmp_path: Path, wrong: str) -> None:
    """Nothing can be made of it."""
    left, notes = noted(tmp_path, f"{wrong}\nb\n")
    assert left == ["b"]
    assert notes == (f'k.conf:1: "{wrong}" is no sequence that sentinel knows: write it out',)


def test_includes(tmp_path: Path) -> None:
    """By pattern and in order, relative to the file that includes, and with conditions."""
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "2.conf").write_text("two\ninclude e/*.conf\n")
    (tmp_path / "d" / "1.conf").write_text("one")
    (tmp_path / "d" / "e" / "3.conf").write_text('"${_PWD}"\n')
    (tmp_path / "x").write_text("x\n")
    (tmp_path / "y").write_text("y\n")
    text = "$D=d\ninclude ${D}/*.conf\nend\n@lb2 include x\n@lb1 includer {y,x}\nincluded x\n"
    left = ["one", "two", f'"{tmp_path}/d/e"', "end", "y", "x", "included x"]
    assert noted(tmp_path, text) == (left, ())


def test_includes_that_keepalived_or_we_refuse(tmp_path: Path) -> None:
    """Each is passed over with a note; none is waited for, and none comes back to itself."""
    (tmp_path / "run.conf").write_text("no")
    (tmp_path / "run.conf").chmod(0o755)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").write_text("loop\ninclude k.conf\n")
    text = "include none*\ninclude run.conf\ninclude fifo\ninclude loop\nincludea /\nend\n"
    left, notes = noted(tmp_path, text)
    assert left == ["loop", "end"]
    assert notes == (
        "k.conf:1: no file matches include none*: make it, or remove it",
        "k.conf:2: keepalived skips run.conf, an executable file: chmod a-x",
        "k.conf:3: cannot include fifo: not a regular file: mend or remove it",
        "loop:2: k.conf includes itself: remove the include",
        "k.conf:5: cannot include /: Is a directory: mend or remove it",
    )


def test_patterns_with_braces(tmp_path: Path) -> None:
    """Nested ones stand for all their alternatives, each file once."""
    for name in ("foo", "food", "bar"):
        (tmp_path / name).touch()
    found = matches("{foo{,d},b*}", str(tmp_path))
    assert sorted(found) == [str(tmp_path / name) for name in ("bar", "foo", "food")]
    assert matches("\0*", str(tmp_path)) == []


@pytest.mark.parametrize(
    "text",
    [
        "~SEQ(A,1,100000000) x\n",
        "$A= \\\nx \\\n$A\n$A\n",
        "~SEQ(A,1,99999) ~SEQ(B,1,99999) ~SEQ(C,1,99999) x\n",
    ],
)
def test_what_has_no_end_is_cut(tmp_path: Path, text: str) -> None:
    """A note says that the rest is unread."""
    left, notes = noted(tmp_path, text)
    assert len(left) <= LINES_MAX
    assert notes == (
        f"k.conf:{text.count(chr(10))}: over {LINES_MAX} lines, the rest is unread: shorten",
    )


def test_values_that_grow_without_end_are_cut(tmp_path: Path) -> None:
    """Neither a value that names itself nor one that doubles takes long."""
    doubling = "".join(f"$A{n}=${{A{n + 1}}}${{A{n + 1}}}\n" for n in range(40))
    lines(tmp_path, f"{doubling}$A40=x\n$A0\n$S=$S\n$S\n$T=$U\n$U=$T\n$T\n")


@given(
    st.lists(
        st.sampled_from(
            [*'{}"!#@$~\\\n \t', "$A=", "$A", "${A}", "~SEQ(A,1,3)", "~LST(A,b,c)", "@lb1 ", "x"]
        )
    ).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_written_is_read_to_its_end(text: str) -> None:
    """No text raises, and none is endless."""
    notes = Notes()
    source = Source("lb1", notes)
    path = f"/proc/self/fd/{(memory := os.memfd_create('k.conf'))}"
    try:
        os.write(memory, text.encode())
        os.fchmod(memory, 0o600)
        assert source.begin(path) == ""
        for line in source.lines():
            assert line.text == line.text.strip(" \t")
    finally:
        os.close(memory)
