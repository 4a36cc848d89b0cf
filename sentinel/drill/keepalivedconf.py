"""Enough of keepalived.conf to build a network around it (keepalived.conf(5)). Pure but includes.

This is no validator (``keepalived -t`` is): what is not understood is passed over, and nothing is
raised for it. A line prefixed by ``@id`` is taken as if it held for this node.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<comment>[#!][^\n]*)|(?P<quoted>"[^"\n]*"?)|(?P<end>[\n{}])|(?P<word>[^\s{}"#!]+)"""
)
_DEFINITION: Final = re.compile(r"^\$(\w+)=(.*)$", re.MULTILINE)
_ID: Final = re.compile(r"^[ \t]*@\^?\w+[ \t]+", re.MULTILINE)
_INCLUDE: Final = re.compile(r"^[ \t]*include\w*[ \t]+(\S+).*$", re.MULTILINE)
_INCLUDES_MAX: Final = 8
_ADDRESSES: Final = frozenset({"virtual_ipaddress", "virtual_ipaddress_excluded"})

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True, kw_only=True)
class Vip:
    """One virtual address and the interface it is put on."""

    address: Interface
    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VrrpInstance:
    """One ``vrrp_instance``; *source* is the address it speaks from, "" when it is not written."""

    name: str
    interface: str = ""
    router_id: int = 0
    source: str = ""
    peers: tuple[str, ...] = ()
    nopreempt: bool = False
    vips: tuple[Vip, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepalivedConf:
    """What one node's file says; *files* are tracked, *scripts* are called."""

    instances: tuple[VrrpInstance, ...]
    interfaces: tuple[str, ...]
    files: tuple[str, ...]
    scripts: tuple[str, ...]


@dataclass(slots=True)
class _Block:
    words: tuple[str, ...]
    inside: list[_Block] = field(default_factory=list)

    def every(self, *names: str) -> Iterator[_Block]:
        """Yield the statements below this one that begin with one of *names*."""
        for block in self.inside:
            if block.words and block.words[0] in names:
                yield block

    def value(self, *names: str) -> str:
        """Return the word after the last of *names* that is there, or nothing."""
        words = [block.words[1] for block in self.every(*names) if len(block.words) > 1]
        return words[-1] if words else ""


def read(text: str, folder: Path) -> KeepalivedConf:
    """Read a keepalived.conf that lies in *folder*."""
    top = _parse(_expanded(text, folder))
    instances = tuple(_instance(block) for block in top.every("vrrp_instance"))
    named = [instance.interface for instance in instances]
    named += [vip.interface for instance in instances for vip in instance.vips]
    groups = list(top.every("vrrp_instance", "vrrp_sync_group"))
    named += [line.words[0] for block in groups for line in _inside(block, "track_interface")]
    files = [block.value("file") for block in top.every("track_file", "vrrp_track_file")]
    scripts = [block.value("script") for block in top.every("vrrp_script")]
    return KeepalivedConf(
        instances=instances,
        interfaces=tuple(dict.fromkeys(filter(None, named))),
        files=tuple(filter(None, files)),
        scripts=tuple(script.split()[0] for script in scripts if script),
    )


def _expanded(text: str, folder: Path, depth: int = 0) -> str:
    """Put included files in their place, and values in that of variables."""

    def included(found: re.Match[str]) -> str:
        pattern = Path(folder, found[1].strip('"'))
        files = sorted(pattern.parent.glob(pattern.name)) if depth < _INCLUDES_MAX else []
        return "\n".join(_expanded(file.read_text(), file.parent, depth + 1) for file in files)

    text = _INCLUDE.sub(included, text)
    if depth:
        return text
    values = dict(_DEFINITION.findall(text))
    text = _DEFINITION.sub("", _ID.sub("", text))
    for _ in range(_INCLUDES_MAX):  # a value may name another variable
        text = re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], found[0]), text)
    return text


def _parse(text: str) -> _Block:
    top = _Block(())
    open_blocks, words = [top], list[str]()
    for token in _TOKEN.finditer(f"{text}\n"):
        if token["comment"] is not None:
            continue
        if token["end"] is None:
            words.append((token["quoted"] or token["word"]).strip('"'))
            continue
        inside = open_blocks[-1].inside
        if words or (token["end"] == "{" and not inside):
            inside.append(_Block(tuple(words)))
            words = []
        if token["end"] == "{":  # it may stand on a line of its own
            open_blocks.append(inside[-1])
        elif token["end"] == "}" and len(open_blocks) > 1:
            open_blocks.pop()
    return top


def _instance(block: _Block) -> VrrpInstance:
    interface = block.value("interface")
    number = block.value("virtual_router_id")
    return VrrpInstance(
        name=block.words[1] if len(block.words) > 1 else "",
        interface=interface,
        router_id=int(number) if number.isdecimal() else 0,
        source=block.value("mcast_src_ip", "unicast_src_ip"),
        peers=tuple(line.words[0] for line in _inside(block, "unicast_peer")),
        nopreempt=any(block.every("nopreempt")) and block.value("state") != "MASTER",
        vips=tuple(
            vip
            for line in _inside(block, *_ADDRESSES)
            if (vip := _vip(line.words, interface)) is not None
        ),
    )


def _vip(words: Sequence[str], interface: str) -> Vip | None:
    try:
        address = ip_interface(words[0])
    except ValueError:
        return None
    device = words[words.index("dev") + 1] if "dev" in words[:-1] else interface
    return Vip(address=address, interface=device)


def _inside(block: _Block, *names: str) -> Iterator[_Block]:
    for inner in block.every(*names):
        yield from inner.inside
