"""The peer check: what the other node's sentinel says of itself, asked over HTTP.

It is asked all the time, so that an answer is there when it is needed: before this node yields for
a fault that both nodes may share. PASS means that the peer answered and can be believed, not that
it is well. A node that asks itself has a mistake in its configuration, which must not pass for a
peer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sentinel.address import read_peer_url
from sentinel.exchange import Request, Result, Target, authority, exchange
from sentinel.model import Code, Observation, PeerView, Scope, Verdict

if TYPE_CHECKING:
    from sentinel.config import Peer

#: Reads a document, or says in words why it cannot be believed; never raises.
Parse = Callable[[str], PeerView | str]

_HTTP_PORT: Final = 80
_DETAIL_CHARS_MAX: Final = 200
#: Matches every body, for a body is read where there is something to match in it.
_ANYTHING: Final = r"\A"
_SERVES: Final = {True: "serving", False: "not serving", None: "not known to serve"}


class PeerCheck:
    """Ask the peer at ``peer.url`` about itself; *node* is this node's own name.

    Raises ValueError when *peer* has no URL that can be asked.
    """

    name: Final = "peer"
    scope: Final = Scope.PEER

    def __init__(self, peer: Peer, node: str, parse: Parse) -> None:
        self.pace: Final = peer.pace
        self._url: Final = peer.url
        self._node: Final = node
        self._parse: Final = parse
        address = read_peer_url(peer.url)
        self._target: Final = Target(address=address)
        self._request: Final = Request.build(
            method="GET",
            host=authority(address, _HTTP_PORT),
            headers=("Accept: application/json",),
            expect=("200",),
            body=_ANYTHING,
        )

    async def __call__(self) -> Observation:
        """Look once, within ``pace.timeout_s``."""
        result = await exchange(self._target, self._request, timeout_s=self.pace.timeout_s)
        verdict, code, detail, view = self._judge(result)
        return Observation(
            check=self.name,
            scope=self.scope,
            verdict=verdict,
            code=code,
            detail=detail[:_DETAIL_CHARS_MAX],
            duration_ms=result.duration_ms,
            view=view,
        )

    def _judge(self, result: Result) -> tuple[Verdict, Code, str, PeerView | None]:
        if result.code is not Code.L7OK or result.body is None:
            return result.verdict, result.code, result.detail, None
        found = self._parse(result.body)
        if isinstance(found, str):
            return Verdict.FAIL, Code.L7RSP, found, None
        if found.node == self._node:
            detail = (
                f'{self._url} answers as "{found.node}", which is this node: '
                f"set peer.url to the other one, and node to a name of its own on each"
            )
            return Verdict.FAIL, Code.L7STS, detail, replace(found, same_node=True)
        return Verdict.PASS, Code.L7OK, _told(found), found


def _told(peer: PeerView) -> str:
    servers = f"{peer.servers_up} of {peer.servers_total} servers up"
    return f"{peer.node} is {peer.overall} and {_SERVES[peer.serving]}, {servers}"
