"""TOML document -> Config: every table filled from its defaults, every mistake reported."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Final

from sentinel.config import Config, Pace
from sentinel.configfile.contradictions import contradictions
from sentinel.configfile.forms import refusals
from sentinel.configfile.keys import (
    FLATTENED,
    Section,
    Table,
    arrays,
    keys_of,
    pace_of,
    sections,
    table_keys,
)
from sentinel.configfile.problems import RefusedError, Report
from sentinel.configfile.values import read_value, shown

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def read_config(document: Mapping[str, object], report: Report) -> Config:
    """Return the Config that *document* describes; it counts only if nothing was reported."""
    config = Config()
    tables = (*sections(), *arrays())
    _report_unknown(document, [key.name for key in keys_of(config)], "", report, tables)
    values = _values(config, document, "", report)
    for section in sections():
        if section.name in document:
            values[section.name] = _section(section, document[section.name], report)
    for array in arrays():
        if array.name in document:
            values[array.name] = _array(array, document[array.name], report)
    config = replace(config, **values)
    for found in contradictions(config, lambda name, index: _place(name, index, document[name])):
        if not any(report.knows(key) for key in found.keys):
            report.add(found.keys[0], found.wrong, found.cure)
    return config


def _section(section: Section, table: object, report: Report) -> Table:
    if isinstance(table, Mapping):
        return _filled(section.default, table, f"{section.name}.", report)
    report.add(section.name, f"{shown(table)} is no table", f"write [{section.name}], once")
    return section.default


def _array(array: Section, tables: object, report: Report) -> tuple[Any, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        cure = f"write [[{array.name}]] above each"
        report.add(array.name, f"{shown(tables)} is no array of tables", cure)
        return ()
    return tuple(
        _filled(array.default, table, f"{_place(array.name, index, tables)}.", report)
        for index, table in enumerate(tables)
    )


def _place(name: str, index: int, tables: Any) -> str:  # noqa: ANN401  (known to be tables here)
    """Write an element of an array by its own name, where that tells it from the others."""
    names = [table.get("name") for table in tables]
    own = names[index]
    if isinstance(own, str) and own and own.isprintable() and names.count(own) == 1:
        return f"{name}[{own}]"
    return f"{name}[#{index + 1}]"


def _filled(default: Table, table: Mapping[str, object], prefix: str, report: Report) -> Table:
    """Return *default* with what *table* sets; what is refused stays as it was."""
    _report_unknown(table, [key.name for key in table_keys(default)], prefix, report)
    values = _values(default, table, prefix, report)
    pace = pace_of(default)
    if pace is not None:
        values[FLATTENED] = replace(pace, **_values(pace, table, prefix, report))
    return replace(default, **values)


def _values(
    default: Table,
    table: Mapping[str, object],
    prefix: str,
    report: Report,
) -> dict[str, Any]:
    """Return the fields of *default* that *table* sets, for ``dataclasses.replace``."""
    values: dict[str, Any] = {}
    for key in keys_of(default):
        if key.name in table:
            try:
                values[key.field] = read_value(key, table[key.name])
            except RefusedError as error:
                report.refuse(f"{prefix}{key.name}", error)
            else:
                for refusal in refusals(type(default), key.field, values[key.field]):
                    report.refuse(f"{prefix}{key.name}", refusal)
        elif key.required:
            report.add(f"{prefix}{key.name}", "it is missing", f"write {key.name} = ...")
    if isinstance(default, Pace) and "fastinter" not in table:
        # HAProxy's fastinter follows inter where it is not set; ours never exceeds it.
        inter_s = values.get("inter_s", default.inter_s)
        values["fastinter_s"] = min(default.fastinter_s, inter_s)
    return values


def _report_unknown(
    table: Mapping[str, object],
    keys: Sequence[str],
    prefix: str,
    report: Report,
    tables: Sequence[Section] = (),
) -> None:
    known = [*keys, *(section.name for section in tables)]
    for name in table:
        if name not in known:
            written = name if _BARE.fullmatch(name) else json.dumps(name)
            near = get_close_matches(name, known, n=1)
            cure = f'did you mean "{near[0]}"?' if near else f"the keys here are {', '.join(known)}"
            report.add(f"{prefix}{written}", "unknown key", cure)
