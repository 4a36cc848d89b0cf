"""One ``vrrp_instance``, statement by statement, and what keepalived makes of it in the end.

The order counts: the first address decides between IPv4 and IPv6, and with it what comes after.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sentinel.keepalivedcfg.addresses import IPV6, Address, DroppedError, read_address
from sentinel.keepalivedcfg.words import address, integer, seconds
from sentinel.vrrp import VrrpState

if TYPE_CHECKING:
    from sentinel.keepalivedcfg.blocks import Statement
    from sentinel.keepalivedcfg.notes import Notes
    from sentinel.vrrp import Tracker

OWNER: Final = 255
_PRIORITY: Final = 100
_V2, _V3 = 2, 3
_IPV4: Final = 4
_ADVERT_MIN_S, _ADVERT_MAX_S, _ADVERT_V3_MAX_S = 0.01, 255.0, 40.95
_PREEMPT_DELAY_MAX_S: Final = 1000.0
_NO: Final = frozenset({"off", "no", "false"})


@dataclass(slots=True, kw_only=True)
class Draft:
    """What an instance's statements say so far; zero, empty and None mean that nothing was said."""

    name: str
    place: str
    interface: str = ""
    router_id: int = 0
    family: int = 0
    version: int = 0
    priority: int = 0
    state: VrrpState | None = None
    advert_int_s: float = 0.0
    nopreempt: bool = False
    preempt_delay_s: float = 0.0
    strict: bool | None = None
    source: str = ""
    peers: list[str] = field(default_factory=list)
    vips: list[Address] = field(default_factory=list)
    use_vmac: bool = False
    vmac: str = ""
    use_vmac_addr: bool = False
    track_files: list[Tracker] = field(default_factory=list)
    track_scripts: list[Tracker] = field(default_factory=list)

    def __str__(self) -> str:
        """Name it as notes do."""
        return f"vrrp_instance {self.name}"

    def take(self, statement: Statement, notes: Notes) -> None:
        """Take one statement; those that change nothing here are passed over."""
        match statement.words:
            case ["unicast_peer"]:
                peers = (self._same_family(line.keyword) for line in statement.inside)
                self.peers += filter(None, peers)
            case ["virtual_ipaddress" | "virtual_ipaddress_excluded" as keyword]:
                for line in statement.inside:
                    self._take_vip(line, keyword, notes)
            case ["use_vmac", *words]:
                self.use_vmac = True
                self.vmac = next((word for word in words if ":" not in word), self.vmac)
            case ["use_vmac_addr"]:
                self.use_vmac_addr = True
            case ["strict_mode", *words]:
                self.strict = not _NO & {*words[:1]}
            case ["nopreempt" | "preempt" as keyword, *_]:
                self.nopreempt = keyword == "nopreempt"
            case [keyword, word, *_]:
                self._take_word(keyword, word)
                self._take_number(keyword, word)
            case _:
                pass

    def _take_word(self, keyword: str, word: str) -> None:
        match keyword:
            case "interface":
                self.interface = word
            case "state":
                self._take_state(word)
            case "mcast_src_ip" | "unicast_src_ip":
                self.source = self._same_family(word) or self.source
            case _:
                pass

    def _take_number(self, keyword: str, word: str) -> None:
        match keyword:
            case "version":
                self._take_version(integer(word, _V2, _V3) or 0)
            case "virtual_router_id":
                self.router_id = integer(word, 1, 255) or self.router_id
            case "priority":
                self.priority = integer(word, 1, OWNER) or _PRIORITY
            case "advert_int":
                time_s = seconds(word, _ADVERT_MIN_S, _ADVERT_MAX_S)
                self.advert_int_s = time_s or self.advert_int_s
            case "preempt_delay":
                self.preempt_delay_s = seconds(word, 0, _PREEMPT_DELAY_MAX_S) or 0.0
            case _:
                pass

    def _take_version(self, version: int) -> None:
        if not self.version and not (version == _V2 and self.family == IPV6):
            self.version = version

    def _take_state(self, word: str) -> None:
        if self.state is not VrrpState.MASTER or word not in {"MASTER", "BACKUP"}:
            self.state = VrrpState.MASTER if word == "MASTER" else VrrpState.BACKUP

    def _same_family(self, word: str) -> str:
        """Return an address in its one spelling; empty when it is none, or of the other family."""
        found = address(word.partition("/")[0].partition("-")[0])
        if found is None:
            return ""
        self.family = self.family or found.version
        return str(found) if found.version == self.family else ""

    def _take_vip(self, line: Statement, keyword: str, notes: Notes) -> None:
        if not line.words:
            return
        try:
            vip = read_address(line.words)
            if keyword == "virtual_ipaddress":
                self.family = self.family or vip.address.version
                if vip.address.version != self.family:
                    raise DroppedError(f"is not IPv{self.family} as the others, exclude it")  # noqa: TRY301
        except DroppedError as why:
            notes.add(
                line.place, f"{self}: keepalived drops {line.keyword}, which {why}: correct it"
            )
        else:
            self.vips.append(vip)

    def settle(self, version: int, *, strict: bool, notes: Notes) -> None:
        """Fill in what was not said, and undo what keepalived undoes; the arguments are global."""
        strict = strict if self.strict is None else self.strict
        self.family = self.family or _IPV4
        if self.family == IPV6 and (not self.version or strict):
            self.version = _V3
        self.version = self.version or version
        self._settle_priority(strict=strict, notes=notes)
        self.advert_int_s = _advert_int_s(self.advert_int_s or 1.0, self.version)
        if self.priority == OWNER or self.state is VrrpState.MASTER:
            if self.nopreempt:
                notes.add(self.place, f"{self}: {self._why_it_preempts()}")
            self.nopreempt = False
        if self.nopreempt or strict or self.state is VrrpState.MASTER:
            self.preempt_delay_s = 0.0

    def _settle_priority(self, *, strict: bool, notes: Notes) -> None:
        if not self.priority and self.state is VrrpState.MASTER:
            cure = "no node can take over by priority: write priority 254 or less"
            notes.add(self.place, f"{self}: state MASTER without a priority means {OWNER}, {cure}")
        self.priority = self.priority or (OWNER if self.state is VrrpState.MASTER else _PRIORITY)
        if self.state is None or strict:
            self.state = VrrpState.MASTER if self.priority == OWNER else VrrpState.BACKUP

    def _why_it_preempts(self) -> str:
        if self.priority == OWNER:
            return f"priority {OWNER} makes keepalived ignore nopreempt: write priority 254 or less"
        return "state MASTER makes keepalived ignore nopreempt: write state BACKUP on both nodes"


def _advert_int_s(advert_int_s: float, version: int) -> float:
    """Round as the protocol's version can say it: whole seconds, or hundredths up to 40.95."""
    if version == _V2:
        return float(max(1, math.floor(advert_int_s + 0.5)))
    # in microseconds, as whole numbers: 0.125 s must round as keepalived rounds it
    hundredths = (round(advert_int_s * 1_000_000) + 5_000) // 10_000
    return min(_ADVERT_V3_MAX_S, max(1, hundredths) / 100)
