"""What to probe: read from haproxy.cfg once for every incarnation, and again when it must be."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from documents import checked
from hanging import hanging

from sentinel.aside import Aside
from sentinel.checks.http import ProbeCheck
from sentinel.config import Config, Haproxy, Probe
from sentinel.core import State
from sentinel.model import Listener, ListenersView, Proc
from sentinel.processes.invocation import Invocation
from sentinel.survey import Made, Survey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CFG = """\
global
    stats socket {folder}/admin.sock mode 600
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
frontend web
    bind 127.0.0.1:8080
frontend vip
    bind 192.0.2.1:80
"""


@dataclass(slots=True)
class Surroundings:
    """What a survey is told, and how often it asked."""

    folder: Path
    config: Config = field(default_factory=Config)
    local: frozenset[str] | None = frozenset({"127.0.0.1", "192.0.2.1"})
    name: str = "haproxy.cfg"
    refusal: OSError | None = None
    aside: Aside = field(default_factory=lambda: Aside("reading it"))

    @property
    def cfg(self) -> Path:
        """The configuration that HAProxy runs with."""
        return self.folder / self.name

    async def invocation(self) -> Invocation:
        """Say how HAProxy runs."""
        if self.refusal is not None:
            raise self.refusal
        return Invocation(
            executable="/usr/sbin/haproxy", argv=("-f", str(self.cfg)), env=(), cwd="/"
        )

    async def addresses(self) -> frozenset[str] | None:
        """Say which addresses are here."""
        return self.local

    def survey(self) -> Survey[Probe]:
        """Return a survey of these surroundings, which makes nothing of its probes."""
        return self.making(lambda probe: probe)

    def making(self, make: Callable[[Probe], Made]) -> Survey[Made]:
        """Return a survey of these surroundings that makes of its probes what *make* does."""
        return Survey(self.config, self.invocation, self.addresses, self.aside, make)


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    """Give surroundings with a haproxy.cfg of two frontends."""
    around = Surroundings(folder=tmp_path)
    around.cfg.write_text(CFG.format(folder=tmp_path))
    return around


def listening(state: State, *addresses: tuple[str, int]) -> State:
    """Return the state that knows where the worker listens."""
    listeners = (
        Listener(address=host, port=port, inode=1, backlog=0, holder=None)
        for host, port in addresses
    )
    return seeing(state, *listeners)


def seeing(state: State, *listeners: Listener) -> State:
    """Return the state in which the worker has these listeners."""
    view = ListenersView(listeners=listeners)
    check = checked("listeners")
    check = replace(
        check,
        last=replace(check.last, view=view),
        incarnation=state.incarnation,
        answered_incarnation=state.incarnation,
    )
    return replace(state, checks={"listeners": check})


def addresses(probes: tuple[Probe, ...] | None) -> list[str]:
    """Return where is probed."""
    assert probes is not None
    return [probe.address for probe in probes]


async def test_frontends_and_stats_socket_are_found(around: Surroundings) -> None:
    """All that HAProxy's own configuration says is enough."""
    survey = around.survey()
    assert survey.stats_socket() == ""
    assert addresses(await survey.find(State())) == ["127.0.0.1:8080", "192.0.2.1:80"]
    assert survey.stats_socket() == f"{around.folder}/admin.sock"
    assert survey.notes == ()


async def test_nothing_new_is_no_news(around: Surroundings) -> None:
    """The same grounds lead to the same result, and nothing is read again."""
    survey = around.survey()
    await survey.find(State())
    around.cfg.write_text("frontend other\n    bind :1\n")
    assert await survey.find(State()) is None


async def test_a_new_incarnation_is_read_anew(around: Surroundings) -> None:
    """A reload may have brought other frontends."""
    survey = around.survey()
    await survey.find(State(incarnation=1))
    changed = around.cfg.read_text().replace("8080", "8081")
    around.cfg.write_text(changed)
    assert addresses(await survey.find(State(incarnation=2)))[0] == "127.0.0.1:8081"


