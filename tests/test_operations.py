"""docs/operations.md tells of every event, phase, metric and exit status, and of no others.

The events are read from the code: whatever gives a name to a Report or to the log's ``emit``. One
that cannot be read so is a failure as well, because nobody would notice that it is not told.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from documents import HEALTHY, HELD, document

from sentinel.__main__ import parser
from sentinel.commands.metrics import families
from sentinel.config import Config
from sentinel.configfile import load
from sentinel.core import Phase
from sentinel.vrrp import VrrpView

ROOT: Final = Path(__file__).parents[1]
#: What the daemon logs; a drill is not on call.
MODULES: Final = sorted(
    path for path in (ROOT / "sentinel").rglob("*.py") if path.parent.name != "drill"
)
EVENT: Final = re.compile(r"[a-z]+\.[a-z_]+")
#: The methods and functions whose first argument is an event's name.
TELLERS: Final = {"emit", "crashed"}
#: Every command may end with these: wrong usage, Ctrl-C, a reader that went away.
EVERYWHERE: Final = {"2", "130", "141"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def section(title: str) -> str:
    """Return one section of the document."""
    text = (ROOT / "docs/operations.md").read_text()
    found = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert found, f"there is no section {title}"
    return found


def first_cells(title: str) -> list[str]:
    """Return what stands in the first column of a section's tables, without its quotes."""
    return re.findall(r"^\| `([^`]+)`", section(title), re.MULTILINE)


# --- events ---------------------------------------------------------------------------------------


def events_of(path: Path) -> set[str]:
    """Return the names of all events that a module gives."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for function in [node for node in ast.walk(tree) if isinstance(node, Function)]:
        for named in names_in(function):
            found |= read(named, function, tree)
    return found


def names_in(function: Function) -> Iterator[ast.expr]:
    """Yield each expression of a function that is an event's name."""
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            yield from (node.values[number] for number, key in enumerate(keys) if key == "event")
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id == "Report":
            yield from (word.value for word in node.keywords if word.arg == "name")
        if isinstance(called, ast.Attribute) and called.attr in TELLERS:
            yield node.args[0]


def read(named: ast.expr, function: Function, tree: ast.Module) -> set[str]:
    """Return the names that an expression may be."""
    where = f"line {named.lineno}: {ast.unparse(named)}"
    match named:
        case ast.Constant(value=str(name)):
            return {name}
        case ast.IfExp(body=body, orelse=orelse):
            return read(body, function, tree) | read(orelse, function, tree)
        case ast.Attribute(attr="name"):  # a Report, which was read where it was made
            return set()
        case ast.Call(func=ast.Attribute(attr="pop")):  # the log, which takes an event apart
            return set()
        case ast.Name(id=variable):
            found = assigned(variable, function) or handed_in(variable, function, tree)
            assert found, f"whose name is this? {where}"
            return found
    raise AssertionError(f"cannot read the name of an event in {where}")


def assigned(variable: str, function: Function) -> set[str]:
    """Return the names that are assigned to a variable, or to a tuple that it is part of."""
    found: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and variable in map(ast.unparse, names_of(node.targets)):
            found |= constants(node.value)
    return found


def names_of(targets: list[ast.expr]) -> Iterator[ast.Name]:
    """Yield every name that an assignment binds."""
    for target in targets:
        yield from (node for node in ast.walk(target) if isinstance(node, ast.Name))


def handed_in(variable: str, function: Function, tree: ast.Module) -> set[str]:
    """Return the names that a function of the module is called with."""
    if variable not in {argument.arg for argument in function.args.args}:
        return set()
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == function.name
    ]
    return {name for call in calls for name in constants(call.args[0])}


def constants(node: ast.AST) -> set[str]:
    """Return all that looks like an event's name in an expression."""
    words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
    return {word for word in words if isinstance(word, str) and EVENT.fullmatch(word)}


def test_every_event_is_told_once() -> None:
    """With its meaning and what to do; and none that is no more."""
    known = {name for path in MODULES for name in events_of(path)}
    told = first_cells("Events")
    assert len(known) > 40
    assert set(told) == known
    assert len(told) == len(set(told))


# --- phases, metrics, exit statuses ---------------------------------------------------------------


def test_every_phase_is_told_once() -> None:
    """In the words that status shows."""
    assert sorted(first_cells("Phases")) == sorted(phase.value for phase in Phase)


def test_every_metric_is_told_once() -> None:
    """Those of a node of which everything is known."""
    made = document(replace(HEALTHY, vrrp=VrrpView(instances=(HELD,), pids=(200,))))
    known = {"sentinel_up", "sentinel_info", *(family.name for family in families(made))}
    told = [name.partition("{")[0] for name in first_cells("Metrics")]
    assert sorted(told) == sorted(known)


def test_every_command_has_its_exit_statuses() -> None:
    """In the document, and those beyond 0 in its own help as well."""
    actions = parser()._actions  # noqa: SLF001  (argparse has no other way to list them)
    (commands,) = (
        action.choices
        for action in actions
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001  (see above)
    )
    told = dict(re.findall(r"^\| `([a-z]+)` \| (.*) \|$", section("Exit statuses"), re.MULTILINE))
    assert told.keys() == commands.keys()
    for name, command in commands.items():
        assert command.description
        help_ = " ".join(command.description.split()).partition("Exit status: ")[2]
        assert numbers(help_) == numbers(told[name]), name


def numbers(text: str) -> set[str]:
    """Return the exit statuses that a text names, but for those that every command has."""
    return set(re.findall(r"\b\d+\b", re.sub(r"\(.*?\)", "", text))) - EVERYWHERE


# --- configuration --------------------------------------------------------------------------------


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    """Every key in it is one, and says something else than the default."""
    (example,) = re.findall(
        r"^```toml\n(.*?)^```$", section("Configuration"), re.DOTALL | re.MULTILINE
    )
    file = tmp_path / "sentinel.toml"
    file.write_text(example)
    config = load(str(file))
    default = Config()
    for name in ("restart", "keepalived", "status", "backends", "peer", "probe"):
        assert getattr(config, name) != getattr(default, name)
