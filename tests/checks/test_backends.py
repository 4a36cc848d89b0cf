"""BackendsCheck against recorded answers of several versions, and against a real HAProxy."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import DEFAULTS, free_port, running_haproxy, wait_until
from statssockets import recorded, stats_socket

from sentinel.checks.backends import BackendsCheck
from sentinel.config import Backends, OnFail, Pace, Probe, ProbeType
from sentinel.model import Code, Observation, PoolView, Scope, ServerView, Verdict

if TYPE_CHECKING:
    from pathlib import Path

PATIENT: Final = Pace(inter_s=20.0, timeout_s=20.0)


@dataclass(slots=True)
class FakeProber:
    """Answers by address, remembers what it was asked, and can be slow."""

    codes: dict[str, Code] = field(default_factory=dict)
    otherwise: Code = Code.L7OK
    delay_s: float = 0.0
    probes: list[Probe] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def __call__(self, probe: Probe) -> tuple[Code, str]:
        """Answer what was arranged for this address."""
        self.probes.append(probe)
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        await asyncio.sleep(self.delay_s)
        self.under_way -= 1
        return self.codes.get(probe.address, self.otherwise), f"looked at {probe.address}"

    @property
    def addresses(self) -> list[str]:
        """Where it looked, in order."""
        return [probe.address for probe in self.probes]


async def connecting(probe: Probe) -> tuple[Code, str]:
    """Probe for real, but no further than the connection."""
    host, _, port = probe.address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError as error:
        return Code.L4CON, str(error)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return Code.L4OK, "connected"


async def look(
    folder: Path, answer: str, prober: FakeProber, settings: Backends | None = None
) -> Observation:
    """Run the check once against a stats socket that answers *answer*."""
    async with stats_socket(folder, answer) as path:
        return await BackendsCheck(lambda: path, settings or Backends(pace=PATIENT), prober)()


def pools(observation: Observation) -> dict[str, PoolView]:
    """Return the observed pools by name."""
    assert isinstance(observation.view, tuple)
    return {pool.name: pool for pool in observation.view}


def servers(observation: Observation, pool: str) -> dict[str, ServerView]:
    """Return the observed servers of one pool by name."""
    return {server.name: server for server in pools(observation)[pool].servers}


def states(count: int, *, status: str = "UP", check_status: str = "L4OK") -> str:
    """Return HAProxy's answer about one HTTP pool of *count* servers at 192.0.2.1, .2, ..."""
    names = [f"s{number}" for number in range(1, count + 1)]
    stat = [f"p,{name},{status},2,{check_status},http," for name in names]
    state = [f"3 p {name} 192.0.2.{index} 80 0" for index, name in enumerate(names, 1)]
    return "\n".join(
        [
            "# pxname,svname,status,type,check_status,mode,",
            *stat,
            "p,BACKEND,UP,1,,http,",
            "",
            "1",
            "# be_id be_name srv_name srv_addr srv_port srv_use_ssl",
            *state,
            "\n",
        ]
    )


async def test_pools_carry_both_opinions(tmp_path: Path) -> None:
    """What HAProxy says and what we saw stand side by side, server by server."""
    prober = FakeProber({"127.0.0.1:9001": Code.L4CON, "127.0.0.1:1": Code.L4OK})
    observation = await look(tmp_path, recorded("servers_2.6"), prober)
    assert (observation.check, observation.scope) == ("backends", Scope.BACKEND)
    seen = servers(observation, "pool1")
    assert seen["web1"] == ServerView(
        name="web1",
        status="UP 2/3",
        up=True,
        probe=Code.L4CON,
        probe_detail="looked at 127.0.0.1:9001",
    )
    assert {name: (view.up, view.probe) for name, view in seen.items()} == {
        "web1": (True, Code.L4CON),
        "web2": (None, None),  # DRAIN
        "web6": (True, Code.L7OK),
        "tpl": (False, None),  # MAINT (resolution)
        "noport": (None, Code.L7OK),  # INI
    }
    assert [view.name for view in seen.values() if view.disagrees] == ["web1"]


async def test_pools_count_what_is_meant_to_serve(tmp_path: Path) -> None:
    """MAINT and DRAIN do not count; an unresolved name does, and a pool may be empty."""
    prober = FakeProber({"127.0.0.1:1": Code.L4OK})
    observation = await look(tmp_path, recorded("servers_2.6"), prober)
    counts = {name: (pool.up, pool.total) for name, pool in pools(observation).items()}
    assert counts == {"l1": (1, 2), "pool1": (3, 4), "redir": (0, 0)}
    assert (observation.verdict, observation.code) == (Verdict.PASS, Code.L7OK)
    assert observation.detail == "4 of 6 servers up; HAProxy and probe disagree on l1/t1"


