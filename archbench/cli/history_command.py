"""`archbench history`: how each cell's time went over many runs, and between which two it changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archbench.model.errors import UsageError, did_you_mean
from archbench.model.units import indented_json

if TYPE_CHECKING:
    from archbench.comparison import History

FORMATS = ("md", "json")


def command(
    place: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that holds runs, at any depth.")],
    format: Annotated[str, typer.Option("--format", metavar="FORMAT", help="md or json")] = "md",
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write there, with the plot beside it; by default to stdout.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show trends and change points over many runs; advisory, so the exit code is 0 whatever it finds."""
    format = "json" if as_json else format
    if format not in FORMATS:
        raise UsageError(f"--format {format}: no such format, known: md, json{did_you_mean(format, FORMATS)}")

    from archbench.comparison import history, read_runs
    from archbench.results.files import write_bytes

    runs, left_out = read_runs(place)
    found = history(str(place), runs, left_out)
    if out is None:
        print(_text(found, format), end="")
    else:
        text = _with_plot(found, out) if format == "md" else _text(found, format)
        write_bytes(out, text.encode())
        print(out)


def _text(found: History, format: str) -> str:
    if format == "json":
        return indented_json(found)
    from archbench.rendering.history import history_report
    from archbench.rendering.markdown import render_markdown

    return render_markdown(history_report(found, plot=False))


def _with_plot(found: History, out: Path) -> str:
    """The markdown for `out`, whose plot is written into a folder beside it; without what draws it, it says so."""
    from archbench.rendering.drawing import draw
    from archbench.rendering.history import history_report
    from archbench.rendering.markdown import render_markdown

    report, folder = history_report(found, plot=True), out.with_name(f"{out.stem}-plots")
    return render_markdown(report, folder.name if draw(report, folder) else None)
