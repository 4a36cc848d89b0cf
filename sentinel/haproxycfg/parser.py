"""Keep the sections of haproxy.cfg apart, with what proxies inherit from defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel.haproxycfg.bind import Bind, options_of, read_binds
from sentinel.haproxycfg.words import expand_address, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

FILE_MAX_BYTES: Final = 64 * 1024 * 1024

#: Every section of versions 1.8 to 3.4: binds in the others (peers, logs) are no frontends.
_SECTIONS: Final = frozenset(
    """
    global defaults frontend listen backend peers resolvers mailers userlist program cache
    ring http-errors log-forward fcgi-app crt-store traces acme log-profile namespace_list
    ruleset dynamic-update
    """.split()  # noqa: SIM905  (a list of words reads as one)
)
_LISTENING: Final = frozenset({"frontend", "listen"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsSocket:
    """One ``stats socket``; *path* is an absolute path, ``HOST:PORT`` or ``[IPv6]:PORT``."""

    path: str
    level: str = "operator"
    mode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    """One ``frontend`` or ``listen`` section."""

    name: str
    mode: str = "tcp"
    monitor_uri: str = ""
    disabled: bool = False
    binds: tuple[Bind, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HaproxyCfg:
    """What the files say; *unreadable* names the files that could not be read, and why.

    *maxconn* is 0 where HAProxy derives it from its limit of file descriptors.
    """

    stats_sockets: tuple[StatsSocket, ...] = ()
    frontends: tuple[Frontend, ...] = ()
    chroot: str = ""
    maxconn: int = 0
    unreadable: tuple[str, ...] = ()

    @property
    def stats_socket(self) -> str:
        """Where to ask: the first socket in the file system, else the first; "" for none."""
        paths = [stats.path for stats in self.stats_sockets]
        return next((path for path in paths if path.startswith("/")), paths[0] if paths else "")


def read(files: Iterable[str], environment: Mapping[str, str]) -> HaproxyCfg:
    """Read HAProxy's configuration files in their order; never raises.

    Blocks on the disk: call it in a thread. *environment* is that of the HAProxy process.
    """
    texts: list[str] = []
    unreadable: list[str] = []
    for file in files:
        try:
            texts.append(_text(Path(file)))
        except (OSError, ValueError) as error:
            unreadable.append(f"{file}: {getattr(error, 'strerror', None) or error}")
    return replace(parse(texts, environment), unreadable=tuple(unreadable))


def _text(file: Path) -> str:
    """Read one file; a pipe or a device, which might never end, is refused by ValueError."""
    if file.exists() and not file.is_file():
        raise ValueError("not a regular file")
    with file.open("rb") as stream:
        return stream.read(FILE_MAX_BYTES).decode("utf-8", "replace")


def parse(texts: Iterable[str], environment: Mapping[str, str]) -> HaproxyCfg:
    """Read the texts of configuration files, one after the other; never raises."""
    parser = _Parser(environment=dict(environment))
    for _ in parser.read(texts):
        pass
    return HaproxyCfg(
        stats_sockets=tuple(parser.stats_sockets),
        frontends=tuple(parser.frontends),
        chroot=parser.chroot,
        maxconn=parser.maxconn,
    )


def statements(
    texts: Iterable[str], environment: Mapping[str, str]
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the words of every line after the kind of its section; never raises.

    Variables are expanded in the addresses of servers as well.
    """
    parser = _Parser(environment=dict(environment))
    for section, words in parser.read(texts):
        match words:
            case ["server" as keyword, name, address, *options]:
                place = expand_address(address, parser.environment)
                yield section, [keyword, name, place, *options]
            case _:
                yield section, words


