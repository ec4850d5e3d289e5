"""Is the head slower than the base, on this machine and now? Two sides whose processes take turns, block by block.

A duel is the same of several cells of one environment, each held against the first: every pair is one process a cell.

results/gate/<suite>/<id>/, results/duel/<id>/
    gate.json or duel.json, pairs.parquet, pairs/   see `PairStore`
    suite.yaml                   a gate's suite as given
    comparison.json, report.md   what a gate's pairs say together
    worker-*.log                 what workers and networks printed
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from msgspec import Struct, structs

from archbench.catalog import facts
from archbench.comparison.findings import findings
from archbench.comparison.interleave import Interleave, PairStore, find_stores, from_tree
from archbench.comparison.judge import judge_pairs, judge_rivals, unfit
from archbench.comparison.noise import read_noise, write_noise
from archbench.comparison.rows import changes
from archbench.comparison.schedule import NextPair, PairLog, next_pairs, outlook
from archbench.comparison.sides import SideRun, SideSpec
from archbench.model.cell import Cell, Plan, short_id
from archbench.model.comparison import CellComparison, Comparison, CountedDifference, ProcessPair, Side
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError, UsageError
from archbench.model.protocol import PROTOCOL_VERSION, Protocol
from archbench.model.units import listed, percent
from archbench.results.files import dated, identity_of
from archbench.stats.twostage import CONFIRM_PAIRS, SCREEN_PAIRS

log = logging.getLogger(__name__)

GATES = Path("results") / "gate"
DUELS = Path("results") / "duel"
ORDERS = 32
"""Seeded orders of the cells, one a round of pairs; more rounds than any gate has."""
LEARNING_PAIRS = CONFIRM_PAIRS
"""Screening pairs of each cell where the spread itself is the question."""
ENOUGH_POWER = 0.95
"""With a smaller chance of finding 3 % a cell is named."""
PAIRS = 8
"""Fresh pairs of a duel: on a noisy shared CPU, where a pair scatters by 1 %, they tell 1 % apart."""
FEWEST_PAIRS = 3
"""Below, an interval is wider than anything one would want to know."""
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
    """A gate while it is played: pairs of base and head, screened and then confirmed."""

    def __init__(self, spec: GateSpec, store: PairStore[GateSpec], cells: Sequence[Cell], protocol: Protocol) -> None:
        care = structs.replace(protocol, turns=spec.turns, turn_s=spec.turn_s)
        logs = store.fill(PairLog(cell) for cell in cells)
        super().__init__(store, logs, care, seed=spec.seed, allow_code=spec.allow_code)
        self._places = _places(logs, spec.seed)
        self._screen_pairs = LEARNING_PAIRS if spec.learning else SCREEN_PAIRS

    def next_pairs(self, *, settle: bool = False) -> Sequence[NextPair]:
        return next_pairs(self.logs, self._places, screen_pairs=self._screen_pairs, settle=settle)

    def outlook(self) -> Mapping[str, int]:
        return outlook(self.logs, screen_pairs=self._screen_pairs)


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


def set_thresholds(logs: Iterable[PairLog], spec: GateSpec) -> None:
    """Have each cell judged by what is known of the machine's noise."""
    noise = read_noise(spec.base_environment.hardware_class)
    for one in logs:
        one.threshold = noise.threshold(one.key, turns=spec.turns, turn_s=spec.turn_s)


def finish(play: GatePlay, spec: GateSpec, plan: Plan, sides: Sequence[SideRun]) -> Comparison:
    """What the pairs say together, once they have all been played; a gate that learns has learnt now."""
    notes = [f"{skip.cell.cell_id} was skipped: {skip.reason}." for skip in plan.skipped]
    logs = list(play.logs.values())
    if spec.learning:
        pairs = {one.key: one.everything for one in logs}
        noise = read_noise(spec.base_environment.hardware_class).learnt(pairs, spec)
        notes.append(f"Learnt how widely the cells scatter: {write_noise(noise)}.")
        set_thresholds(logs, spec)
    return conclude(spec, logs, sides, notes)


def conclude(
    spec: GateSpec, logs: Sequence[PairLog], sides: Sequence[SideRun] = (), notes: Sequence[str] = ()
) -> Comparison:
    """Judge the pairs so far. `sides` say where code was expected to come from; `notes` go before the gate's own."""
    pairs = [pair for one in logs for pair in one.everything]
    started = min((pair.started_at for pair in pairs), default=None)
    cells = judge_pairs([one for one in logs if not _never_timed(one)])
    base = _side(spec, spec.base, spec.base_environment, started)
    head = _side(spec, spec.head, spec.head_environment, started)
    return Comparison(
        kind="turns",
        base=base,
        head=head,
        cells=cells,
        findings=_findings([one for one in logs if one.everything]),
        notes=(*notes, *_notes(spec, base, head, logs, sides), *_of_power(cells, logs)),
        duration_s=sum(pair.duration_s for pair in pairs),
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


def _findings(played: Sequence[PairLog]) -> tuple[CountedDifference, ...]:
    import pandas as pd

    if not played:
        return ()
    rows = ([structs.asdict(log.standing_for(side)) for log in played] for side in (0, 1))
    base, head = (pd.DataFrame(one).set_index("cell_id") for one in rows)
    return findings(base, head, may_lack=False)


def _notes(spec: GateSpec, base: Side, head: Side, logs: Sequence[PairLog], sides: Sequence[SideRun]) -> Iterator[str]:
    yield from changes(base, head, spec.base_environment, spec.head_environment)
    if spec.base.identity == spec.head.identity and not spec.learning:
        yield "Base and head are the same: whatever is called slower or faster here is a false alarm."
    # Two revisions of a project from which no network comes are the same thing twice.
    origins = [origin for log in logs for pair in log.everything[:1] for origin in pair.origins if origin]
    revisions = bool(sides) and all(side.tree is not None for side in sides)
    if origins and revisions and not any(from_tree(origin, side) for origin in origins for side in sides):
        yield (
            "No network of the suite comes from the project's own code, so base and head ran the same code: name its "
            "networks as module:function, with --allow-code."
        )
    for log in logs:
        if log.threshold.noisy:
            yield (
                f"{log.key} is noisy (its A/A pairs scatter by {percent(log.threshold.spread or 0.0)}) and has its own "
                f"threshold of {percent(log.threshold.confirm)}."
            )
    alternated = [log.key for log in logs if log.frozen is not None and log.frozen.alternate]
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


def _of_power(cells: Sequence[CellComparison], logs: Sequence[PairLog]) -> Iterator[str]:
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
        if any(log.key in low and log.threshold.spread is None for log in logs)
        else ""
    )
    yield f"Found with a chance of less than {percent(ENOUGH_POWER)}, were it there: 3 % more time in {told}{remedy}."


