"""parse() and read() on real configurations, on odd ones, and on anything at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest
from configurations import ARTICLE, DEBIAN
from hypothesis import given
from hypothesis import strategies as st

from sentinel.haproxycfg import Frontend, HaproxyCfg, StatsSocket, parse, read

if TYPE_CHECKING:
    from pathlib import Path

KEYWORDS: Final = """
global defaults frontend listen backend peers bind mode stats socket from disabled monitor-uri
setenv unsetenv resetenv presetenv unix-bind prefix chroot maxconn tcp-request connection
expect-proxy layer4 .if .endif :80 unix@/a http " ' \\ # ${A} $A , - @
""".replace("\n", " \n ").split(" ")  # the line's end is a word, too


def frontends(text: str, **environment: str) -> dict[str, Frontend]:
    """Return the frontends of one text by name."""
    return {frontend.name: frontend for frontend in parse([text], environment).frontends}


def test_the_article_in_todays_syntax() -> None:
    """The old configuration: two frontends, a stats socket, a chroot and a maxconn."""
    cfg = parse([ARTICLE], {})
    assert cfg.stats_sockets == (
        StatsSocket(path="/run/haproxy/admin.sock", level="operator", mode="660"),
    )
    assert (cfg.stats_socket, cfg.chroot, cfg.maxconn) == (
        "/run/haproxy/admin.sock", "/var/lib/haproxy", 20000,
    )  # fmt: skip
    assert [(fe.name, fe.mode, fe.monitor_uri) for fe in cfg.frontends] == [
        ("http-in", "http", ""),
        ("sentinel", "http", "/healthz"),
    ]
    assert [bind.written for fe in cfg.frontends for bind in fe.binds] == [":80", "127.0.0.1:8405"]


def test_debians_default() -> None:
    """A fresh install has a stats socket and no frontend."""
    assert parse([DEBIAN], {}) == HaproxyCfg(
        stats_sockets=(StatsSocket(path="/run/haproxy/admin.sock", level="admin", mode="660"),),
        chroot="/var/lib/haproxy",
    )


def test_settings_come_from_defaults() -> None:
    """The latest defaults, named ones, defaults from defaults, and the proxy's own word."""
    seen = frontends("""
frontend bare
defaults
    mode http
    monitor-uri /up
frontend inherits
frontend own
    mode tcp
defaults quiet from nothing-of-that-name
    disabled
defaults loud from quiet
    enabled
    mode http
listen chosen from quiet
listen from-loud from loud
frontend latest
""")
    assert {name: (fe.mode, fe.monitor_uri, fe.disabled) for name, fe in seen.items()} == {
        "bare": ("tcp", "", False),
        "inherits": ("http", "/up", False),
        "own": ("tcp", "/up", False),
        "chosen": ("tcp", "", True),
        "from-loud": ("http", "", False),
        "latest": ("http", "", False),
    }


def test_binds_of_other_sections_are_no_frontends() -> None:
    """Peers, logs and sections from the future have listeners that are not ours to probe."""
    seen = frontends("""
frontend fe
    bind :80
    bind :81 accept-proxy
peers p
    bind :1024
log-forward l
    bind :514
backend b
    bind :9
listen li
    bind :82
""")
    assert {name: [bind.port for bind in fe.binds] for name, fe in seen.items()} == {
        "fe": [80, 81],
        "li": [82],
    }
    assert [bind.accept_proxy for bind in seen["fe"].binds] == [False, True]


def test_conditional_blocks_are_possible() -> None:
    """What may exist is listed; the listeners tell what does."""
    seen = frontends("""
frontend fe
.if defined(X)
    bind :80
.else
    bind :81
.endif
""")
    assert [bind.port for bind in seen["fe"].binds] == [80, 81]


def test_the_environment_is_haproxys() -> None:
    """Variables of the process, and those that the global section sets."""
    seen = frontends(
        """
global
    setenv PORT 81
    presetenv HOST 192.0.2.9
    presetenv PATH /run/own
    unsetenv GONE
frontend fe
    bind "${HOST}:$PORT"
    bind ${HOST}:82
    bind "unix@${PATH}${GONE}.sock"
""",
        HOST="127.0.0.1",
        GONE="wrong",
    )
    assert [bind.reachable_at(bind.port) for bind in seen["fe"].binds] == [
        "127.0.0.1:81",
        "127.0.0.1:82",
        "/run/own.sock",
    ]


