"""The configuration file: what is read, what is refused and how, and that it survives being shown.

Every file in configs/bad ends in the exact problems it must be refused with, after ``#!``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privileges import IS_ROOT, as_nobody

from sentinel.commands import CONFIG_DEFAULT
from sentinel.config import (
    Command,
    Config,
    Facility,
    Keepalived,
    Level,
    OnFail,
    Pace,
    Probe,
    ProbeType,
    ProxyProtocol,
    Restart,
    Rule,
)
from sentinel.configfile import (
    DEFAULT_PATH,
    ConfigError,
    Problem,
    dump,
    load,
    schema,
)
from sentinel.configfile.duration import read_duration, write_duration
from sentinel.configfile.keys import Table, arrays, sections, table_keys
from sentinel.configfile.source import FILE_BYTES_MAX

CONFIGS = Path(__file__).parent / "configs"


def load_text(text: str, directory: Path) -> Config:
    """Load *text* from a file in *directory*."""
    file = directory / "sentinel.toml"
    file.write_text(text, encoding="utf-8")
    return load(str(file))


def problems_of(file: Path) -> list[str]:
    """Return the problems that *file* is refused with, without its name."""
    with pytest.raises(ConfigError) as refused:
        load(str(file))
    lines = str(refused.value).splitlines()
    assert lines == [str(problem) for problem in refused.value.problems]
    assert all(line.startswith(f"{file}: ") for line in lines)
    return [line.removeprefix(f"{file}: ") for line in lines]


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("bad/*.toml")), ids=lambda file: file.stem)
def test_bad_file_is_refused_with_exactly_its_problems(file: Path, tmp_path: Path) -> None:
    """All mistakes are told at once, each with its key and its cure."""
    text = file.read_text(encoding="utf-8", errors="replace")
    expected = re.findall(r"^#! (.*)$", text, re.MULTILINE)
    assert expected
    own = tmp_path / file.name  # whoever owns the one in the working tree
    own.write_bytes(file.read_bytes())
    assert problems_of(own) == expected


def test_problem_names_file_key_mistake_and_cure(tmp_path: Path) -> None:
    """A problem is also readable by programs, part by part."""
    file = tmp_path / "sentinel.toml"
    file.write_text("[restart]\nbudget = -1\n")
    with pytest.raises(ConfigError) as refused:
        load(str(file))
    assert refused.value.problems == (
        Problem(
            file=str(file), key="restart.budget", wrong="-1 is out of bounds", cure="write 0 to 100"
        ),
    )


def test_missing_file_is_a_mistake_unless_it_is_the_default_one(tmp_path: Path) -> None:
    """Whoever names a file means it."""
    assert problems_of(tmp_path / "none.toml") == [
        "there is no such file: name another one, or create it"
    ]
    assert DEFAULT_PATH == CONFIG_DEFAULT
    if not Path(DEFAULT_PATH).exists():
        assert load() == Config()


def test_directory_is_refused(tmp_path: Path) -> None:
    """A directory is no configuration."""
    assert problems_of(tmp_path) == ["it is no plain file: name a file"]


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    """Nobody has to write to a FIFO for it to be refused."""
    os.mkfifo(tmp_path / "fifo")
    assert problems_of(tmp_path / "fifo") == ["it is no plain file: name a file"]


def test_file_that_everyone_may_write_is_refused(tmp_path: Path) -> None:
    """Whoever can write the file could have root run anything."""
    file = tmp_path / "sentinel.toml"
    file.touch()
    file.chmod(0o646)
    assert problems_of(file) == [
        "everyone may write it, and root runs commands from it: chmod o-w it"
    ]


@pytest.mark.skipif(not IS_ROOT, reason="only root may give files away")
@pytest.mark.parametrize(
    ("user", "group", "mode", "problem"),
    [
        (0, 0, 0o664, ""),
        (0, 4, 0o644, ""),
        (0, 4, 0o664, "group 4 may write it, and root runs commands from it: chmod g-w it"),
        (1000, 0, 0o644, "user 1000, its owner, may write it, and root runs commands from it:"),
        (1000, 0, 0o444, "user 1000, its owner, may write it, and root runs commands from it:"),
    ],
)
def test_file_that_somebody_else_may_write_is_refused(
    tmp_path: Path, user: int, group: int, mode: int, problem: str
) -> None:
    """Its owner always may: a mode can be changed."""
    file = tmp_path / "sentinel.toml"
    file.touch()
    os.chown(file, user, group)
    file.chmod(mode)
    if problem:
        (said,) = problems_of(file)
        assert said.startswith(problem)
    else:
        assert load(str(file)) == Config()


@pytest.mark.skipif(not IS_ROOT, reason="only root can become someone else")
@pytest.mark.parametrize(("user", "trusted"), [(0, True), (65534, True), (1000, False)])
def test_an_ordinary_user_trusts_root_and_himself(*, user: int, trusted: bool) -> None:
    """He asks for the status, or drills, with root's file or with his own."""
    with TemporaryDirectory() as name:
        folder, file = Path(name), Path(name, "sentinel.toml")
        folder.chmod(0o755)
        file.touch()
        os.chown(file, user, 0)
        with as_nobody():
            if trusted:
                assert load(str(file)) == Config()
            else:
                assert problems_of(file)


