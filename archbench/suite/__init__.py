"""Suites: which networks, along which axes, judged how. Every mistake is one line `file:line:column: what; remedy`."""

from __future__ import annotations

import re
from pathlib import Path

from archbench.catalog import facts
from archbench.model.suite import Suite
from archbench.suite.check import checked, selects
from archbench.suite.document import read_document
from archbench.suite.from_words import suite_from_entry, suite_from_names
from archbench.suite.schema import json_schema

__all__ = ["is_suite_path", "json_schema", "lines_of", "load_suite", "selects", "suite_from_entry", "suite_from_names"]


def load_suite(path: str | Path, *, allow_code: bool = False) -> Suite:
    """The suite alone of `read_suite`."""
    return read_suite(path, allow_code=allow_code)[0]


def read_suite(path: str | Path, *, allow_code: bool = False) -> tuple[Suite, str]:
    """Read and check a suite file; architectures come back resolved, families expanded, aliases as catalogue names.

    With it comes the file's text, read once: a pipe has nothing for a second reader.

    `module:function` architectures are refused unless `allow_code`; no code runs here in either case.
    Raises `UsageError` for the first mistake.
    """
    document = read_document(path)
    return checked(document.value, document, allow_code=allow_code), document.text


def lines_of(suite: Suite, text: str) -> dict[str, int]:
    """In which line of a suite's text each network stands, by its label: under its name, its family, or the list."""
    lines = text.splitlines()

    def line_of(word: str) -> int | None:
        whole = re.compile(rf"(?<![\w.:-]){re.escape(word)}(?![\w.:-])")
        return next((number for number, line in enumerate(lines, start=1) if whole.search(line)), None)

    listed = next((n for n, line in enumerate(lines, start=1) if line.startswith("architectures")), 1)
    return {
        network.label: line_of(network.name) or line_of(facts(network).family or network.name) or listed
        for network in suite.architectures
    }


def is_suite_path(word: str) -> bool:
    """Whether a word of the command line means a suite file rather than a network."""
    if word.partition(":")[0].endswith(".py"):  # a network of one's own, misnamed: whoever resolves names says how
        return False
    if word.endswith((".yaml", ".yml")) or "/" in word:
        return True
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # no file can have this name
        return False
