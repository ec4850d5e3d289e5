"""Cells of one environment head to head: every pair is one fresh process a cell, and all of them take turns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal

from msgspec import Struct, structs

from archbench.comparison.gate.books import fit
from archbench.model.cell import Cell, Group
from archbench.model.empty_record import RunContext
from archbench.model.errors import UnfitError
from archbench.model.messages import Task, TurnTask
from archbench.model.pair import Pair
from archbench.model.protocol import Protocol
from archbench.stats.paired import holm
from archbench.stats.twostage import trimmed
from archbench.worker.client import WorkerClient
from archbench.worker.interleaved import start_afresh
from archbench.worker.turns import take_turns

PAIRS = 8
"""Fresh pairs of a duel: on a noisy shared CPU, where a pair scatters by 1 %, they tell 1 % apart."""
FEWEST_PAIRS = 3
"""Below, an interval is wider than anything one would want to know."""
LEVEL = 0.025
"""Of each one-sided test: 5 % that a cell is called faster or slower which is neither, over all rivals together."""
MOST_FAILURES = 2

Outcome = Literal["slower", "faster", "same", "undecided"]


class Rival(Struct, frozen=True, kw_only=True):
    """One cell against the first one named."""

    cell_id: str
    latency_s: float
    """Median over the processes' medians."""
    ratio: float
    """Its time over the first cell's."""
    ci_low: float | None
    """95 % interval of `ratio`."""
    ci_high: float | None
    outcome: Outcome
    """Shown to be slower or faster than the first; else `same` where the 90 % interval lies within the margin."""
    p: float | None
    """One-sided, in the direction seen, corrected (Holm) for the number of rivals."""


class Duel(Struct, frozen=True, kw_only=True):
    """How a duel ended."""

    yardstick: str
    """The cell named first, which the others are compared with."""
    yardstick_s: float
    rivals: tuple[Rival, ...]
    pairs: int
    turns: int
    hardware_class: str
    torch_version: str | None
    contended_share: float | None
    """Of the processes, those from which other work took CPU time; `None` where that is not known."""
    alternated: bool
    """They did not fit in memory together, so whole processes alternated."""
    duration_s: float
    """Of all pairs together."""
    log_ratios: tuple[tuple[float, ...], ...]
    """By rival: of each pair the median over the turns of log(its time / the first cell's)."""


def play_duel(
    cells: Sequence[Cell],
    workers: Sequence[WorkerClient],
    protocol: Protocol,
    *,
    pairs: int = PAIRS,
    max_time_s: float | None = None,
    seed: int = 0,
    allow_code: bool = False,
    so_far: Sequence[Pair] = (),
    tell: Callable[[Pair, int], None] = lambda pair, done: None,
) -> Duel:
    """Play pairs until there are so many, or as many as fit in the time, and judge. `workers`: one a cell.

    `so_far`: pairs of this duel that were played before; `tell` is given every new one, and how many there are now.
    Raises `UnfitError` where a cell fails, where no worker starts, and where the time is over before `FEWEST_PAIRS`.
    """
    began = time.monotonic()
    played = list(so_far)
    failures = 0
    while len(played) < pairs:
        longest = max((pair.duration_s for pair in played[1:] or played), default=0.0)
        if max_time_s is not None and time.monotonic() - began + longest > max_time_s:
            break
        pair = _play_pair(cells, workers, protocol, played, f"{seed}-{len(played)}-{failures}", seed, allow_code)
        if fit(pair):
            played.append(pair)
            tell(pair, len(played))
            continue
        failures += 1
        if failures >= MOST_FAILURES:
            raise UnfitError(_complaint(pair))
    if len(played) < FEWEST_PAIRS:
        raise UnfitError(
            f"the time was over after {len(played)} of {pairs} pairs, and {FEWEST_PAIRS} are the fewest that tell "
            "anything: give more with --max-time, or fewer --turns"
        )
    return _concluded(cells, played, protocol)