def test_huge_file_is_refused(tmp_path: Path) -> None:
    """Nobody's configuration is that long, and nobody's memory is endless."""
    file = tmp_path / "sentinel.toml"
    file.write_text("#" * (FILE_BYTES_MAX + 1))
    assert problems_of(file) == ["it is longer than 1048576 bytes: name the right file"]


@pytest.fixture
def nobody() -> Iterator[None]:
    """Run as a user who may read nothing of root's."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.mark.usefixtures("nobody")
def test_unreadable_file_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Missing permission is named as such."""
    file = tmp_path_factory.getbasetemp() / "secret.toml"
    if os.getuid() != 0:
        file.touch(mode=0)
    assert problems_of(file) == [
        "it cannot be read (Permission denied): let sentinel's user read it"
    ]


@given(
    st.recursive(
        st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.floats(), st.dates()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=5,
    ),
    st.data(),
)
def test_no_value_of_any_type_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, value: Any, data: st.DataObject
) -> None:
    """Whatever stands behind a known key, the answer is a Config or a list of problems."""
    tables = ["", *(f"[{each.name}]" for each in sections()), "[[probe]]", "[[command]]"]
    head = data.draw(st.sampled_from(tables))
    defaults = {f"[{each.name}]": each.default for each in sections()} | {
        f"[[{each.name}]]": each.default for each in arrays()
    }
    names = [key.name for key in table_keys(defaults.get(head, Config()))]
    name = data.draw(st.sampled_from([*names, *(each.name for each in (*sections(), *arrays()))]))
    text = f"{head}\n{name} = {toml(value)}\n"
    problems: tuple[Problem, ...] = ()
    try:
        load_text(text, tmp_path_factory.getbasetemp())
    except ConfigError as error:
        problems = error.problems
    assert all(problem.wrong and problem.cure for problem in problems)


