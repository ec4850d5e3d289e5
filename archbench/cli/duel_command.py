"""`archbench duel`: two or more cells take turns on this machine; which is faster, and how sure is that?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from archbench.cli.console import INTERRUPTED, print_json, stop_as_by_ctrl_c
from archbench.model.errors import Interrupted

if TYPE_CHECKING:
    from archbench.comparison.duel import Duel
    from archbench.comparison.judge import Rival


def command(
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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever was played before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Accept module:function architectures.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Measure on a machine that the preflight calls unfit.")
    ] = False,
) -> None:
    """Settle a close call: cells take turns block by block, and the ratio of their times gets an interval."""
    from archbench.gating import duel_of

    stop_as_by_ctrl_c()
    try:
        duel = duel_of(
            cells,
            pairs=pairs,
            turns=turns,
            max_time=max_time,
            device=device,
            fresh=fresh,
            allow_code=allow_code,
            force=force,
            progress=None,
        )
    except Interrupted as interrupted:
        print(f"archbench: {interrupted}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(duel, indent=False)
    else:
        print("\n".join(_lines(duel)))


def _lines(duel: Duel) -> Iterator[str]:
    from archbench.model.cell import short_id
    from archbench.model.units import MS, duration, percent, rounded

    yield f"{duel.hardware_class}, torch {duel.torch_version}: {duel.pairs} pairs of processes, {duel.turns} turns each"
    names = [short_id(duel.baseline), *(short_id(rival.cell_id) for rival in duel.rivals)]
    width = max(len(name) for name in names)
    yield f"{names[0]:{width}}  {rounded(duel.baseline_s, MS):>8} ms"
    for name, rival in zip(names[1:], duel.rivals, strict=True):
        yield f"{name:{width}}  {rounded(rival.latency_s, MS):>8} ms  {_said(rival, names[0])}"
    if duel.alternated:
        yield "They do not fit in memory together, so whole processes alternated: drift between them is in the ratio."
    if duel.contended_share:
        yield f"Other work took CPU time from {percent(duel.contended_share)} of the processes."
    yield f"Took {duration(duel.duration_s)}."


def _said(rival: Rival, baseline: str) -> str:
    from archbench.model.units import change, percent
    from archbench.stats.paired import EQUIVALENCE_MARGIN

    interval = (
        "one pair, so no interval"
        if rival.ci_low is None or rival.ci_high is None
        else f"95 % interval {change(rival.ci_low - 1)} to {change(rival.ci_high - 1)}"
    )
    words = {
        "slower": f"slower than {baseline}",
        "faster": f"faster than {baseline}",
        "same": f"the same as {baseline} within ±{percent(EQUIVALENCE_MARGIN)}",
        "undecided": f"not told apart from {baseline}: give more --pairs",
    }
    return f"x {rival.ratio:.4f} ({change(rival.ratio - 1)}, {interval}): {words[rival.outcome]}"
