"""TOML -> Config, or every mistake at once, each with its file, key and cure.

The keys, their types, bounds and defaults are read from the dataclasses of ``sentinel.config``
(``keys``). A value must have its type and keep its bounds (``values``), have its form (``forms``)
and agree with the others (``contradictions``). Of a file with a problem nothing is used.
"""

from __future__ import annotations

from typing import Final

from sentinel.config import Config
from sentinel.configfile.problems import ConfigError, Problem, Report
from sentinel.configfile.source import read_document
from sentinel.configfile.tables import read_config
from sentinel.configfile.text import dump, schema

__all__ = ["DEFAULT_PATH", "ConfigError", "Problem", "dump", "load", "schema"]

DEFAULT_PATH: Final = "/etc/sentinel/sentinel.toml"


def load(path: str = DEFAULT_PATH) -> Config:
    """Return the configuration in *path*; the default file may be missing, which means defaults.

    Raises ConfigError with all that is wrong.
    """
    report = Report(file=path, problems=[])
    document = read_document(report, may_be_missing=path == DEFAULT_PATH)
    if not report.problems:
        config = read_config(document, report)
    if report.problems:
        raise ConfigError(tuple(report.problems))
    return config