async def test_probes_follow_mode_tls_and_settings(tmp_path: Path) -> None:
    """HTTP pools get the configured request, TLS or not, others a connect; each address once."""
    prober = FakeProber()
    settings = Backends(method="GET", path="/up", host="app", expect=("200",), pace=PATIENT)
    await look(tmp_path, recorded("servers_2.6"), prober, settings)
    asked = {probe.address: probe for probe in prober.probes}
    assert {address: probe.type for address, probe in asked.items()} == {
        "127.0.0.1:1": ProbeType.TCP,
        "127.0.0.1:9001": ProbeType.HTTP,
        "[::1]:9002": ProbeType.HTTPS,
        "127.0.0.9:9001": ProbeType.HTTP,  # without a port of its own: its check's
    }
    web1 = asked["127.0.0.1:9001"]
    assert (web1.method, web1.path, web1.host, web1.expect) == ("GET", "/up", "app", ("200",))
    assert (web1.pace, web1.on_fail) == (PATIENT, OnFail.ALERT)


async def test_no_server_is_probed_when_that_is_off(tmp_path: Path) -> None:
    """With ``probe = false`` HAProxy's opinion stands alone."""
    prober = FakeProber()
    settings = Backends(probe=False, pace=PATIENT)
    observation = await look(tmp_path, recorded("servers_2.6"), prober, settings)
    assert prober.probes == []
    assert pools(observation)["l1"] == PoolView(
        name="l1",
        up=1,
        total=2,
        servers=(
            ServerView(name="t1", status="DOWN", up=False, probe=None),
            ServerView(name="u1", status="no check", up=None, probe=None),
            ServerView(name="m1", status="MAINT", up=None, probe=None),
        ),
    )


async def test_an_old_version_is_understood(tmp_path: Path) -> None:
    """1.8 has fewer columns; a pool whose only server is DOWN and whose other is NOLB is dead."""
    observation = await look(tmp_path, recorded("servers_1.8"), FakeProber())
    assert (observation.verdict, observation.code) == (Verdict.FAIL, Code.L7STS)
    assert observation.detail == ("no server up in pool1; HAProxy and probe disagree on pool1/web1")
    assert pools(observation)["pool1"].total == 1


async def test_a_new_version_is_understood(tmp_path: Path) -> None:
    """3.4 prints negative counters before its first result: no opinion, nor is INI one."""
    prober = FakeProber(otherwise=Code.UNK)
    observation = await look(tmp_path, recorded("servers_3.4"), prober)
    seen = servers(observation, "pool1")
    assert {name: view.up for name, view in seen.items()} == {
        "web1": None, "web2": None, "web3": None,
    }  # fmt: skip
    assert prober.addresses == ["192.0.2.12:80"]  # neither unresolved nor MAINT
    assert (pools(observation)["pool1"].up, pools(observation)["pool1"].total) == (1, 2)


@pytest.mark.parametrize(
    ("check_status", "probe", "verdict"),
    [
        ("INI", Code.L4CON, Verdict.FAIL),
        ("INI", Code.L7OK, Verdict.PASS),
        ("INI", Code.UNK, Verdict.PASS),
        ("INI", Code.SOCKERR, Verdict.PASS),
        ("* INI", Code.L7TOUT, Verdict.FAIL),
        ("L4OK", Code.L4CON, Verdict.PASS),
    ],
)
async def test_our_probe_decides_while_haproxy_has_no_opinion(
    tmp_path: Path, check_status: str, probe: Code, verdict: Verdict
) -> None:
    """HAProxy's opinion goes first, then our probe, then the benefit of the doubt."""
    answer = states(1, check_status=check_status)
    observation = await look(tmp_path, answer, FakeProber(otherwise=probe))
    assert observation.verdict is verdict


async def test_dead_pools_are_named_a_few_at_a_time(tmp_path: Path) -> None:
    """The detail stays short, however many pools are dead."""
    lines = [f"p{n},s,DOWN,2,L4CON,tcp,\np{n},BACKEND,DOWN,1,,tcp," for n in range(9)]
    answer = "\n".join(["# pxname,svname,status,type,check_status,mode,", *lines, "\n"])
    observation = await look(tmp_path, answer, FakeProber())
    assert observation.detail == "no server up in p0, p1, p2, p3, p4 and 4 more"


@pytest.mark.parametrize("answer", ["Permission denied\n", "\x00\n\n1\n", "# a,b,\n1,2,\n\n"])
async def test_garbage_is_no_opinion(tmp_path: Path, answer: str) -> None:
    """An answer that is none leaves HAProxy's opinion unknown."""
    observation = await look(tmp_path, answer, FakeProber())
    assert (observation.verdict, observation.code) == (Verdict.UNKNOWN, Code.UNK)
    assert observation.detail.startswith("HAProxy's opinion is unknown: not a `show stat` table")
    assert observation.view is None