def test_resetenv_keeps_what_it_names() -> None:
    """Everything else is unset."""
    text = 'global\nresetenv A\nfrontend fe\nmonitor-uri "/$A$B"\n'
    assert frontends(text, A="a", B="b")["fe"].monitor_uri == "/a"


def test_expect_proxy_for_all_is_accept_proxy() -> None:
    """A rule without a condition holds for every bind; one with a condition may not hold for us."""
    seen = frontends("""
frontend all
    bind :80
    tcp-request connection expect-proxy layer4
frontend some
    bind :81
    tcp-request connection expect-proxy layer4 if { src 192.0.2.1 }
""")
    assert [fe.binds[0].accept_proxy for fe in seen.values()] == [True, False]


def test_stats_sockets() -> None:
    """Where each is to be asked; the prefix for Unix binds is not for them."""
    cfg = parse(
        [
            """
global
    unix-bind mode 600 prefix /jail
    stats socket ipv4@*:9999 level admin
    stats socket :::9998
    stats socket fd@4
    stats socket unix@/run/h.sock mode 666 level user
frontend fe
    bind /fe.sock
"""
        ],
        {},
    )
    assert cfg.stats_sockets == (
        StatsSocket(path="127.0.0.1:9999", level="admin"),
        StatsSocket(path="[::1]:9998"),
        StatsSocket(path="/run/h.sock", level="user", mode="666"),
    )
    assert cfg.stats_socket == "/run/h.sock"
    assert cfg.frontends[0].binds[0].path == "/jail/fe.sock"
    assert parse(["global\nstats socket :9"], {}).stats_socket == "127.0.0.1:9"
    assert parse([""], {}).stats_socket == ""


def test_a_section_ends_with_its_file() -> None:
    """Defaults hold on in the next file, an open section does not."""
    cfg = parse(["defaults\nmode http\nfrontend a\nbind :1\n", "bind :2\nfrontend b\n"], {})
    assert [(fe.name, fe.mode, len(fe.binds)) for fe in cfg.frontends] == [
        ("a", "http", 1),
        ("b", "http", 0),
    ]


def test_files_are_read_in_their_order(tmp_path: Path) -> None:
    """As HAProxy reads them."""
    for name in ("b", "a"):
        (tmp_path / name).write_text(f"frontend {name}\n")
    cfg = read([str(tmp_path / name) for name in ("b", "a")], {})
    assert [fe.name for fe in cfg.frontends] == ["b", "a"]
    assert cfg.unreadable == ()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, a loop, a pipe and a path that is none stop neither us nor the rest."""
    good, pipe, loop = tmp_path / "good", tmp_path / "pipe", tmp_path / "loop"
    good.write_bytes(b"frontend \xff\n")
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    missing = tmp_path / "missing"
    cfg = read([*map(str, (missing, pipe, loop)), "nul\0byte", str(good)], {})
    assert [fe.name for fe in cfg.frontends] == ["\N{REPLACEMENT CHARACTER}"]
    reasons = ("No such file or directory", "not a regular file", "Too many levels of symbolic")
    assert len(cfg.unreadable) == 4
    for path, reason, said in zip((missing, pipe, loop), reasons, cfg.unreadable, strict=False):
        assert said.startswith(f"{path}: {reason}")


@pytest.mark.parametrize(
    "line",
    [
        "bind",
        "stats",
        "stats socket",
        "mode",
        "monitor-uri",
        "from",
        "setenv A",
        "unix-bind prefix",
    ],
)
@pytest.mark.parametrize("section", ["global", "defaults", "frontend", "listen x from", "peers"])
def test_words_that_are_missing_are_missed_by_nobody(section: str, line: str) -> None:
    """A line that stops too early says nothing."""
    assert isinstance(parse([f"{section}\n{line}\n"], {}), HaproxyCfg)


@given(st.lists(st.sampled_from(KEYWORDS) | st.text(max_size=5), max_size=60))
def test_nothing_is_refused(words: list[str]) -> None:
    """Whatever stands in a file, it is read."""
    cfg = parse([" ".join(words)], {"A": "a,b:1-2"})
    assert isinstance(cfg.stats_socket, str)
