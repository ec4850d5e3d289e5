"""Is the head slower than the base, on this machine and now? Two sides whose processes take turns, block by block.

results/gate/<suite>/<id>/
    gate.json, pairs.parquet, pairs/   see `PairStore`
    suite.yaml                   the suite as given
    comparison.json, report.md   what the pairs say together
    worker-*.log                 what workers and networks printed
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from msgspec import Struct, structs

from archbench.comparison.counted import findings
from archbench.comparison.interleave import Interleave, from_tree
from archbench.comparison.judge_pairs import contended_share, judge_pairs
from archbench.comparison.noise import Threshold, read_noise, write_noise
from archbench.comparison.pair_store import PairLog, PairStore, find_stores
from archbench.comparison.rows import changes
from archbench.comparison.schedule import NextPair, next_pairs, outlook
from archbench.comparison.sides import SideRun, SideSpec
from archbench.model.cell import Cell, Plan, short_id
from archbench.model.comparison import CellComparison, Comparison, CountedDifference, Side
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError, UsageError
from archbench.model.protocol import PROTOCOL_VERSION, Protocol
from archbench.model.units import listed, percent
from archbench.results.directories import dated, identity_of
from archbench.stats.twostage import CONFIRM_PAIRS, SCREEN_PAIRS

GATES = Path("results") / "gate"
ORDERS = 32
"""Seeded orders of the cells, one a round of pairs; more rounds than any gate has."""
LEARNING_PAIRS = CONFIRM_PAIRS
"""Screening pairs of each cell where the spread itself is the question."""
ENOUGH_POWER = 0.95
"""With a smaller chance of finding 3 % a cell is named."""
_NAMED = 4
"""Cells that a note names before it only counts the rest."""
_VERSIONS = ("torch_version", "torchvision_version", "timm_version", "cuda_version", "python_version")


class GateSpec(Struct, frozen=True, kw_only=True):
    """All that decides what a gate measures: gates that share it may be continued by each other."""

    MARKER: ClassVar[str] = "gate.json"

    suite: str
    suite_hash: str
    cells: tuple[str, ...]
    device: str
    base: SideSpec
    head: SideSpec
    base_environment: Environment
    head_environment: Environment
    turns: int
    turn_s: float
    seed: int
    learning: bool = False
    """`--aa`: base against itself."""
    allow_code: bool = False

    @property
    def identity(self) -> str:
        """Equal for gates that may be continued by each other."""
        return identity_of(
            *(self.suite_hash, self.device, *self.cells, self.turns, self.turn_s, self.seed, self.learning),
            *(self.base.identity, self.head.identity),
            *(self.base_environment.fingerprint, self.head_environment.fingerprint),
        )

    @property
    def subject(self) -> str:
        """Equal for gates whose bases' pairs may stand together: one code, one set of libraries, the same turns."""
        return identity_of(self.base.identity, self.base_environment.fingerprint, self.turns, self.turn_s)


class GatePlay(Interleave):
    """A gate while it is played."""

    counted = ("static", "memory")

    def __init__(
        self,
        spec: GateSpec,
        store: PairStore[GateSpec],
        cells: Sequence[Cell],
        thresholds: Mapping[str, Threshold],
        protocol: Protocol,
    ) -> None:
        care = structs.replace(protocol, turns=spec.turns, turn_s=spec.turn_s)
        logs = store.fill(PairLog(cell) for cell in cells)
        super().__init__(store, logs, care, seed=spec.seed, allow_code=spec.allow_code)
        self._places = _places(logs, spec.seed)
        self._screen_pairs = LEARNING_PAIRS if spec.learning else SCREEN_PAIRS
        self.thresholds = thresholds

    def next_pairs(self, *, settle: bool = False) -> Sequence[NextPair]:
        return next_pairs(self.logs, self.thresholds, self._places, screen_pairs=self._screen_pairs, settle=settle)

    def outlook(self) -> Mapping[str, int]:
        return outlook(self.logs, self.thresholds, screen_pairs=self._screen_pairs)