@dataclass(slots=True, kw_only=True)
class _Parser:
    """Where the reading has got to: *proxy* holds what the section now open says so far."""

    environment: dict[str, str]
    section: str = ""
    proxy: Frontend = Frontend(name="")
    expect_proxy: bool = False
    latest_defaults: Frontend = Frontend(name="")
    named_defaults: dict[str, Frontend] = field(default_factory=dict)
    unix_prefix: str = ""
    stats_sockets: list[StatsSocket] = field(default_factory=list)
    frontends: list[Frontend] = field(default_factory=list)
    chroot: str = ""
    maxconn: int = 0

    def read(self, texts: Iterable[str]) -> Iterator[tuple[str, Sequence[str]]]:
        """Take all lines, and yield the words of each after the kind of its section."""
        for text in texts:
            for line in text.split("\n"):
                words = split(line, self.environment)
                if words and not words[0].startswith("."):
                    self._take(words)
                    yield self.section, words
            self._end_section()

    def _take(self, words: Sequence[str]) -> None:
        if words[0] in _SECTIONS:
            self._end_section()
            self._begin_section(words)
        elif self.section == "global":
            self._take_global(words)
        elif self.section in _LISTENING or self.section == "defaults":
            self._take_proxy(words)

    def _end_section(self) -> None:
        """Keep what the section said; it ends with its file at the latest."""
        if self.section == "defaults":
            self.latest_defaults = self.proxy
            self.named_defaults[self.proxy.name] = self.proxy
        elif self.section in _LISTENING:
            binds = self.proxy.binds
            if self.expect_proxy:
                binds = tuple(replace(bind, accept_proxy=True) for bind in binds)
            self.frontends.append(replace(self.proxy, binds=binds))
        self.section = ""
        self.expect_proxy = False

    def _begin_section(self, words: Sequence[str]) -> None:
        """Start from what is inherited: nothing for defaults, unless they are ``from`` others."""
        self.section = words[0]
        named = len(words) > 1 and words[1] != "from"
        inherited = Frontend(name="") if self.section == "defaults" else self.latest_defaults
        if "from" in words[1:-1]:
            parent = words[words.index("from", 1) + 1]
            inherited = self.named_defaults.get(parent, inherited)
        self.proxy = replace(inherited, name=words[1] if named else "")

    def _take_global(self, words: Sequence[str]) -> None:
        match words:
            case ["stats", "socket", address, *options]:
                self._take_stats_socket(address, options)
            case ["unix-bind", *options] if "prefix" in options[:-1]:
                self.unix_prefix = options[options.index("prefix") + 1]
            case ["chroot", path, *_]:
                self.chroot = path
            case ["maxconn", number, *_] if number.isascii() and number.isdecimal():
                self.maxconn = int(number[:10])
            case ["setenv", name, value, *_]:
                self.environment[name] = value
            case ["presetenv", name, value, *_]:
                self.environment.setdefault(name, value)
            case ["unsetenv", *names]:
                for name in names:
                    self.environment.pop(name, None)
            case ["resetenv", *names]:
                kept = {name: self.environment[name] for name in names if name in self.environment}
                self.environment = kept
            case _:
                pass

    def _take_stats_socket(self, address: str, options: Sequence[str]) -> None:
        """Keep a socket that can be asked; ``unix-bind prefix`` does not apply to it."""
        level = options_of(options).get("level") or "operator"
        mode = options_of(options).get("mode", "")
        for bind in read_binds([expand_address(address, self.environment)]):
            if bind.address or bind.path:
                path = bind.reachable_at(bind.port)
                self.stats_sockets.append(StatsSocket(path=path, level=level, mode=mode))

    def _take_proxy(self, words: Sequence[str]) -> None:
        match words:
            case ["bind", address, *options] if self.section in _LISTENING:
                address = expand_address(address, self.environment)
                binds = read_binds([address, *options], self.unix_prefix)
                self.proxy = replace(self.proxy, binds=(*self.proxy.binds, *binds))
            case ["mode", mode, *_]:
                self.proxy = replace(self.proxy, mode=mode)
            case ["monitor-uri", path, *_]:
                self.proxy = replace(self.proxy, monitor_uri=path)
            case ["disabled" | "enabled" as word, *_]:
                self.proxy = replace(self.proxy, disabled=word == "disabled")
            case ["tcp-request", "connection", "expect-proxy", "layer4"]:
                self.expect_proxy = True  # unconditionally: as accept-proxy on every bind
            case _:
                pass