def _play_pair(
    cells: Sequence[Cell],
    workers: Sequence[WorkerClient],
    protocol: Protocol,
    played: Sequence[Pair],
    luck: str,
    seed: int,
    allow_code: bool,
) -> Pair:
    began = time.monotonic()
    frozen = played[0].frozen if played else None
    environments = [ready.environment for ready in start_afresh(workers)]
    contexts = [RunContext(run_id="duel", round=len(played), environment=one) for one in environments]
    requests = [
        _request(cell, context, protocol, frozen is None, seed, allow_code)
        for cell, context in zip(cells, contexts, strict=True)
    ]
    pair = take_turns(
        workers,
        requests,
        turns=protocol.turns,
        block_s=protocol.turn_s,
        rng=random.Random(luck),
        frozen=frozen,
        alike=False,
    )
    return structs.replace(pair, duration_s=time.monotonic() - began)


def _concluded(cells: Sequence[Cell], played: Sequence[Pair], protocol: Protocol) -> Duel:
    rows = [row for pair in played for row in pair.rows]
    known = [row for row in rows if row.contention is not None]
    frozen = played[0].frozen
    return Duel(
        yardstick=cells[0].cell_id,
        yardstick_s=_latency_s(played, 0),
        rivals=_judged(cells, played),
        pairs=len(played),
        turns=protocol.turns,
        hardware_class=rows[0].hardware_class,
        torch_version=rows[0].torch_version,
        contended_share=sum("contended" in row.reasons for row in known) / len(known) if known else None,
        alternated=frozen is not None and frozen.alternate,
        duration_s=sum(pair.duration_s for pair in played),
        log_ratios=tuple(tuple(_ratios(played, index)) for index in range(1, len(cells))),
    )


def _request(
    cell: Cell, context: RunContext, protocol: Protocol, survey: bool, seed: int, allow_code: bool
) -> TurnTask:
    task = Task(
        group=Group(cells=(cell,)),
        context=context,
        protocol=protocol,
        metrics=(),
        percentiles=(),
        seed=seed,
        allow_code=allow_code,
    )
    return TurnTask(task=task, survey=survey)


def _judged(cells: Sequence[Cell], pairs: Sequence[Pair]) -> tuple[Rival, ...]:
    estimates = [trimmed(_ratios(pairs, index)) for index in range(1, len(cells))]
    sides = [one.p_slower() if one.mean > 0 else one.p_faster() for one in estimates]
    adjusted = holm([1.0 if p is None else p for p in sides])
    rivals = []
    for index, (estimate, p) in enumerate(zip(estimates, adjusted, strict=True), start=1):
        outcome: Outcome = "undecided"
        if p <= LEVEL:
            outcome = "slower" if estimate.mean > 0 else "faster"
        elif estimate.equivalent():
            outcome = "same"
        low, high = estimate.interval() or (None, None)
        rivals.append(
            Rival(
                cell_id=cells[index].cell_id,
                latency_s=_latency_s(pairs, index),
                ratio=estimate.ratio,
                ci_low=low,
                ci_high=high,
                outcome=outcome,
                p=float(p),
            )
        )
    return tuple(rivals)


def _ratios(pairs: Sequence[Pair], index: int) -> list[float]:
    return [ratio for pair in pairs if (ratio := pair.log_ratio(of=index)) is not None]


def _latency_s(pairs: Sequence[Pair], index: int) -> float:
    return median(turn.seconds[index] for pair in pairs for turn in pair.turns if turn.kept)


def _complaint(pair: Pair) -> str:
    for index in pair.failed:
        row = pair.rows[index]
        if row.status != "skipped":
            where = f" in {row.error_phase}" if row.error_phase else ""
            return f"{row.cell_id} ends with {row.status}{where}: {row.error_message or 'no message'}"
    codes = sorted({code for row in pair.rows if row.verdict == "invalid" for code in row.reasons if ":" not in code})
    codes = codes or ["every turn was rejected"]
    return f"the device is not fit for a duel now ({', '.join(codes)}); run `archbench doctor`"