def toml(value: Any) -> str:
    """Write any value as TOML, as well as its type allows."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(each):08x}" for each in value) + '"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return (
                "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + "}"
            )
        case _:
            return str(value)


PLACES = (
    "hook.lease_file",
    "hook.track_file",
    "hook.priority_file",
    "hook.sign",
    "vrrp.fifo",
    "status.socket",
    "status.control",
    "haproxy.pidfile",
    "vrrp.file",
)


@pytest.mark.parametrize(("one", "other"), list(combinations(PLACES, 2)))
def test_no_two_files_are_one(tmp_path: Path, one: str, other: str) -> None:
    """Not under another spelling either: what keepalived reads there would be anything."""
    load_text(f'{one} = "/run/a/b"\n{other} = "/run/a/c"\n', tmp_path)
    with pytest.raises(ConfigError, match=r"is \S+ already: give each") as refused:
        load_text(f'{one} = "/run/a/b"\n{other} = "/run/a/./b"\n', tmp_path)
    (problem,) = refused.value.problems
    assert {problem.key, problem.wrong.split()[2]} == {one, other}


@pytest.mark.parametrize(
    ("key", "path", "other"),
    [
        ("hook.priority_file", "track", "hook.track_file"),
        ("hook.sign", "track", "hook.track_file"),
        ("vrrp.fifo", "lease", "hook.lease_file"),
        ("status.control", "status.sock", "status.socket"),
    ],
)
def test_a_default_place_is_taken(tmp_path: Path, key: str, path: str, other: str) -> None:
    """The other file is where it is without being named."""
    with pytest.raises(ConfigError, match=f"{key}: /run/b/{path} is {other} already"):
        load_text(f'run_dir = "/run/b"\n{key} = "/run/b/{path}"\n', tmp_path)


@pytest.mark.parametrize("name", ["lock", "memory.json", "invocation.json"])
def test_what_sentinel_keeps_for_itself_is_not_given_away(tmp_path: Path, name: str) -> None:
    """The lock and the memory have no key, and no other file may be put in their place."""
    file = tmp_path / "sentinel.toml"
    file.write_text(f'run_dir = "/run/b"\n[hook]\nsign = "/run/b/{name}"\n')
    assert problems_of(file) == [
        f"hook.sign: /run/b/{name} is used in run_dir already: give each a path of its own"
    ]


# --- what is read -----------------------------------------------------------------------------


def files_of(config: Config) -> set[str]:
    """Return every file and socket that a sentinel has."""
    hooked = {config.lease_file, config.track_file, config.priority_file, config.sign}
    return {*hooked, config.fifo, config.status_socket, config.control_socket}


def test_run_dir_alone_separates_two_sentinels(tmp_path: Path) -> None:
    """All that was not put elsewhere by name lies in it."""
    assert files_of(load_text("", tmp_path)) == {
        f"/run/sentinel/{name}"
        for names in (
            "lease track track-priority hook-called vrrp.fifo",
            "status.sock control.sock",
        )
        for name in names.split()
    }
    second = load_text('run_dir = "/run/second"\n', tmp_path)
    assert {path.rpartition("/")[0] for path in files_of(second)} == {"/run/second"}
    named = load_text('run_dir = "/run/second"\n[hook]\ntrack_file = "/run/b/t"\n', tmp_path)
    assert (named.track_file, named.priority_file) == ("/run/b/t", "/run/b/t-priority")
    assert named.lease_file == "/run/second/lease"


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    """A standard node needs no configuration."""
    assert load_text((CONFIGS / "good" / "empty.toml").read_text(), tmp_path) == Config()


def test_typical_file_is_read(tmp_path: Path) -> None:
    """Each kind of value lands in its field; what is not set keeps the default of its table."""
    config = load_text((CONFIGS / "good" / "typical.toml").read_text(), tmp_path)
    web, tls, mysql = config.probe
    assert config.node == "lb1"
    assert config.haproxy.stats_socket == "unix@/run/haproxy/admin.sock"
    assert (config.restart.budget, config.restart.window_s) == (4, 120.0)
    assert config.backends.expect == ("200",)
    assert config.backends.pace == Config().backends.pace
    assert (config.log.facility, config.log.level) == (Facility.LOCAL3, Level.DEBUG)
    assert web == Probe(
        name="web",
        address="127.0.0.1:80",
        method="GET",
        path="/health?deep=1",
        host="www.example.org",
        headers=("Accept: text/plain", "X-Empty:"),
        expect=("200", "301-302"),
        body="^ok",
        pace=Pace(inter_s=2.0),
    )
    assert (tls.type, tls.verify, tls.expires_within_s) == (ProbeType.HTTPS, True, 30 * 86400.0)
    assert (tls.proxy_protocol, tls.on_fail) == (ProxyProtocol.V2, OnFail.ALERT)
    assert (mysql.type, mysql.address) == (ProbeType.TCP, "/run/mysqld/mysqld.sock")
    assert config.command == (
        Command(
            name="disk",
            argv=("/usr/local/bin/disk-check", "--limit", "90 %"),
            pace=replace(Command().pace, timeout_s=3.0),
        ),
    )


def test_fastinter_follows_a_shorter_inter(tmp_path: Path) -> None:
    """Where only inter is set, fastinter is never the slower of the two."""
    config = load_text('[process]\ninter = "50ms"\n[runtime]\ninter = "5s"\n', tmp_path)
    assert (config.process.inter_s, config.process.fastinter_s) == (0.05, 0.05)
    assert (config.runtime.inter_s, config.runtime.fastinter_s) == (5.0, 0.25)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("1us", 1e-6),
        ("500ms", 0.5),
        ("2s", 2.0),
        ("90s", 90.0),
        ("1m", 60.0),
        ("2h", 7200.0),
        ("14d", 14 * 86400.0),
    ],
)
def test_durations_have_haproxys_units(text: str, seconds: float) -> None:
    """A time is a whole number and one of us, ms, s, m, h, d."""
    assert read_duration(text) == seconds
    assert write_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**15))
def test_duration_survives_being_written(time_us: int) -> None:
    """Any time of whole microseconds is read back as the same float."""
    assert read_duration(write_duration(time_us / 1e6)) == time_us / 1e6


# --- what there is to set ---------------------------------------------------------------------


def tables() -> Iterator[tuple[str, Table]]:
    """Yield every table of a file with its defaults."""
    yield "", Config()
    for each in (*sections(), *arrays()):
        yield each.name, each.default


def test_every_field_of_the_configuration_can_be_set() -> None:
    """No field is forgotten: each is a key, a table, an array of tables, a pace, or discovered."""
    names = {each.name for each in (*sections(), *arrays())}
    for _, table in tables():
        keys = {key.field for key in table_keys(table)}
        rest = {field.name for field in fields(table)} - keys
        assert rest <= names | {"pace", "discovered"}


@pytest.mark.parametrize(("name", "table"), list(tables()), ids=lambda part: str(part)[:15])
def test_no_two_fields_share_a_key(name: str, table: Table) -> None:
    """Taking the unit off a duration's name must not make it another key's name."""
    assert max(Counter(key.name for key in table_keys(table)).values()) == 1, name


def test_numbers_and_times_have_bounds_that_hold_their_default() -> None:
    """Everything has a limit, and the defaults keep it."""
    for name, table in tables():
        for key in table_keys(table):
            if isinstance(key.default, int | float) and not isinstance(key.default, bool):
                rule = key.rule
                assert rule.minimum is not None, (name, key)
                assert rule.maximum is not None, (name, key)
                assert rule.minimum <= key.default <= rule.maximum, (name, key)


def test_schema_as_it_stands_changes_nothing(tmp_path: Path) -> None:
    """The commented list of keys is a configuration itself, that of the defaults."""
    assert load_text(schema(), tmp_path) == Config()


def test_schema_shows_every_key_with_its_default(tmp_path: Path) -> None:
    """With the comment signs before its keys removed it sets every default by name."""
    text = schema()
    uncommented = re.sub(r"^# ([a-z_]+ = )", r"\1", text, flags=re.MULTILINE)
    single, _, _ = uncommented.partition("# [[")
    assert load_text(single, tmp_path) == Config()
    unwrapped = re.sub(r"\n#  +", " ", text)
    for _, table in tables():
        for key in table_keys(table):
            assert f"# {key.name} = " in text
            assert key.rule.doc in unwrapped


# --- what is shown ----------------------------------------------------------------------------


def durations(rule: Rule) -> st.SearchStrategy[float]:
    """Draw times of whole microseconds within the bounds of *rule*."""
    assert rule.minimum is not None
    assert rule.maximum is not None
    return st.integers(
        min_value=round(rule.minimum * 1e6), max_value=round(rule.maximum * 1e6)
    ).map(lambda time_us: time_us / 1e6)


PRINTABLE = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20)
PATHS = PRINTABLE.map(lambda text: f"/{text}")


def values(table: Table) -> st.SearchStrategy[Any]:
    """Draw *table* with other words, numbers, times, paths and truth values."""
    drawn: dict[str, st.SearchStrategy[Any]] = {}
    for key in table_keys(table):
        rule = key.rule
        if not hasattr(table, key.field):
            continue  # of the pace
        match key.default:
            case _ if key.is_duration:
                drawn[key.field] = durations(rule)
            case bool():
                drawn[key.field] = st.booleans()
            case int():
                assert rule.minimum is not None
                assert rule.maximum is not None
                drawn[key.field] = st.integers(int(rule.minimum), int(rule.maximum))
            case StrEnum() as word:
                drawn[key.field] = st.sampled_from(type(word))
            case str() if rule.absolute_path:
                drawn[key.field] = PRINTABLE.map(f"/run/{key.field}-{{}}".format)
            case tuple() if key.field in {"start", "stop", "restart"}:
                drawn[key.field] = st.tuples(PATHS, PRINTABLE)
    return st.builds(lambda **found: agreeing(replace(table, **found)), **drawn)


def agreeing(table: Table) -> Table:
    """Return *table* without contradictions."""
    match table:
        case Pace():
            timeout_s, inter_s = min(table.timeout_s, 2.0), min(table.inter_s, 2.0)
            return replace(
                table,
                inter_s=inter_s,
                fastinter_s=min(table.fastinter_s, inter_s),
                downinter_s=min(table.downinter_s, 2.0),
                timeout_s=timeout_s,
            )
        case Keepalived():
            return replace(table, hold_s=min(table.hold_s, table.hold_max_s))
        case Restart():
            return replace(
                table,
                budget=min(table.budget, 5),
                window_s=86400.0,
                backoff_s=min(table.backoff_s, table.backoff_max_s),
            )
    return table


NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,10}", fullmatch=True)
PROBES = st.builds(
    Probe,
    name=NAMES.map(lambda name: f"p-{name}"),
    type=st.sampled_from([ProbeType.HTTPS]),
    address=st.sampled_from(["127.0.0.1:80", "[::1]:443", "/run/a.sock", "web.example:80"]),
    method=st.sampled_from(["GET", "OPTIONS"]),
    path=st.sampled_from(["/", "/a%20b?c=d", "*"]),
    headers=st.lists(st.sampled_from(['X: "quoted" \\', "Accept: */*"]), max_size=2).map(tuple),
    body=PRINTABLE.map(re.escape),
    expires_within_s=st.integers(0, 3650).map(lambda days: days * 86400.0),
    proxy_protocol=st.sampled_from(ProxyProtocol),
    on_fail=st.sampled_from(OnFail),
)
COMMANDS = st.builds(
    Command, name=NAMES.map(lambda name: f"c-{name}"), argv=st.tuples(PATHS, PRINTABLE)
)


@settings(max_examples=25)
@given(
    node=PRINTABLE,
    tables=st.fixed_dictionaries({each.name: values(each.default) for each in sections()}),
    probe=st.lists(PROBES, max_size=3, unique_by=lambda probe: probe.name).map(tuple),
    command=st.lists(COMMANDS, max_size=3, unique_by=lambda command: command.name).map(tuple),
)
def test_configuration_survives_being_shown(
    tmp_path_factory: pytest.TempPathFactory,
    node: str,
    tables: dict[str, Any],
    probe: tuple[Probe, ...],
    command: tuple[Command, ...],
) -> None:
    """What ``config show`` prints loads as the same Config."""
    config = Config(node=node, probe=probe, command=command, **tables)
    assert load_text(dump(config), tmp_path_factory.getbasetemp()) == config


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("good/*.toml")), ids=lambda file: file.stem)
def test_good_file_survives_being_shown(file: Path, tmp_path: Path) -> None:
    """Every good file, shown and loaded again, is the same Config."""
    config = load_text(file.read_text(), tmp_path)
    assert load_text(dump(config), tmp_path) == config
