"""Suites: which networks, along which axes, judged how: of a file, of networks by name, of networks as objects.

Every mistake is one line, `file:line:column: what; remedy`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from archbench.catalog import facts
from archbench.model.cell import parse_inputs
from archbench.model.errors import UsageError
from archbench.model.suite import Suite
from archbench.suite.check import checked, selects
from archbench.suite.document import ValuePath, parse_document, read_document
from archbench.suite.schema import json_schema

if TYPE_CHECKING:
    from archbench.catalog.user_code import Packed

__all__ = [
    "inputs_as_written",
    "is_suite_path",
    "json_schema",
    "lines_of",
    "load_suite",
    "read_suite",
    "read_what",
    "selects",
    "suite_from_entry",
    "suite_from_names",
]

QUICK = "quick"
"""Name of a suite that was never given one."""
QUICK_PROTOCOL = {
    "warmup_block": 5,
    "warmup_level_change": 0.05,
    "target_half_width": 0.05,
    "slow_step_s": 0.04,
    "max_sampling_s": 0.6,
    "max_throughput_s": 0.6,
}
"""Who names networks wants to know which is faster, and soon; who wants the last per cent writes a suite. Steps from
40 ms are slow here: twelve of them, in six blocks, give an interval."""


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


def read_what(
    what: object, axes: Mapping[str, object], inputs: object = None, *, metrics: object = None, allow_code: bool = False
) -> tuple[Suite, str, tuple[Packed, ...]]:
    """The suite that was named, or made of networks; its text as YAML; the networks that were passed as objects."""
    passed: list[Packed] = []
    words = [_word(one, passed) for one in (what if isinstance(what, list | tuple) else [what])]
    given = {axis: value for axis, value in axes.items() if value not in (None, "")}
    said = {"inputs": inputs} if inputs not in (None, "") else {}
    files = [word for word in words if isinstance(word, str) and is_suite_path(word)]
    if not files:
        suite = suite_from_names(words, given, common=said, metrics=metrics, allow_code=allow_code)
        return suite, msgspec.json.encode(suite).decode(), tuple(passed)
    if len(words) > 1:
        raise UsageError(f"{files[0]} is a suite file; run one suite at a time, or networks by name")
    for option in (*given, *said, *(["metrics"] if metrics is not None else [])):
        option = option.replace("_", "-")
        raise UsageError(f"--{option} goes with networks by name; a suite has its own: edit it, or choose with --only")
    return *read_suite(files[0], allow_code=allow_code), ()


def suite_from_names(
    names: Iterable[str | Mapping[str, Any]],
    axes: Mapping[str, object] | None = None,
    *,
    common: Mapping[str, Any] | None = None,
    metrics: object = None,
    allow_code: bool = False,
) -> Suite:
    """Build the suite that `archbench run resnet50 densenet121 --batch-size 1,8` means.

    A network may also be what a suite file says of one: `{"name": "lenet5", "num_classes": 100}`.
    `axes` maps names of `archbench.model.suite.Axes` to values as one types them, or as Python has them (`"1,8"`,
    `[1, 8]`); an absent axis has its default. `common`: what a suite file would say of each of the networks, where it
    does not say it itself: `{"inputs": "16/int64/0..1000"}`. Raises `UsageError` naming the option at fault.
    """
    words: list[str | Mapping[str, Any]] = [_with(name, common or {}) for name in names]
    if not words:
        raise UsageError("no networks named; give a suite file or names, such as resnet50")
    given = {axis: _values(value) for axis, value in (axes or {}).items()}
    value: dict[str, Any] = {"suite": QUICK, "architectures": words, "axes": given, "protocol": QUICK_PROTOCOL}
    if metrics is not None:
        value["metrics"] = _values(metrics)
    return checked(value, _CommandLine(), allow_code=allow_code)


def suite_from_entry(entry: Mapping[str, Any], axes: Mapping[str, list[Any]], *, allow_code: bool = False) -> Suite:
    """The suite of one architecture, with what a suite file may give it, and the values of axes.

    Raises `UsageError` for what no suite may say.
    """
    value = {"suite": QUICK, "architectures": [dict(entry)], "axes": dict(axes)}
    return checked(value, _CommandLine(), allow_code=allow_code)


def _word(one: object, passed: list[Packed]) -> str | dict[str, Any]:
    """A network or suite as a suite would write it; objects join those `passed`, and go by the name they get there."""
    if isinstance(one, str | os.PathLike):
        return os.fspath(one)
    if isinstance(one, Mapping):
        return {**one, "name": _word(one["name"], passed)} if "name" in one else dict(one)
    from archbench.catalog.user_code import pack

    packed = pack(one)
    passed.append(packed)
    return packed.name


def _with(name: str | Mapping[str, Any], common: Mapping[str, Any]) -> str | Mapping[str, Any]:
    if isinstance(name, str) and not common:
        return name
    entry = {**common, **({"name": name} if isinstance(name, str) else name)}
    return {**entry, "inputs": inputs_as_written(entry["inputs"])} if "inputs" in entry else entry


def inputs_as_written(value: Any) -> Any:
    """What a suite would have: of `3x224x160+ids=77/int64`, or of a list as a suite writes it. Raises `UsageError`."""
    if value is None:
        return None
    if not isinstance(value, str):
        return [dict(one) if isinstance(one, Mapping) else one for one in value] if isinstance(value, tuple) else value
    if value.lstrip().startswith(("[", "{")):
        return parse_document(f"inputs: {value}", "--inputs").value["inputs"]
    return parse_inputs(value)


class _CommandLine:
    """Where the values came from, for error messages: options have names, arguments speak for themselves."""

    def error(self, path: ValuePath, what: str, *, at_key: bool = False, offset: int = 0) -> UsageError:
        if path[:1] == ("architectures",):
            return UsageError(what)
        option = str(path[1] if path[0] == "axes" and len(path) > 1 else path[0]).replace("_", "-")
        return UsageError(f"--{option}: {what.split(': ', 1)[-1]}")


def _values(value: object) -> list[int | str | bool]:
    """The values of an option: `8`, `[1, 8]` and `"1,8"`; numbers as numbers, so that `08` or `1.5` is no batch."""
    each = value if isinstance(value, list | tuple) else [value]
    text = ",".join("x".join(map(str, one)) if isinstance(one, list | tuple) else str(one) for one in each)
    words = [word.strip() for word in text.split(",")]
    flags = {"true": True, "false": False}
    return [
        int(word) if re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", word) else flags.get(word.lower(), word)
        for word in words
        if word
    ]
