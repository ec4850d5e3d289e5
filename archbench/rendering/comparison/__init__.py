"""A comparison in the formats that people and continuous integration read, stored and turn-taking ones alike.

A further format is a function from `Comparison` to one text, or to several by the suffix of their files, and a line in
`FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from archbench.model.comparison import Comparison
from archbench.model.errors import UsageError, did_you_mean
from archbench.rendering.comparison.ci import junit, workflow_commands
from archbench.rendering.comparison.data import action_benchmark, pytest_benchmark, structured
from archbench.rendering.comparison.report import as_step_summary, as_text

__all__ = ["FORMATS", "check_format", "render_comparison", "write_comparison"]

FORMATS: dict[str, Callable[[Comparison], str | dict[str, str]]] = {
    "text": as_text,
    "md": as_step_summary,
    "json": structured,
    "junit": junit,
    "annotations": workflow_commands,
    "github-action-benchmark": action_benchmark,
    "pytest-benchmark": pytest_benchmark,
}


def check_format(name: str, out: Path | None) -> None:
    """Raises `UsageError` for an unknown format, and for one of two files where there is no place to put them."""
    if name not in FORMATS:
        raise UsageError(f"--format {name}: no such format, known: {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}")
    if out is None and name in ("github-action-benchmark", "pytest-benchmark"):
        raise UsageError(f"--format {name} makes two files: give --out PATH, and they are named after it")


def render_comparison(comparison: Comparison, name: str) -> str:
    """The text of a format of one document. Raises `UsageError` as `check_format` does."""
    check_format(name, None)
    text = FORMATS[name](comparison)
    assert isinstance(text, str), "check_format refuses those of several files"
    return text


def write_comparison(comparison: Comparison, name: str, out: Path) -> tuple[Path, ...]:
    """Write all documents of a format: one as `out`, several as `out` with their suffix before its extension.

    Returns where they are. Raises `UsageError` for an unknown format, and `UnfitError` where it cannot be written.
    """
    from archbench.results.files import write_bytes

    check_format(name, out)
    texts = FORMATS[name](comparison)
    if isinstance(texts, str):
        texts = {"": texts}
    places = {out.with_name(f"{out.stem}-{end}{out.suffix or '.json'}") if end else out: texts[end] for end in texts}
    for place, text in places.items():
        write_bytes(place, text.encode())
    return tuple(places)