def contended_share(pairs: Sequence[ProcessPair]) -> float | None:
    """The share of the processes from which other work took CPU time; `None` where that is not known of any."""
    known = ["contended" in row.reasons for pair in pairs for row in pair.rows if row.contention is not None]
    return sum(known) / len(known) if known else None


def _places(cell_ids: Iterable[str], seed: int) -> dict[str, list[int]]:
    """Each cell's place in each of the seeded orders; they depend on the cells and the seed alone."""
    places: dict[str, list[int]] = {cell_id: [] for cell_id in cell_ids}
    for number in range(ORDERS):
        order = sorted(places)
        random.Random(f"{seed}-{number}").shuffle(order)
        for place, cell_id in enumerate(order):
            places[cell_id].append(place)
    return places


class DuelSpec(Struct, frozen=True, kw_only=True):
    """All that decides what a duel measures: duels that share it may be continued by each other."""

    MARKER: ClassVar[str] = "duel.json"

    cells: tuple[Cell, ...]
    protocol: Protocol
    environment: Environment

    @property
    def identity(self) -> str:
        """Equal for duels that may be continued by each other."""
        return identity_of(*(cell.cell_id for cell in self.cells), self.protocol, self.environment.fingerprint)


class Duel(Struct, frozen=True, kw_only=True):
    """How a duel ended."""

    baseline: str
    """The cell named first, which the others are compared with."""
    baseline_s: float | None
    """Median over its processes' medians, seconds."""
    rivals: tuple[CellComparison, ...]
    """Each of the others (`head`) against the first (`base`)."""
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


def open_duel(spec: DuelSpec, *, fresh: bool = False, root: Path = DUELS) -> PairStore[DuelSpec]:
    """The latest duel of these cells, in this order, with this care, libraries and machine; or a new one.

    A new one with `fresh`, and where a network is the user's code: that may have changed.
    """
    if not fresh and not any(facts(cell.network).source == "user code" for cell in spec.cells):
        for store in find_stores(root, spec):
            return store
        for old in sorted(root.glob(f"*-{spec.identity}/*.json")):
            log.warning("%s is of an older archbench, which kept no duel.json: a new duel begins beside it", old.parent)
            break
    name = dated(spec.identity)
    taken = sum(1 for _ in root.glob(f"{name}*")) if root.exists() else 0
    return PairStore.create(root / (f"{name}-{taken}" if taken else name), spec)


class DuelPlay(Interleave):
    """A duel while it is played: pairs until `pairs` of them are fit to be used."""

    def __init__(
        self, spec: DuelSpec, store: PairStore[DuelSpec], *, pairs: int = PAIRS, allow_code: bool = False
    ) -> None:
        self._log = PairLog(*spec.cells)
        super().__init__(store, store.fill([self._log]), spec.protocol, seed=0, allow_code=allow_code)
        self._log.forget_failures()
        self._spec = spec
        self._pairs = pairs

    @property
    def played(self) -> list[ProcessPair]:
        """The pairs that are fit to be used."""
        return [pair for pair in self._log.everything if pair.fit]

    def next_pairs(self, *, settle: bool = False) -> Sequence[NextPair]:
        done = len(self.played)
        return [] if done >= self._pairs or self._log.given_up else [NextPair(0, done, 0, self._log.key, "screen")]

    def outlook(self) -> Mapping[str, int]:
        return {self._log.key: self._pairs - len(self.played)} if self.next_pairs() else {}

    def concluded(self) -> Duel:
        """What the pairs say. Raises `UnfitError` where a cell fails, and where there are fewer than `FEWEST_PAIRS`."""
        cells, played = self._spec.cells, self.played
        if self._log.given_up:
            raise UnfitError(unfit(self._log, [cell.cell_id for cell in cells]).sentence)
        if len(played) < FEWEST_PAIRS:
            raise UnfitError(
                f"the time was over after {len(played)} of {self._pairs} pairs, and {FEWEST_PAIRS} are the fewest that "
                "tell anything: give more with --max-time, or fewer --turns"
            )
        frozen, row, rivals = played[0].frozen, played[0].rows[0], judge_rivals(self._log)
        return Duel(
            baseline=cells[0].cell_id,
            baseline_s=rivals[0].base.latency_s,
            rivals=rivals,
            pairs=len(played),
            turns=self._spec.protocol.turns,
            hardware_class=row.hardware_class,
            torch_version=row.torch_version,
            contended_share=contended_share(played),
            alternated=frozen is not None and frozen.alternate,
            duration_s=sum(pair.duration_s for pair in played),
            log_ratios=tuple(tuple(self._log.ratios("screen", index)) for index in range(1, len(cells))),
        )
