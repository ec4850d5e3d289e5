"""What comparing two sides says: a verdict for each timed cell, findings about what is counted, and the exit code.

Made by `archbench.comparison` from two stored runs (`kind="stored"`) and by the gate and the duel from pairs of live
processes that took turns (`kind="turns"`); every format renders either. A ratio is head's time over base's: above 1,
the head is slower. The pairs themselves, what processes that took turns have measured together, stand last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Literal, get_args

from msgspec import Struct

from archbench.model.record import FAILED, Record
from archbench.model.units import change, percent

CellVerdict = Literal["slower", "faster", "undecided", "invalid", "same"]
CELL_VERDICTS: tuple[str, ...] = get_args(CellVerdict)
"""In the order in which a reader wants to see them."""
Kind = Literal["stored", "turns"]
Metric = Literal["latency", "throughput"]

LEAST_EFFECT = 0.015
"""A smaller difference is neither `slower` nor `faster`, however certain: nobody's build should fail by it."""

CLOCK_TOLERANCE = 0.01
"""SM clocks of the two sides may differ by this share: beyond, the time follows the clock and not the code."""

WHY: dict[str, str] = {
    "shown": "a difference was shown, beyond the least effect and the noise floor",
    "equivalent": "the 90 % interval of the ratio lies within the margin of equivalence",
    "not_shown": "neither a difference nor equality was shown",
    "small": "a difference was shown, but its size is below the cell's threshold",
    "below_floor": "a difference was shown, but not that it exceeds what measuring the same thing twice differs by",
    "no_floor": "a difference was shown, but nothing tells how far apart two runs of the same thing lie",
    "one_process": "a side was measured by one process, and processes differ",
    "clocks_differ": "the two sides ran at different clocks, so their times say little about the code",
    "cycles": "the time differs, but not the GPU's cycles (time times SM clock): the clock did it",
    "not_confirmed": "the screening pairs were slower, the fresh pairs did not confirm it",
    "out_of_time": "the time given ran out before the cell was decided",
    "invalid_rows": "every measurement of a side is unfit to be used",
    "failed": "the cell failed on a side",
}
"""Codes of `Why` and what they mean."""


class Why(Struct, frozen=True):
    """The ground of a verdict."""

    code: str
    """One of `WHY`."""
    sentence: str
    """With this cell's figures, and where something can be done about it, what."""


class Figures(Struct, frozen=True, kw_only=True):
    """What one side measured of a cell; `None` = not measured. Times and rates as they were compared (see notes)."""

    latency_s: float | None = None
    latency_low_s: float | None = None
    """95 % interval of `latency_s`, between processes where there are several."""
    latency_high_s: float | None = None
    throughput_img_s: float | None = None
    throughput_low_img_s: float | None = None
    throughput_high_img_s: float | None = None
    peak_bytes: int | None = None
    """Reserved by the caching allocator on a GPU, allocated on the CPU."""
    params: int | None = None
    macs: int | None = None
    sm_clock_mhz: float | None = None
    processes: int = 0
    """Processes behind the time that was compared."""
    process_times_s: tuple[float, ...] = ()
    """Each process's median, in the order measured: what the test saw."""


class CellComparison(Struct, frozen=True, kw_only=True):
    """One timed cell on both sides."""

    cell_id: str
    architecture: str
    variant: str
    """The architecture with whatever departs from its defaults."""
    metric: Metric = "latency"
    """What `ratio` compares: latency, or time per batch from the throughput where no latency was measured."""
    verdict: CellVerdict
    why: Why
    base: Figures
    head: Figures
    ratio: float | None = None
    """Time of the head over that of the base."""
    ci_low: float | None = None
    """95 % interval of `ratio`; `None` where one process measured a side."""
    ci_high: float | None = None
    detectable: float | None = None
    """Minimum detectable effect: the smallest true slowdown, as a share, that this many pairs show in 80 % of cases;
    in a stored comparison that is one beyond the noise floor."""
    power: float | None = None
    """In turns: the chance that a true slowdown of 3 % in this cell would have been found, going by what its pairs
    scatter by and by what those of the other cells do."""
    p: float | None = None
    """Of the one-sided test in the direction seen, corrected (Holm) for the cells that were tested together."""
    pairs: int = 0
    """Pairs of processes; in a stored comparison the processes on the side that has fewer."""
    threshold: float = LEAST_EFFECT
    """The share by which this cell must differ to be called slower or faster: larger where it is noisy."""
    noisy: bool = False
    """Its measurements scatter too widely to see 3 %, so it is judged by a threshold of its own."""
    accepted: str | None = None
    """Why it may be slower, in the words of whoever accepted that; it fails nobody then."""

    @property
    def fails(self) -> bool:
        """It is slower, and nobody has accepted that."""
        return self.verdict == "slower" and self.accepted is None

    @property
    def change(self) -> float | None:
        """`ratio` less 1: +0.03 is 3 % slower."""
        return None if self.ratio is None else self.ratio - 1