async def test_a_file_that_hangs_changes_nothing(around: Surroundings) -> None:
    """What was found is probed on, and that it hangs is told, until it answers or is not wanted."""
    survey = around.survey()
    assert len(addresses(await survey.find(State(incarnation=1)))) == 2
    around.cfg.write_text(around.cfg.read_text().replace("8080", "8081"))
    async with hanging(around.aside, around.folder / "pipe"):
        for _ in range(2):
            assert await survey.find(State(incarnation=2)) is None
            assert survey.notes == ("reading it hangs",)
            assert survey.stats_socket() == f"{around.folder}/admin.sock"
        assert await survey.find(State(incarnation=1)) is None
        assert survey.notes == ()
        assert await survey.find(State(incarnation=2)) is None
    assert addresses(await survey.find(State(incarnation=2)))[0] == "127.0.0.1:8081"
    assert survey.notes == ()


async def test_a_process_whose_command_line_hangs_changes_nothing(around: Surroundings) -> None:
    """As a file that does."""
    survey = around.survey()
    await survey.find(State(incarnation=1))
    around.refusal = TimeoutError("its command line hangs")
    assert await survey.find(State(incarnation=2)) is None
    assert survey.notes == ("its command line hangs",)
    around.refusal = None
    assert addresses(await survey.find(State(incarnation=2)))
    assert not survey.notes


@pytest.mark.parametrize("refusal", [OSError(errno.EMFILE, "no file"), TimeoutError()])
async def test_what_cannot_be_read_changes_nothing(around: Surroundings, refusal: OSError) -> None:
    """No descriptor is left, for example; with words or without."""
    survey = around.survey()
    await survey.find(State(incarnation=1))
    around.cfg.write_text(around.cfg.read_text().replace("8080", "8081"))
    around.refusal = refusal
    assert await survey.find(State(incarnation=2)) is None
    (note,) = survey.notes
    assert note.endswith("no file" if refusal.errno else "")
    around.refusal = None
    assert addresses(await survey.find(State(incarnation=2)))[0] == "127.0.0.1:8081"


async def test_the_same_probe_makes_the_same(around: Surroundings) -> None:
    """A check that goes on keeps what it knows, whatever comes and goes beside it."""
    survey = around.making(ProbeCheck)
    both = await survey.find(State())
    around.local = frozenset({"127.0.0.1"})
    one = await survey.find(State())
    assert both is not None
    assert one is not None
    assert one == (both[0],)


@pytest.mark.parametrize("bind", ["127.1:80", "0:80", "10.0.0.256:80", "/" + "x" * 120])
async def test_a_bind_that_cannot_be_spelled_is_told(around: Surroundings, bind: str) -> None:
    """HAProxy takes more for an address than sentinel does."""
    around.cfg.write_text(around.cfg.read_text().replace("192.0.2.1:80", bind))
    survey = around.making(ProbeCheck)
    found = await survey.find(State())
    assert found is not None
    assert [check.name for check in found] == ["frontend/web:8080"]
    (note,) = survey.notes
    assert note.startswith("frontend/vip:")
    assert ": not probed: " in note


@pytest.mark.parametrize("uri", ['"/is alive"', "/lebt-schön"])
async def test_a_monitor_uri_that_cannot_be_asked_for_is_told(
    around: Surroundings, uri: str
) -> None:
    """A request has no room for it (RFC 9112, 3.2)."""
    text = around.cfg.read_text().replace("192.0.2.1:80", f"192.0.2.1:80\n    monitor-uri {uri}")
    around.cfg.write_text(text)
    survey = around.making(ProbeCheck)
    found = await survey.find(State())
    assert found is not None
    assert [check.name for check in found] == ["frontend/web:8080"]
    (note,) = survey.notes
    assert note.startswith("frontend/vip:80: not probed: request HEAD /")


