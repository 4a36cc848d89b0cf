"""The rules of the tree, read from the tree: layers, purity, sizes, and what must not be left."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sentinel"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: Who may import whom; a folder speaks for all its modules. Everyone may import the nouns.
ALLOWED = {
    "sentinel.vrrp": set[str](),
    "sentinel.model": {"sentinel.vrrp"},
    "sentinel.actions": {"sentinel.model", "sentinel.vrrp"},
    "sentinel.events": {"sentinel.actions", "sentinel.model"},
    "sentinel.config": set[str](),
    "sentinel.core": {
        *("sentinel.model", "sentinel.vrrp", "sentinel.actions", "sentinel.events"),
        "sentinel.core",
    },
}
#: A foreign library has one door into the tree.
ONE_DOOR = ("psutil", "pyroute2", "sdnotify", "structlog", "h11")
PURE = {"sentinel.core", "sentinel.model", "sentinel.events", "sentinel.actions", "sentinel.vrrp"}
#: What a decision must not be able to reach.
IMPURE = {"asyncio", "os", "random", "socket", "subprocess", "time", "pathlib", "logging"}
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 330
#: Every key stands in one place, however many there are.
LONGER = {"sentinel.config": 420}


def name_of(path: Path) -> str:
    """Return the dotted name of a module's file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Return the dotted names of all modules that *path* imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            known = {name_of(module) for module in MODULES}
            found |= {module for module in modules if module in known} or {node.module}
    return found


def ids(path: Path) -> str:
    """Name a parametrised test after the module it judges."""
    return name_of(path)


def layer(name: str) -> str:
    """Return the first folder of a module below the package, or the module itself."""
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_point_one_way(path: Path) -> None:
    """Checks and drivers never import each other, and nothing imports what drives it."""
    own = layer(name_of(path))
    ours = {name for name in imports_of(path) if name.startswith("sentinel.")}
    if own in ALLOWED:
        assert all(any(n == a or n.startswith(a + ".") for a in ALLOWED[own]) for n in ours), ours
    if own in {"sentinel.checks", "sentinel.drivers"}:
        other = {"sentinel.checks", "sentinel.drivers", "sentinel.core"} - {own}
        assert not {name for name in ours if layer(name) in other}
        siblings = {name for name in ours if layer(name) == own and name != own}
        assert siblings <= {name_of(path)}
    if own not in {"sentinel.commands", "sentinel.__main__", "sentinel.daemon"}:
        above = {"sentinel.commands", "sentinel.wiring"} - {own}
        assert not {name for name in ours if layer(name) in above}


def test_the_core_is_pure() -> None:
    """No clock, no I/O, no chance within reach of a decision."""
    for path in MODULES:
        if layer(name_of(path)) in PURE:
            assert not {name.split(".")[0] for name in imports_of(path)} & IMPURE, path


@pytest.mark.parametrize("library", ONE_DOOR)
def test_a_foreign_library_has_one_door(library: str) -> None:
    """Each is imported by one module at the most, so that it can be replaced."""
    users = [
        name_of(path)
        for path in MODULES
        if any(name.split(".")[0] == library for name in imports_of(path))
    ]
    assert len(users) <= 1, users


#: What reads the clock that people set, which steps: it is for what people read, and for what was
#: dated by it (certificates, the age of a pidfile). Everything else keeps to CLOCK_BOOTTIME and
#: CLOCK_MONOTONIC, so that a step of the clock changes no decision, no lease and no interval.
WALL_CLOCK = {
    "sentinel.log": "the time of an event",
    "sentinel.snapshot": "the time of a status document",
    "sentinel.wiring": "the time of what the peer is told",
    "sentinel.checks.http": "what is left of a certificate",
    "sentinel.processes.identity": "whether a process is older than its pidfile",
    "sentinel.drill.witness": "how late a line is heard that ip stamped",
}
WALL_CLOCK_READERS = {
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.CLOCK_REALTIME"),
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
}


def test_a_step_of_the_clock_changes_nothing() -> None:
    """The wall clock is read where it is displayed or compared with dates, and nowhere else."""
    readers = {
        name_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCK_READERS
    }
    assert readers == WALL_CLOCK.keys()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_nothing_is_too_long_to_read(path: Path) -> None:
    """A function fits a screen, a module a sitting."""
    assert path.read_text().count("\n") <= LONGER.get(name_of(path), MODULE_LINES_MAX)
    for function in functions(path):
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < FUNCTION_LINES_MAX, function.name


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_no_bug_is_swallowed(path: Path) -> None:
    """Broad excepts hide bugs: what they catch is raised again, and only the daemon may log it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            caught = getattr(node.type, "id", None)
            assert node.type is not None
            assert caught != "Exception" or name_of(path) == "sentinel.daemon"
            if caught in {"Exception", "BaseException"}:
                assert any(isinstance(inner, ast.Raise) for inner in node.body)


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_tasks_live_in_the_one_task_group(path: Path) -> None:
    """A task outside the supervisor's group could die unseen."""
    if name_of(path) == "sentinel.supervisor":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in {"create_task", "ensure_future"}:
            owner = ast.unparse(node.value)
            assert owner == "group", f"{owner}.{node.attr} in line {node.lineno}"
