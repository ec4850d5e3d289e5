"""A comparison as a workflow's annotations: lines of a step's output that GitHub shows on the pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from archbench.model.cell import short_id
from archbench.model.comparison import Comparison
from archbench.rendering.comparison.document import Document
from archbench.rendering.comparison.words import headline, in_order

LIMIT = 10
"""GitHub shows so many errors of a step, and so many warnings, and drops the rest in silence."""

_Told = tuple[str, str]


def workflow_commands(comparison: Comparison) -> tuple[Document, ...]:
    """An error for each slower cell and failing finding, a warning for each undecided cell, the verdict as a notice."""
    errors = [(short_id(cell.cell_id), cell.why.sentence) for cell in in_order(comparison) if cell.verdict == "slower"]
    errors += [(short_id(finding.cell_id), finding.what) for finding in comparison.failures]
    doubts = [(short_id(cell.cell_id), cell.why.sentence) for cell in comparison.undecided]
    doubts += [(short_id(finding.cell_id), finding.what) for finding in comparison.failed_on_both]
    lines = [*_lines("error", errors), *_lines("warning", doubts), _line("notice", "archbench", headline(comparison))]
    return (Document(text="".join(f"{line}\n" for line in lines)),)


def _lines(level: str, told: Sequence[_Told]) -> Iterator[str]:
    shown = told if len(told) <= LIMIT else told[: LIMIT - 1]
    for title, message in shown:
        yield _line(level, title, message)
    if len(told) > len(shown):
        yield _line(level, "archbench", f"{len(told) - len(shown):,} more; the step summary has all")


def _line(level: str, title: str, message: str) -> str:
    return f"::{level} title={_escaped(title, in_property=True)}::{_escaped(message)}"


def _escaped(text: str, *, in_property: bool = False) -> str:
    """As the runner unescapes workflow commands (its toolkit's `command.ts`); the percent sign must go first."""
    for character, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(character, code)
    if in_property:
        text = text.replace(":", "%3A").replace(",", "%2C")
    return text
