"""`archbench compare`, `gate`, `duel` and `history`: is it slower, by stored runs or by processes that take turns?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archbench.cli.console import (
    INTERRUPTED,
    AllowCode,
    AsJson,
    DeviceOption,
    Force,
    InputsOption,
    answer,
    stop_as_by_ctrl_c,
    taking,
)
from archbench.model.errors import Interrupted, UsageError, did_you_mean
from archbench.model.units import indented_json
from archbench.options import GateOptions

if TYPE_CHECKING:
    from archbench.model.comparison import Comparison

Strict = Annotated[
    bool, typer.Option("--strict", help="Exit with 3 where a cell is undecided or invalid, or failed on both sides.")
]


def compare_command(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="A run's directory, or a parquet file of results.")],
    head: Annotated[Path, typer.Argument(metavar="HEAD", help="The same, of what may have become slower.")],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="text, md, json, junit, annotations, github-action-benchmark, pytest-benchmark",
        ),
    ] = "text",
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="Write there instead of to stdout.")] = None,
    allow_different: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Let torch_version, driver_version, suite, applied or threads differ; repeatable."
        ),
    ] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Say of every cell whether HEAD is slower than BASE, and of what is counted whether it grew."""
    from archbench.rendering.comparison_formats import check_format

    format = "json" if as_json else format
    check_format(format, out)

    from archbench.api import compare

    comparison = compare(base, head, allow_different=allow_different or ())
    _show(comparison, format, out)
    raise typer.Exit(comparison.exit_code(strict))


@taking(GateOptions)
def gate_command(
    what: Annotated[str, typer.Argument(metavar="SUITE", help="A suite file.")],
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, md, json, junit, or another of `compare`.")
    ] = "text",
    strict: Strict = False,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Say of every cell whether HEAD is slower than BASE, by processes that take turns here and now."""
    from archbench.rendering.comparison_formats import check_format

    format = "json" if as_json else format
    check_format(format, Path())

    from archbench.gating import gate
    from archbench.rendering.comparison_formats import SEVERAL_FILES

    with _interruptible():
        comparison = gate(what, **given)
    if format in SEVERAL_FILES:
        _show(comparison, format, Path(comparison.place or "") / f"{format}.json")
    else:
        _show(comparison, format, None)
        print(f"archbench: {comparison.place}", file=sys.stderr)
        if comparison.regressed:
            print('archbench: if this is meant: the same command with --accept "REASON"', file=sys.stderr)
    raise typer.Exit(comparison.exit_code(strict))


def _show(comparison: Comparison, format: str, out: Path | None) -> None:
    """Print it; or where it goes to files, their places."""
    from archbench.rendering.comparison_formats import render_comparison, write_comparison
    from archbench.rendering.comparison_report import text_report
    from archbench.rendering.terminal import print_report

    if out is not None:
        for place in write_comparison(comparison, format, out):
            print(place)
    elif format == "text":
        print_report(text_report(comparison))
    else:
        print(render_comparison(comparison, format), end="")


def duel_command(
    cells: Annotated[
        list[str], typer.Argument(metavar="CELL CELL...", help="resnet50@batch_size=1,precision=amp-bf16")
    ],
    pairs: Annotated[
        int | None, typer.Option(help="Pairs of fresh processes, with those played before; 8 unless given.")
    ] = None,
    turns: Annotated[int | None, typer.Option(help="Turns of each process in a pair; 16 unless given.")] = None,
    max_time: Annotated[
        str | None, typer.Option(metavar="5m", help="Stop after so long, with fewer pairs: 90s, 10m, 2h.")
    ] = None,
    inputs: InputsOption = None,
    device: DeviceOption = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever was played before.")] = False,
    as_json: AsJson = False,
    allow_code: AllowCode = False,
    force: Force = False,
) -> None:
    """Settle a close call: cells take turns block by block, and the ratio of their times gets an interval."""
    from archbench.gating import duel
    from archbench.rendering.comparison_report import duel_report

    with _interruptible():
        found = duel(
            *cells,
            pairs=pairs,
            turns=turns,
            max_time=max_time,
            inputs=inputs,
            device=device,
            fresh=fresh,
            allow_code=allow_code,
            force=force,
        )
    answer(found, duel_report, as_json, indent=False)


def history_command(
    place: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that holds runs, at any depth.")],
    format: Annotated[str, typer.Option("--format", metavar="FORMAT", help="md or json")] = "md",
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write there, with the plot beside it; by default to stdout.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show trends and change points over many runs; advisory, so the exit code is 0 whatever it finds."""
    format = "json" if as_json else format
    if format not in ("md", "json"):
        raise UsageError(f"--format {format}: no such format, known: md, json{did_you_mean(format, ('md', 'json'))}")

    from archbench.comparison import history, read_runs
    from archbench.rendering.history import history_report
    from archbench.results.files import write_bytes

    runs, left_out = read_runs(place)
    found = history(str(place), runs, left_out)
    if out is not None:
        if format == "json":
            write_bytes(out, indented_json(found).encode())
        else:
            from archbench.rendering.report import store

            store(history_report(found, plot=True), "md", out, folder=f"{out.stem}-plots")
        print(out)
    elif format == "md" and not sys.stdout.isatty():
        from archbench.rendering.markup import render_markdown

        print(render_markdown(history_report(found, plot=False)), end="")
    else:
        answer(found, lambda one: history_report(one, plot=False), format == "json")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Until the block ends a scheduler's SIGTERM is as good as Ctrl-C, and what was finished is said to be kept."""
    stop_as_by_ctrl_c()
    try:
        yield
    except Interrupted as interrupted:
        print(f"archbench: {interrupted}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