class CountedDifference(Struct, frozen=True, kw_only=True):
    """A difference in what is counted and not timed: parameters, MACs, memory, graph breaks, cells gone or failing."""

    cell_id: str
    column: str
    """Of the stored rows; `status` for a cell that fails, `cell_id` for one that is gone."""
    base: float | str | None
    head: float | str | None
    what: str
    """One sentence."""
    fails: bool
    """Whether it fails the gate; else it is told and no more."""
    accepted: str | None = None
    """Why it is meant, in the words of whoever accepted it; it does not fail then."""

    @property
    def change(self) -> float | None:
        """Head over base, less 1; `None` where either is no number, or the base is nought."""
        if isinstance(self.base, str) or isinstance(self.head, str) or not self.base or self.head is None:
            return None
        return self.head / self.base - 1

    @property
    def failed(self) -> bool:
        """It says that a side's every process of the cell failed."""
        return self.column == "status" and (self.base in FAILED or self.head in FAILED)

    @property
    def failed_on_both(self) -> bool:
        """Likewise of both sides, so that nothing of the cell can be judged."""
        return self.column == "status" and self.base in FAILED and self.head in FAILED


class Side(Struct, frozen=True, kw_only=True):
    """Where one side comes from. `None` = not known."""

    label: str
    """What the user named it by: a path, an interpreter, a revision."""
    run_ids: tuple[str, ...] = ()
    hardware_class: str
    protocol_version: int
    suite: str | None = None
    torch_version: str | None = None
    torchvision_version: str | None = None
    timm_version: str | None = None
    cuda_version: str | None = None
    driver_version: str | None = None
    python_version: str | None = None
    archbench_version: str | None = None
    started_at: str | None = None
    """First measurement, UTC, ISO 8601."""


class Floor(Struct, frozen=True, kw_only=True):
    """How far apart two measurements of the very same thing come out."""

    spread: float
    """95 % of such pairs differ by at most this share."""
    origin: str
    """Where it is known from, in a few words: `the twin resnet50`, `gate --aa of 2026-03-01`."""


class Whole(Struct, frozen=True, kw_only=True):
    """All cells of two stored runs together: what none of them shows alone, all of them may."""

    cells: int
    ratio: float
    """Geometric mean over the cells of the head's time over the base's."""
    ci_low: float
    """95 % interval of `ratio`, from how far the cells' ratios lie apart."""
    ci_high: float
    p: float
    """One-sided, that the mean does not exceed `margin` in the direction seen."""
    margin: float
    """The share that the mean must exceed: what chance moves so many cells by, or the least effect."""
    verdict: Literal["slower", "faster", "undecided"]

    @property
    def sentence(self) -> str:
        """What it says, with its figures."""
        told = f"Over all {self.cells} cells together: {change(self.ratio - 1)} time in the head"
        if self.verdict == "undecided":
            return f"{told}, not shown to exceed {percent(self.margin)}."
        return f"{told} ({change(self.ci_low - 1)} to {change(self.ci_high - 1)}), which chance does not explain."


class SuiteLines(Struct, frozen=True, kw_only=True):
    """Where the suite's networks stand, for whoever points at a line."""

    path: str
    """From the root of the project."""
    lines: dict[str, int]
    """By network, as the ids of its cells begin."""