async def test_another_command_line_is_read_anew(around: Surroundings) -> None:
    """It may become known only after the incarnation was seen."""
    survey = around.survey()
    await survey.find(State(incarnation=1))
    around.name = "other.cfg"
    around.cfg.write_text(CFG.format(folder=around.folder).replace("8080", "8081"))
    assert addresses(await survey.find(State(incarnation=1)))[0] == "127.0.0.1:8081"


async def test_a_vip_is_probed_where_it_is(around: Surroundings) -> None:
    """It comes and goes, and its probe with it; while it is away that is told."""
    survey = around.survey()
    around.local = frozenset({"127.0.0.1"})
    assert addresses(await survey.find(State())) == ["127.0.0.1:8080"]
    assert any("vip" in note for note in survey.notes)
    around.local = frozenset({"127.0.0.1", "192.0.2.1"})
    assert addresses(await survey.find(State())) == ["127.0.0.1:8080", "192.0.2.1:80"]
    assert survey.notes == ()


async def test_unknown_addresses_hide_nothing(around: Surroundings) -> None:
    """A kernel that could not be asked is no reason to probe less."""
    around.local = None
    assert len(addresses(await around.survey().find(State()))) == 2


async def test_only_what_listens_is_probed(around: Surroundings) -> None:
    """Once the worker's listeners are known; those of an older incarnation say nothing."""
    survey = around.survey()
    state = State(incarnation=1)
    assert len(addresses(await survey.find(state))) == 2
    state = listening(state, ("127.0.0.1", 8080))
    assert addresses(await survey.find(state)) == ["127.0.0.1:8080"]
    assert len(addresses(await survey.find(replace(state, incarnation=2)))) == 2


async def test_a_held_socket_is_probed_where_it_listens(around: Surroundings) -> None:
    """The worker's descriptor tells its address, which outlives the worker."""
    me = Proc(pid=os.getpid(), start_ticks=1)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port, descriptor = server.getsockname()[1], server.fileno()
        around.cfg.write_text(f"frontend held\n    bind fd@{descriptor}\n    bind fd@9999\n")
        survey = around.survey()
        state = State(incarnation=1)
        assert await survey.find(state) == ()
        assert [note.rpartition(": ")[2] for note in survey.notes] == [
            f"where descriptor {descriptor} listens is not known now",
            "where descriptor 9999 listens is not known now",
        ]
        held = Listener(
            address="127.0.0.1",
            port=port,
            inode=os.fstat(descriptor).st_ino,
            backlog=0,
            holder=me,
        )
        known = seeing(state, held)
        assert addresses(await survey.find(known)) == [f"127.0.0.1:{port}"]
    assert addresses(await survey.find(replace(known, incarnation=2))) == [f"127.0.0.1:{port}"]


@pytest.mark.parametrize(
    "config",
    [Config(discover=False), Config(probe=(Probe(name="web", address="127.0.0.1:80"),))],
)
async def test_what_a_person_wrote_is_enough(around: Surroundings, config: Config) -> None:
    """Nothing is discovered then, but the stats socket is; what was discovered before is gone."""
    around.config = config
    survey = around.survey()
    for _ in range(2):
        assert await survey.find(State()) == ()
    assert survey.stats_socket() == f"{around.folder}/admin.sock"


async def test_a_configured_stats_socket_comes_first(around: Surroundings) -> None:
    """Whatever haproxy.cfg says, and before it was read."""
    around.config = Config(haproxy=Haproxy(stats_socket="/run/other.sock"))
    survey = around.survey()
    assert survey.stats_socket() == "/run/other.sock"
    await survey.find(State())
    assert survey.stats_socket() == "/run/other.sock"


async def test_no_configuration_at_all(around: Surroundings) -> None:
    """A file that is missing leaves nothing to probe, and is no error."""
    around.cfg.unlink()
    survey = around.survey()
    assert await survey.find(State()) == ()
    assert survey.stats_socket() == ""
