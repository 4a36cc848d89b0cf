"""Config -> TOML: the effective configuration, and the commented list of every key."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from sentinel.config import Config
from sentinel.configfile.keys import Key, Table, arrays, sections, table_keys
from sentinel.configfile.values import bounds, write_value


def dump(config: Config) -> str:
    """Write *config* out, so that loading the text gives the same Config."""
    singles = ((f"[{each.name}]", getattr(config, each.name)) for each in sections())
    listed = (
        (f"[[{each.name}]]", item) for each in arrays() for item in getattr(config, each.name)
    )
    blocks = (
        _settings(config),
        *((head, *_settings(table)) for head, table in (*singles, *listed)),
    )
    return _text(blocks)


def schema() -> str:
    """Write every key with its default, meaning and bounds; as it stands it changes nothing."""
    singles = ((f"[{each.name}]", *_explained(each.default)) for each in sections())
    listed = ((f"# [[{each.name}]]", *_explained(each.default)) for each in arrays())
    return _text((_explained(Config()), *singles, *listed))


def _text(blocks: Iterable[Iterable[str]]) -> str:
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _settings(table: Table) -> Iterator[str]:
    for key in table_keys(table):
        yield f"{key.name} = {write_value(key)}"


def _explained(table: Table) -> Iterator[str]:
    for key in table_keys(table):
        yield from textwrap.wrap(
            _meaning(key), width=100, initial_indent="# ", subsequent_indent="#   "
        )
        yield f"# {key.name} = {write_value(key)}"


def _meaning(key: Key) -> str:
    limits = bounds(key)
    return "; ".join(
        part for part in (key.rule.doc, limits, "required" if key.required else "") if part
    )