def open_gate(
    spec: GateSpec, suite_text: str, out: Path | None = None, *, finished: bool = False
) -> PairStore[GateSpec]:
    """The gate to continue, in `out` or the latest that was not finished (with `finished`: the latest); or a new one.

    Raises `UsageError` where `out` holds something else, `UnfitError` where it holds one of another machine.
    """
    if out is not None:
        store = PairStore(out, GateSpec)
        if store.holds():
            refuse_other(store, spec)
            return store
        return PairStore.create(out, spec, suite=suite_text)
    last = next(find_stores(GATES / spec.suite, spec), None)
    if last is not None and (finished or not (last.path / "comparison.json").exists()):
        return last  # else the last one was finished: the same command begins a new one
    return PairStore.create(GATES / spec.suite / dated(spec.identity), spec, suite=suite_text)


def refuse_other(store: PairStore[GateSpec], spec: GateSpec) -> None:
    """Raise `UsageError` where a directory's gate is about something else, `UnfitError` where of another machine."""
    path, theirs = store.path, store.spec()
    if theirs.identity == spec.identity:
        return
    for name in ("suite", "suite_hash", "device", "learning", "turns", "turn_s", "cells"):
        if getattr(theirs, name) != getattr(spec, name):
            raise UsageError(f"{path} holds a gate with another {name.replace('_', ' ')}; give another --out")
    for name, before, now in (("base", theirs.base, spec.base), ("head", theirs.head, spec.head)):
        if before.identity != now.identity:
            raise UsageError(
                f"{path} holds a gate whose {name} is {before.label} ({before.identity[:12]}), not {now.label} "
                f"({now.identity[:12]}); give another --out"
            )
    raise UnfitError(f"{path} holds a gate of another machine or other libraries; give another --out")


def thresholds_of(spec: GateSpec) -> dict[str, Threshold]:
    """By how much each cell must differ, going by what is known of the machine's noise."""
    noise = read_noise(spec.base_environment.hardware_class)
    return {cell_id: noise.threshold(cell_id, turns=spec.turns, turn_s=spec.turn_s) for cell_id in spec.cells}


def finish(play: GatePlay, spec: GateSpec, plan: Plan, sides: Sequence[SideRun]) -> Comparison:
    """What the pairs say together, once they have all been played; a gate that learns has learnt now."""
    notes = [f"{skip.cell.cell_id} was skipped: {skip.reason}." for skip in plan.skipped]
    if spec.learning:
        pairs = {cell_id: log.everything for cell_id, log in play.logs.items()}
        noise = read_noise(spec.base_environment.hardware_class).learnt(pairs, spec)
        notes.append(f"Learnt how widely the cells scatter: {write_noise(noise)}.")
        play.thresholds = thresholds_of(spec)
    return conclude(spec, list(play.logs.values()), play.thresholds, sides, notes)


def conclude(
    spec: GateSpec,
    logs: Sequence[PairLog],
    thresholds: Mapping[str, Threshold],
    sides: Sequence[SideRun] = (),
    notes: Sequence[str] = (),
) -> Comparison:
    """Judge the pairs so far. `sides` say where code was expected to come from; `notes` go before the gate's own."""
    started = min((pair.started_at for log in logs for pair in log.everything), default=None)
    cells = judge_pairs([log for log in logs if not _never_timed(log)], thresholds)
    base = _side(spec, spec.base, spec.base_environment, started)
    head = _side(spec, spec.head, spec.head_environment, started)
    return Comparison(
        kind="turns",
        base=base,
        head=head,
        cells=cells,
        findings=_findings(logs),
        notes=(*notes, *_notes(spec, base, head, logs, thresholds, sides), *_of_power(cells, thresholds)),
        duration_s=sum(pair.duration_s for log in logs for pair in log.everything),
    )


def _side(spec: GateSpec, side: SideSpec, environment: Environment, started: str | None) -> Side:
    return Side(
        label=side.described,
        hardware_class=environment.hardware_class,
        protocol_version=PROTOCOL_VERSION,
        suite=spec.suite,
        driver_version=environment.driver_version,
        archbench_version=environment.archbench_version,
        started_at=started,
        **{name: getattr(environment, name) for name in _VERSIONS},
    )