async def test_nothing_is_said_of_servers_while_haproxy_is_silent(tmp_path: Path) -> None:
    """Our look may be wrong about what a server expects; without HAProxy's it accuses nobody."""
    prober = FakeProber(otherwise=Code.L7TOUT)
    check = BackendsCheck(lambda: str(tmp_path / "stats"), Backends(pace=PATIENT), prober)
    async with stats_socket(tmp_path, states(2), name="stats"):
        assert (await check()).verdict is Verdict.PASS
    probes = len(prober.probes)
    observation = await check()
    assert (observation.verdict, observation.code) == (Verdict.UNKNOWN, Code.UNK)
    assert (observation.view, len(prober.probes)) == (None, probes)


async def test_a_server_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    """What HAProxy no longer lists is neither probed nor shown."""
    prober = FakeProber()
    check = BackendsCheck(lambda: str(tmp_path / "stats"), Backends(pace=PATIENT), prober)
    for count in (3, 1):
        prober.probes.clear()
        async with stats_socket(tmp_path, states(count), name="stats"):
            observation = await check()
        assert len(prober.probes) == count
        assert len(servers(observation, "p")) == count


async def test_no_more_probes_are_under_way_than_allowed(tmp_path: Path) -> None:
    """``concurrency`` bounds what is under way; all servers are reached all the same."""
    prober = FakeProber(delay_s=0.02)
    settings = Backends(concurrency=3, pace=PATIENT)
    observation = await look(tmp_path, states(20), prober, settings)
    assert prober.most_under_way == 3
    assert all(view.probe is Code.L7OK for view in servers(observation, "p").values())


async def test_what_is_left_over_comes_first_next_time(tmp_path: Path) -> None:
    """Slow servers use the window up; the next run begins with those not reached, then oldest."""
    prober = FakeProber(delay_s=0.2)
    pace = Pace(inter_s=0.2, timeout_s=5.0)
    settings = Backends(concurrency=1, pace=pace)
    check = BackendsCheck(lambda: str(tmp_path / "stats"), settings, prober)
    async with stats_socket(tmp_path, states(3), name="stats"):
        for _ in range(4):
            observation = await check()
    assert prober.addresses == [f"192.0.2.{number}:80" for number in (1, 2, 3, 1)]
    assert {view.probe for view in servers(observation, "p").values()} == {Code.L7OK}


async def test_it_claims_the_time_it_needs() -> None:
    """One run is a question, half an interval of starts, and the last probe."""
    check = BackendsCheck(lambda: "", Backends(pace=Pace(inter_s=4.0, timeout_s=1.5)), FakeProber())
    assert check.pace == Pace(inter_s=4.0, timeout_s=5.0)


async def test_it_knows_nothing_without_a_stats_socket() -> None:
    """The cure is named, and nothing is invented."""
    observation = await BackendsCheck(lambda: "", Backends(pace=PATIENT), FakeProber())()
    assert observation.verdict is Verdict.UNKNOWN
    assert "add `stats socket" in observation.detail


@pytest.mark.real
async def test_a_real_haproxy_and_ten_real_servers(tmp_path: Path) -> None:
    """Eight living and two dead servers, one of the dead unchecked, two taken out on purpose."""
    async with AsyncExitStack() as stack:
        ports = []
        for _ in range(8):
            server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
            await stack.enter_async_context(server)
            ports.append(server.sockets[0].getsockname()[1])
        listed = "".join(
            f"    server s{n} 127.0.0.1:{port} check\n" for n, port in enumerate(ports)
        )
        config = f"""{DEFAULTS}
    default-server inter 50ms rise 1 fall 1
listen pool
    bind 127.0.0.1:{free_port()}
{listed}    server dead 127.0.0.1:{free_port()} check
listen other
    mode tcp
    bind 127.0.0.1:{free_port()}
    server unchecked 127.0.0.1:{free_port()}
    server unix unix@{tmp_path}/none.sock
    server v6 [::1]:{free_port("::1")} check disabled
"""
        with running_haproxy(config, tmp_path) as haproxy:
            haproxy.ask("set server pool/s7 state drain")
            await asyncio.to_thread(
                wait_until,
                lambda: (
                    haproxy.ask("show stat").count(",L4OK,") == 8
                    and "pool,dead,0,0,0,0,,0,0,0,,0,,0,0,0,0,DOWN" in haproxy.ask("show stat")
                ),
                "HAProxy has checked all of them",
            )
            check = BackendsCheck(
                lambda: str(haproxy.stats_socket), Backends(pace=PATIENT), connecting
            )
            observation = await check()
    assert observation.verdict is Verdict.PASS
    assert (pools(observation)["pool"].up, pools(observation)["pool"].total) == (7, 8)
    seen = servers(observation, "pool") | servers(observation, "other")
    assert {name: (view.up, view.probe) for name, view in seen.items()} == {
        **{f"s{n}": (True, Code.L4OK) for n in range(7)},
        "s7": (None, None),
        "dead": (False, Code.L4CON),
        "unchecked": (None, Code.L4CON),
        "unix": (None, None),
        "v6": (None, None),
    }
    assert not any(view.disagrees for view in seen.values())