class Comparison(Struct, frozen=True, kw_only=True):
    """All that is to be said of head against base."""

    kind: Kind
    """`stored`: two runs of different times, a report with a noise floor; `turns`: side by side, a gate."""
    base: Side
    head: Side
    cells: tuple[CellComparison, ...]
    findings: tuple[CountedDifference, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences to read before believing: what differs between the sides, what was corrected, what was left out."""
    floor: Floor | None = None
    compared: tuple[str, ...] | None = None
    """Ids of the common cells that ended `ok` on both sides; `None` in turns, where every cell that ran has a
    verdict."""
    duration_s: float | None = None
    """Time spent on measuring, both sides together."""
    whole: Whole | None = None
    """`None` in turns, and for too few cells."""
    suite_file: SuiteLines | None = None
    place: str | None = None
    """A gate's directory; `None` of two stored runs."""

    def having(self, *verdicts: CellVerdict) -> tuple[CellComparison, ...]:
        """The cells with one of these verdicts, in order."""
        return tuple(cell for cell in self.cells if cell.verdict in verdicts)

    @property
    def failures(self) -> tuple[CountedDifference, ...]:
        """The findings that fail the gate."""
        return tuple(finding for finding in self.findings if finding.fails)

    @property
    def everything(self) -> tuple[CellComparison | CountedDifference, ...]:
        """All cells, then all findings."""
        return (*self.cells, *self.findings)

    @property
    def accepted(self) -> tuple[CellComparison | CountedDifference, ...]:
        """What would fail, had nobody accepted it."""
        return tuple(one for one in self.everything if one.accepted is not None)

    @property
    def regressed(self) -> bool:
        """A cell is slower, or all of them together, or a finding fails, which nobody has accepted."""
        together = self.whole is not None and self.whole.verdict == "slower"
        return bool(together or self.failures or any(cell.fails for cell in self.cells))

    @property
    def undecided(self) -> tuple[CellComparison, ...]:
        """Cells that were not decided: `undecided` ones and `invalid` ones."""
        return self.having("undecided", "invalid")

    @property
    def failed_on_both(self) -> tuple[CountedDifference, ...]:
        """The findings about cells that failed on both sides and have no verdict that says so."""
        judged = {cell.cell_id for cell in self.cells}
        return tuple(one for one in self.findings if one.failed_on_both and one.cell_id not in judged)

    @property
    def blind(self) -> bool:
        """Cells failed, and no other ended well on both sides: nothing could be compared."""
        return self.compared == () and any(finding.failed for finding in self.findings)

    def exit_code(self, strict: bool = False) -> int:
        """1 for a regression; 3 where nothing is fit to be judged, or `strict` and any cell was not decided; else 0."""
        if self.regressed:
            return 1
        unfit = bool(self.cells) and len(self.having("invalid")) == len(self.cells)
        unsure = bool(self.undecided or self.failed_on_both)
        return 3 if self.blind or unfit or (strict and unsure) else 0


class Turn(Struct, frozen=True, kw_only=True):
    """Each process held the device once, for one block."""

    seconds: tuple[float, ...]
    """Of one step, by process in their fixed order."""
    first: int
    """Which of them began."""
    kept: bool = True
    """False where the device's monitor rejected a block of it."""


class Frozen(Struct, frozen=True, kw_only=True):
    """What the first pair finds out, by process, and all later pairs keep to.

    The sides of a gate have equal numbers; the cells of a duel each have their own.
    """

    warmup_steps: tuple[int, ...]
    steps: tuple[int, ...]
    """Steps in a block."""
    alternate: bool = False
    """The processes do not fit in memory together: whole processes alternate."""


class ProcessPair(Struct, frozen=True, kw_only=True):
    """Fresh processes, one a side (base, head) or one a cell of a duel, and what they measured in turns."""

    rows: tuple[Record, ...]
    turns: tuple[Turn, ...] = ()
    """Empty where a process failed. Where whole processes alternated, turn number n of each is put together."""
    frozen: Frozen | None = None
    """`None` where a process failed before it was known."""
    origins: tuple[str | None, ...] = ()
    """The file of the package or module that each network came from."""
    started_at: str
    """UTC, ISO 8601."""
    duration_s: float

    @property
    def failed(self) -> tuple[int, ...]:
        """The processes that gave no time."""
        return tuple(index for index, row in enumerate(self.rows) if row.status != "ok")

    @property
    def fit(self) -> bool:
        """Whether the times may enter a test: all ended well, none was throttled or shared, a turn was kept."""
        return not self.failed and self.log_ratio() is not None and all(row.verdict != "invalid" for row in self.rows)

    def failure(self) -> tuple[int, str] | None:
        """Which process failed, and how; `None` where none did. One that was sent away since another failed is none."""
        for index in self.failed:
            if self.rows[index].status != "skipped":
                return index, self.rows[index].failure
        return None

    def log_ratio(self, of: int = 1, to: int = 0) -> float | None:
        """Median over the turns of log(time of one process / time of another); `None` where one failed."""
        kept = [turn for turn in self.turns if turn.kept]
        if not kept or self.frozen is None:
            return None
        if self.frozen.alternate:
            return math.log(self._median_s(kept, of) / self._median_s(kept, to))
        return median(math.log(turn.seconds[of] / turn.seconds[to]) for turn in kept)

    def latency_s(self, of: int = 0) -> float:
        """Median time of one process's step over the turns that were kept, in seconds. Raises where there are none."""
        return self._median_s([turn for turn in self.turns if turn.kept], of)

    @staticmethod
    def _median_s(turns: Sequence[Turn], index: int) -> float:
        return median(turn.seconds[index] for turn in turns)


class PairDone(Struct, frozen=True, kw_only=True):
    """What is told after each pair."""

    cell_id: str
    """Whose it is; of a duel, the cell that the first is held against."""
    pair: ProcessPair
    pairs_done: int
    pairs_left: int
    """At the least: cells that are still to be flagged will need more."""
    cells_open: int
    seconds_left: float
