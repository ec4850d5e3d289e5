"""`archbench duel`: two or more cells take turns on this machine; which is faster, and how sure is that?"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from archbench.cli.console import INTERRUPTED
from archbench.model.errors import UsageError

if TYPE_CHECKING:
    from archbench.comparison.gate.duel import Duel, Rival
    from archbench.comparison.gate.duel_books import DuelBooks
    from archbench.model.axes import DeviceKind
    from archbench.model.cell import Cell
    from archbench.model.pair import Pair
    from archbench.model.protocol import Protocol

FEWEST_TURNS = 3
MOST_PAIRS = 1000


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
    from archbench.gating import seconds_of

    budget_s = None if max_time is None else seconds_of(max_time, "--max-time")
    if len(cells) < 2:
        raise UsageError(f"a duel needs two cells or more, and {cells[0]!r} is one")

    import msgspec

    from archbench.comparison.gate.duel import FEWEST_PAIRS, PAIRS
    from archbench.comparison.gate.duel_books import DuelBooks
    from archbench.model.protocol import protocol_for
    from archbench.session import describe, held

    count = PAIRS if pairs is None else pairs
    if not FEWEST_PAIRS <= count <= MOST_PAIRS:
        raise UsageError(f"--pairs {count} is out of range; give {FEWEST_PAIRS} to {MOST_PAIRS}")
    if turns is not None and not FEWEST_TURNS <= turns <= MOST_PAIRS:
        raise UsageError(f"--turns {turns} is out of range; give {FEWEST_TURNS} to {MOST_PAIRS}")
    environment = describe(device)
    resolved, kind = environment.device, environment.kind
    fighters = _cells(cells, kind, allow_code)
    protocol = protocol_for(kind, {} if turns is None else {"turns": turns})
    with held(environment, force=force):
        books = DuelBooks.of(fighters, protocol, environment, fresh=fresh)
        duel = _fight(fighters, books, resolved, protocol, count, budget_s, allow_code)
    if duel is None:
        raise typer.Exit(INTERRUPTED)
    if as_json:
        print(msgspec.json.encode(duel).decode())
    else:
        print("\n".join(_lines(duel)))


def _cells(texts: list[str], kind: DeviceKind, allow_code: bool) -> list[Cell]:
    from archbench.suite.plan import parse_cell

    found: dict[str, Cell] = {}
    for text in texts:
        cell = parse_cell(text, kind, allow_code=allow_code)
        if cell.cell_id in found:
            raise UsageError(f"{text!r} is named twice; `archbench gate --aa` sets a cell against itself")
        found[cell.cell_id] = cell
    return list(found.values())


def _fight(
    cells: list[Cell],
    books: DuelBooks,
    device: str,
    protocol: Protocol,
    pairs: int,
    budget_s: float | None,
    allow_code: bool,
) -> Duel | None:
    """The duel's result, or `None` where it was interrupted."""
    from archbench.comparison.gate.duel import play_duel
    from archbench.progress import PairProgress
    from archbench.worker import WorkerClient

    so_far = books.pairs()
    if so_far:
        print(f"archbench: resuming {books.path}: {len(so_far)} pairs are done (--fresh: anew)", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            workers = [stack.enter_context(WorkerClient(sys.executable, device=device)) for _ in cells]
            progress = stack.enter_context(PairProgress(books.path, done=0))

            def tell(pair: Pair, done: int) -> None:
                books.append(pair)
                left = pairs - done
                progress.show(
                    cells[1].cell_id,
                    pair,
                    done=done,
                    left=left,
                    cells_open=len(cells) - 1,
                    seconds_left=left * pair.duration_s,
                )

            return play_duel(
                cells,
                workers,
                protocol,
                pairs=pairs,
                max_time_s=budget_s,
                allow_code=allow_code,
                so_far=so_far,
                tell=tell,
            )
    except KeyboardInterrupt:
        print(f"archbench: interrupted; the same command resumes {books.path}", file=sys.stderr)
        return None


def _lines(duel: Duel) -> Iterator[str]:
    from archbench.model.cell import short_id
    from archbench.model.units import MS, duration, percent, rounded

    yield f"{duel.hardware_class}, torch {duel.torch_version}: {duel.pairs} pairs of processes, {duel.turns} turns each"
    names = [short_id(duel.yardstick), *(short_id(rival.cell_id) for rival in duel.rivals)]
    width = max(len(name) for name in names)
    yield f"{names[0]:{width}}  {rounded(duel.yardstick_s, MS):>8} ms"
    for name, rival in zip(names[1:], duel.rivals, strict=True):
        yield f"{name:{width}}  {rounded(rival.latency_s, MS):>8} ms  {_said(rival, names[0])}"
    if duel.alternated:
        yield "They do not fit in memory together, so whole processes alternated: drift between them is in the ratio."
    if duel.contended_share:
        yield f"Other work took CPU time from {percent(duel.contended_share)} of the processes."
    yield f"Took {duration(duel.duration_s)}."


def _said(rival: Rival, yardstick: str) -> str:
    from archbench.model.units import change, percent
    from archbench.stats.paired import EQUIVALENCE_MARGIN

    interval = (
        "one pair, so no interval"
        if rival.ci_low is None or rival.ci_high is None
        else f"95 % interval {change(rival.ci_low - 1)} to {change(rival.ci_high - 1)}"
    )
    words = {
        "slower": f"slower than {yardstick}",
        "faster": f"faster than {yardstick}",
        "same": f"the same as {yardstick} within ±{percent(EQUIVALENCE_MARGIN)}",
        "undecided": f"not told apart from {yardstick}: give more --pairs",
    }
    return f"x {rival.ratio:.4f} ({change(rival.ratio - 1)}, {interval}): {words[rival.outcome]}"
