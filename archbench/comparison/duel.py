"""Cells of one environment head to head: every pair is one fresh process a cell, and all of them take turns."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from msgspec import Struct

from archbench.catalog import facts
from archbench.comparison.interleave import Interleave
from archbench.comparison.judge_pairs import contended_share, judge_rivals, unfit
from archbench.comparison.pair_store import PairLog, PairStore, find_stores
from archbench.comparison.schedule import NextPair
from archbench.model.cell import Cell
from archbench.model.comparison import CellComparison, ProcessPair
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError
from archbench.model.protocol import Protocol
from archbench.results.directories import dated, identity_of

log = logging.getLogger(__name__)

DUELS = Path("results") / "duel"
PAIRS = 8
"""Fresh pairs of a duel: on a noisy shared CPU, where a pair scatters by 1 %, they tell 1 % apart."""
FEWEST_PAIRS = 3
"""Below, an interval is wider than anything one would want to know."""


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

    alike = False

    def __init__(
        self, spec: DuelSpec, store: PairStore[DuelSpec], *, pairs: int = PAIRS, seed: int = 0, allow_code: bool = False
    ) -> None:
        self._log = PairLog(*spec.cells)
        super().__init__(store, store.fill([self._log]), spec.protocol, seed=seed, allow_code=allow_code)
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
