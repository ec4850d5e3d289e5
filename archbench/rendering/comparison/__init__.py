"""A comparison in the formats that people and continuous integration read, stored and turn-taking ones alike.

A further format is a file with a function from `Comparison` to documents, and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from archbench.model.comparison import Comparison
from archbench.model.errors import UsageError, did_you_mean
from archbench.rendering.comparison.action_benchmark import action_benchmark
from archbench.rendering.comparison.annotations import workflow_commands
from archbench.rendering.comparison.document import Document
from archbench.rendering.comparison.junit import junit
from archbench.rendering.comparison.pytest_benchmark import pytest_benchmark
from archbench.rendering.comparison.step_summary import step_summary
from archbench.rendering.comparison.structured import structured
from archbench.rendering.comparison.terminal import terminal

__all__ = ["FORMATS", "Document", "check_format", "render_comparison", "write_comparison"]

FORMATS: dict[str, Callable[[Comparison], tuple[Document, ...]]] = {
    "text": terminal,
    "md": step_summary,
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
    (document,) = FORMATS[name](comparison)
    return document.text


def write_comparison(comparison: Comparison, name: str, out: Path) -> tuple[Path, ...]:
    """Write all documents of a format: one as `out`, several as `out` with their suffix before its extension.

    Returns where they are. Raises `UsageError` for an unknown format, and `UnfitError` where it cannot be written.
    """
    from archbench.results.files import write_bytes

    check_format(name, out)
    written = []
    for document in FORMATS[name](comparison):
        place = out.with_name(f"{out.stem}-{document.suffix}{out.suffix or '.json'}") if document.suffix else out
        write_bytes(place, document.text.encode())
        written.append(place)
    return tuple(written)
