"""`archbench gate`: base and head take turns on this machine, and every cell gets a verdict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from archbench.cli.console import INTERRUPTED, stop_as_by_ctrl_c
from archbench.model.errors import Interrupted


def command(
    what: Annotated[str, typer.Argument(metavar="SUITE", help="A suite file.")],
    base: Annotated[str, typer.Option(metavar="X", help="A Python interpreter, a git revision, or . as it lies here.")],
    head: Annotated[str | None, typer.Option(metavar="Y", help="The same, of what may have become slower.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Cells to keep: resnet*, resnet50@batch_size=1.")
    ] = None,
    aa: Annotated[
        bool, typer.Option("--aa", help="Base against itself: learn how widely each cell scatters here.")
    ] = False,
    static: Annotated[
        bool,
        typer.Option("--static", help="Only what is counted, predicted and traced, on any machine; nothing is timed."),
    ] = False,
    accept: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="What fails is meant: say why, in SUITE.accepted.yaml, to be committed."),
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(metavar="10m", help="Stop measuring after so long: 90s, 10m, 2h.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The gate's directory; else under results/gate/.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, md, json, junit, or another of `compare`.")
    ] = "text",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 where a cell is undecided, invalid, or failed on both sides.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Accept module:function architectures.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Measure on a machine that the preflight calls unfit.")
    ] = False,
) -> None:
    """Say of every cell whether HEAD is slower than BASE, by processes that take turns here and now."""
    from archbench.rendering.comparison import check_format

    format = "json" if as_json else format
    check_format(format, Path())

    from archbench.gating import gate_of
    from archbench.rendering.comparison import FORMATS, write_comparison

    stop_as_by_ctrl_c()
    try:
        comparison, place = gate_of(
            what,
            base=base,
            head=head,
            only=only or (),
            aa=aa,
            static=static,
            accept=accept,
            max_time=max_time,
            out=out,
            device=device,
            allow_code=allow_code,
            force=force,
            progress=None,
        )
    except Interrupted as interrupted:
        print(f"archbench: {interrupted}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    write_comparison(comparison, "md", place / "report.md")
    write_comparison(comparison, "json", place / "comparison.json")
    text = FORMATS[format](comparison)
    if isinstance(text, str):
        print(text, end="")
        print(f"archbench: {place}", file=sys.stderr)
        if comparison.regressed:
            print('archbench: if this is meant: the same command with --accept "REASON"', file=sys.stderr)
    else:
        for written in write_comparison(comparison, format, place / f"{format}.json"):
            print(written)
    raise typer.Exit(comparison.exit_code(strict))
