"""`archbench claims` and `train-probe`: the folklore checked, and depth that trains or does not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archbench.cli.console import INTERRUPTED, AsJson, DeviceOption, answer, print_json, stop_as_by_ctrl_c
from archbench.model.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from archbench.training.probe import Probe


def claims_command(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN...", help="Stored runs; else those of this machine here.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="PATTERN", help="Claims to judge: 000.14, 003.*, measured.")
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A training probe; else the newest of this machine here.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Claims of your own, in the form of docs/claims.md.")
    ] = None,
    measure: Annotated[
        str | None, typer.Option(metavar="10m", help="Measure what is missing, for so long at most: 90s, 10m, 2h.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the report there: claims.md or claims.html.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge what tutorials and papers say: confirmed, refuted, depends (on what), or not measurable here and why."""
    from archbench import claims
    from archbench.rendering.folklore import folklore_report
    from archbench.rendering.report import store

    if out is not None and out.suffix not in (".md", ".html"):
        raise UsageError(f"--out {out}: name a file that ends in .md or .html")
    try:
        found = claims(runs or (), only=only or (), probe=probe, file=file, measure=measure)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if out is not None and not as_json:
        print(store(folklore_report(found), out.suffix.removeprefix("."), out))
    else:
        answer(found, folklore_report, as_json)


def train_probe_command(
    networks: Annotated[
        list[str] | None, typer.Argument(metavar="NETWORK...", help="plain56, resnet56, relu-bn-he, ...; else all.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many times each is trained.")] = 3,
    steps: Annotated[int | None, typer.Option(help="Of each training, in place of the schedule's own.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="CIFAR-10's binary version; else scikit-learn's digits.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The probe's directory; else under results/train-probe/.")
    ] = None,
    device: DeviceOption = "cpu",
    at_once: Annotated[
        int | None, typer.Option(help="Trainings at a time, on a thread each; else as many as there are cores.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train plain and residual networks, and chains of layers, and keep their curves; a second call resumes."""
    from archbench.rendering.folklore import probe_report
    from archbench.rendering.report import store
    from archbench.rendering.terminal import print_report
    from archbench.training.probe import train_probe

    stop_as_by_ctrl_c()
    try:
        found = train_probe(
            networks or (), seeds=seeds, steps=steps, data=data, out=out, device=device, at_once=at_once, told=_told
        )
    except Interrupted as interrupted:
        print(f"archbench: {interrupted}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    report = probe_report(found)
    for format in ("md", "html"):
        store(report, format, found.path / f"report.{format}")
    if as_json:
        print_json({"path": str(found.path), "about": found.about, "points": found.points})
    else:
        print_report(report)
        print(found.path)


def _told(probe: Probe, network: str, seed: int) -> None:
    from archbench.training.probe import asked

    end = next(one for one in probe.last if (one.network, one.seed) == (network, seed))
    seconds = probe.about.seconds[f"{network} {seed}"]
    print(
        f"archbench: {len(probe.last)} of {len(asked(probe.about.settings))}: {network}, seed {seed}: "
        f"training loss {end.train_loss:.3g}, accuracy {end.train_accuracy:.1f} %, {seconds:.0f} s",
        file=sys.stderr,
    )