def _never_timed(log: PairLog) -> bool:
    """Both sides say that the cell cannot be run at all: no verdict on a time is to be had, or missed."""
    return bool(log.everything) and all({row.status for row in pair.rows} == {"unsupported"} for pair in log.everything)


def _findings(logs: Sequence[PairLog]) -> tuple[CountedDifference, ...]:
    import pandas as pd

    played = [log for log in logs if log.everything]
    if not played:
        return ()
    rows = ([structs.asdict(log.standing_for(side)) for log in played] for side in (0, 1))
    base, head = (pd.DataFrame(one).set_index("cell_id") for one in rows)
    return findings(base, head, may_lack=False)


def _notes(
    spec: GateSpec,
    base: Side,
    head: Side,
    logs: Sequence[PairLog],
    thresholds: Mapping[str, Threshold],
    sides: Sequence[SideRun],
) -> Iterator[str]:
    yield from changes(base, head, spec.base_environment, spec.head_environment)
    if spec.base.identity == spec.head.identity and not spec.learning:
        yield "Base and head are the same: whatever is called slower or faster here is a false alarm."
    yield from _of_code(logs, sides)
    yield from _of_noise(logs, thresholds)
    alternated = [log.cell.cell_id for log in logs if log.frozen is not None and log.frozen.alternate]
    if alternated:
        yield (
            f"Two processes of {listed(alternated, _NAMED)} do not fit in memory together, so whole processes "
            "alternated: the machine's drift between them is in the ratio."
        )
    if contended := contended_share([pair for log in logs for pair in log.everything]):
        yield (
            f"Other work took CPU time from {percent(contended)} of the processes; taking turns makes both sides pay "
            "for it."
        )


def _of_code(logs: Sequence[PairLog], sides: Sequence[SideRun]) -> Iterator[str]:
    """Two revisions of a project from which no network comes are the same thing twice."""
    origins = [origin for log in logs for pair in log.everything[:1] for origin in pair.origins if origin]
    revisions = bool(sides) and all(side.tree is not None for side in sides)
    if origins and revisions and not any(from_tree(origin, side) for origin in origins for side in sides):
        yield (
            "No network of the suite comes from the project's own code, so base and head ran the same code: name its "
            "networks as module:function, with --allow-code."
        )


def _of_noise(logs: Sequence[PairLog], thresholds: Mapping[str, Threshold]) -> Iterator[str]:
    for cell_id in (log.cell.cell_id for log in logs):
        if (one := thresholds[cell_id]).noisy:
            yield (
                f"{cell_id} is noisy (its A/A pairs scatter by {percent(one.spread or 0.0)}) and has its own threshold "
                f"of {percent(one.confirm)}."
            )


def _of_power(cells: Sequence[CellComparison], thresholds: Mapping[str, Threshold]) -> Iterator[str]:
    low = {
        cell.cell_id: cell.power
        for cell in cells
        if cell.power is not None and cell.power < ENOUGH_POWER and not cell.noisy  # these have been named
    }
    if not low:
        return
    told = listed([f"{short_id(cell_id)} ({percent(chance)})" for cell_id, chance in low.items()], _NAMED)
    remedy = (
        "; `archbench gate SUITE --base X --aa` gives cells that scatter so a threshold of their own"
        if any(thresholds[cell_id].spread is None for cell_id in low)
        else ""
    )
    yield f"Found with a chance of less than {percent(ENOUGH_POWER)}, were it there: 3 % more time in {told}{remedy}."


def _places(cell_ids: Iterable[str], seed: int) -> dict[str, list[int]]:
    """Each cell's place in each of the seeded orders; they depend on the cells and the seed alone."""
    places: dict[str, list[int]] = {cell_id: [] for cell_id in cell_ids}
    for number in range(ORDERS):
        order = sorted(places)
        random.Random(f"{seed}-{number}").shuffle(order)
        for place, cell_id in enumerate(order):
            places[cell_id].append(place)
    return places
