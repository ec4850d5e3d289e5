"""How long a run will take, by phase, before anything runs: the protocol's rules on step times that are guessed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from statistics import median

import msgspec
from msgspec import Struct

from archbench.device.kind import Rates, kind_named
from archbench.model.axes import PLAIN, STATIC, TIMED
from archbench.model.cell import Cell, Group, Plan
from archbench.model.protocol import (
    JUDGED_IMAGES,
    JUDGING_S,
    PROTOCOL_VERSION,
    WATCHED_S,
    Protocol,
    protocol_for,
    times_only,
)
from archbench.model.record import Record
from archbench.model.suite import Percentile, Suite
from archbench.suite.cells import size_of
from archbench.suite.plan import CellVisit, Room, arranged, make_plan

PHASES = (
    *("start", "processes", "build", "counts", "cuDNN search", "compile cold", "warm-up", "latency", "throughput"),
    *("memory", "energy", "numerics", "profile", "compile warm", "report"),
)
TRAINING = 3.0
"""A training step in forward passes, as `achieved_flops` has it."""
TRAFFIC = 6.0
"""How often an activation crosses the memory bus: written and read by a layer, its normalisation, its activation."""
FUSED = 3.0
"""A compiled step launches a third of the kernels and moves a third of the activations."""
BESIDE = ("processes", "build", "counts", "compile cold")
"""What the processes of a wave do at the same time."""
FIRST_PLAN = 0.2
"""Share of cuDNN's search that does not depend on the number of plans: its heuristics are asked once."""
PLAN_RUNS = 4
"""Times that a plan is run: once, then thrice to be timed (`CUDNN_FIND_SAMPLE_MEDIAN_OF_THREE`)."""
SEARCHED = 0.5
"""Share of a step's time that its convolutions of different shapes take: most networks have every shape twice."""
PLANS = 10
"""Plans that `Rates.search` is about: torch's own limit."""
MEASURED = {"compile cold", "compile warm"}
"""Phases of which stored rows say themselves how long they took."""
SAMPLES: dict[Percentile, int] = {90: 29, 95: 59, 99: 299}
"""`archbench.stats.minimum_samples` of each percentile, without the import of numpy."""
TRUSTED_S = 60.0
"""Seconds of a run after which what it took so far weighs as much as the prediction."""

Seconds = dict[str, float]


class Prediction(Struct, frozen=True, kw_only=True):
    """The expected duration of a run."""

    phases: Seconds
    """Of all of `PHASES`, in that order."""
    visits: dict[CellVisit, float]
    """What each row takes; the first of a process bears the process, and of what a wave does at the same time each its
    share."""
    after: dict[CellVisit, float]
    """The seconds from the row before to each: the first of a wave bears what all of them do at the same time."""
    basis: str
    """Where the figures come from."""

    @property
    def total(self) -> float:
        """Seconds from the command's begin to its end."""
        return sum(self.phases.values())

    @property
    def in_words(self) -> str:
        """`about 70 s, by constants for 2 cores`."""
        seconds = self.total
        if seconds < 100:
            return f"about {max(10, round(seconds, -1)):.0f} s, by {self.basis}"
        many = f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
        return f"about {many}, by {self.basis}"


def predict(plan: Plan, suite: Suite, rates: Rates, room: Room | None = None) -> Prediction:
    """The duration of a run of `plan`, or of what is left of one, with the metrics and constants of `suite`.

    `room`: for groups that are prepared side by side; without any, none are.
    """
    model = _Model(suite, protocol_for(plan.device, suite.protocol), rates)
    phases: Seconds = dict.fromkeys(PHASES, 0.0)
    visits: dict[CellVisit, float] = {}
    after: dict[CellVisit, float] = defaultdict(float)
    for number, groups in enumerate(plan.rounds):
        if plan.short and number == 1:
            model.only_times()
        for wave, members in groupby(arranged(groups, room, suite.metrics), key=itemgetter(0)):
            expected = [
                (group, list(model.group(group, follows=wave > 0 and place > 0)))
                for place, (_, group) in enumerate(members)
            ]
            if wave:
                model.side_by_side(expected)
            first: dict[int, CellVisit] = {}
            for group, cells in expected:
                for place, (cell, seconds) in enumerate(cells):
                    visit = cell.cell_id, number, group.visit
                    visits[visit] = sum(seconds.values())
                    together = sum(seconds[phase] for phase in BESIDE) if wave else 0.0
                    after[visit] += visits[visit] - together
                    after[first.setdefault(place, visit)] += together
                    for phase, one in seconds.items():
                        phases[phase] += one
    fixed, each = rates.report
    if suite.metrics == STATIC:
        phases["start"] -= rates.start - rates.process
    phases["start"] += rates.start
    phases["report"] += fixed + each * len(visits)
    return Prediction(phases=phases, visits=visits, after=dict(after), basis=rates.basis)


def learned(rates: Rates, runs: Iterable[tuple[Suite, list[Record]]]) -> Rates:
    """The rates with what stored runs of the same hardware class say in place of constants.

    Step times and compilations of their cells are taken as they are. How far they lie from what the constants say, and
    the time spent on a cell from what the rules say, corrects everything else.
    """
    fit = ((suite, [row for row in rows if row.status == "ok" and row.duration_s]) for suite, rows in runs)
    measured = [(suite, found) for suite, found in fit if found]
    rows = [row for _, found in measured for row in found]
    if not rows:
        return rates
    known = msgspec.structs.replace(
        rates,
        steps=_medians((row.cell_id, row.latency_median_s) for row in rows),
        colds=_medians((row.cell_id, row.compile_cold_s or row.first_call_s) for row in rows),  # of compiled cells
        warms=_medians((row.cell_id, row.compile_warm_s) for row in rows),
    )
    speeds, paces = [], []
    for suite, found in measured:
        plan = make_plan(suite, kind_named(found[0].device).name)
        took = {
            (row.cell_id, row.round, row.visit): row.duration_s or 0.0
            for row in found
            if row.protocol_version == PROTOCOL_VERSION
            and not row.compile_neighbours  # who shared the cores took longer
        }
        expected = predict(plan, suite, known).visits
        paces += [duration / expected[visit] for visit, duration in took.items() if expected.get(visit)]
        guess = _Model(suite, protocol_for(plan.device, suite.protocol), rates)
        speeds += [known.steps[cell.cell_id] / guess.step_s(cell) for cell in plan.cells if cell.cell_id in known.steps]
    basis = f"{len(rows):,} stored rows of this hardware class"
    return msgspec.structs.replace(
        known, speed=median(speeds) if speeds else 1.0, pace=median(paces) if paces else 1.0, basis=basis
    )


def _medians(values: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """The median of each cell's values; of nothing but nulls nothing."""
    found: dict[str, list[float]] = defaultdict(list)
    for key, value in values:
        if value is not None:
            found[key].append(value)
    return {key: median(group) for key, group in found.items()}


class Countdown:
    """What is left of a run that begins at `now`: the prediction, corrected by how fast rows have come so far.

    By the clock between rows, not by what rows say of themselves: those of a wave have prepared at the same time.
    """

    def __init__(self, prediction: Prediction, now: float) -> None:
        self._left = dict(prediction.after)
        self._start_s, self._report_s = prediction.phases["start"], prediction.phases["report"]
        self._took = self._expected = TRUSTED_S
        self._now = now

    def finished(self, record: Record, now: float) -> None:
        """One row more."""
        passed, self._now = now - self._now, now
        expected = self._left.pop((record.cell_id, record.round, record.visit), None)
        if expected is not None and record.duration_s is not None:
            self._took += passed
            self._expected += expected + self._start_s
            self._start_s = 0.0

    @property
    def left_s(self) -> float:
        """Seconds from the latest row until the report is written."""
        return self._start_s + sum(self._left.values()) * self._took / self._expected + self._report_s

    @property
    def ends(self) -> float:
        """When it is written, by the clock of `now`."""
        return self._now + self.left_s


class _Model:
    """Seconds of groups and cells, one after the other: what one process found out the next one knows."""

    def __init__(self, suite: Suite, protocol: Protocol, rates: Rates) -> None:
        self._metrics = suite.metrics
        self._protocol = protocol
        self._rates = rates
        self._samples = max((SAMPLES[percent] for percent in suite.percentiles), default=0)
        self._found: set[str] = set()

    def only_times(self) -> None:
        """From here on groups are visited again, for their times alone."""
        self._metrics = tuple(metric for metric in self._metrics if metric in (*STATIC, *TIMED))
        self._protocol = times_only(self._protocol)
        self._samples = 0

    def group(self, group: Group, *, follows: bool) -> Iterator[tuple[Cell, Seconds]]:
        """The group's cells with their seconds by phase. It `follows` another of its wave on a device that is warm."""
        toggles: set[str] = set()
        for cell in group.cells:
            seconds: Seconds = defaultdict(float)
            if cell == group.cells[0]:
                self._process(group, seconds)
            if self._metrics == STATIC:
                yield cell, seconds
                continue
            first = cell == group.cells[0] and not follows
            self._cell(cell, seconds, first=first, alone=cell.group_id not in toggles)
            toggles.add(cell.group_id)
            for phase in seconds.keys() - MEASURED:
                seconds[phase] *= self._rates.pace
            yield cell, seconds

    def side_by_side(self, groups: Sequence[tuple[Group, list[tuple[Cell, Seconds]]]]) -> None:
        """Correct the seconds of groups whose processes are prepared at the same time: they share the cores.

        What one of them times of its first run, cuDNN's plans among it, it times alone.
        """
        rates, alone, busy, searches = self._rates, [], [], 0.0
        for group, cells in groups:
            compiling = sum(seconds["compile cold"] for _, seconds in cells)
            search = min(compiling, sum(self._search(cell) for cell in group.cells if not cell.is_eager))
            alone.append(sum(seconds[phase] for _, seconds in cells for phase in BESIDE) - search)
            busy.append(rates.compile_cores if compiling else 1.0)
            searches += search
        share = (shared_s(alone, busy, rates.cores) + searches) / (sum(alone) + searches)
        for _, cells in groups:
            for _, seconds in cells:
                seconds.update({phase: seconds[phase] * share for phase in BESIDE})

    def step_s(self, cell: Cell) -> float:
        """One step: as measured, or from arithmetic, traffic and launches."""
        rates = self._rates
        if cell.cell_id in rates.steps:
            return rates.steps[cell.cell_id]
        size = size_of(cell.network)
        fused = 1.0 if cell.is_eager else FUSED
        bytes_each = 4.0 if cell.precision in ("fp32", "tf32") else 2.0
        image_s = size.flops / rates.flops[cell.precision]
        image_s += size.activations * bytes_each * TRAFFIC / fused / rates.activation_bytes_per_s
        passes = TRAINING if cell.phase == "training" else 1.0
        launches_s = size.operators * rates.operator_s / fused
        if kind_named(cell.device).own_clock:  # launches and arithmetic overlap
            return rates.speed * passes * max(cell.batch_size * image_s, launches_s)
        return rates.speed * passes * (cell.batch_size * image_s + launches_s)

    def _process(self, group: Group, seconds: Seconds) -> None:
        rates, cell = self._rates, group.cells[0]
        size = size_of(cell.network)
        seconds["processes"] += rates.process
        if self._metrics != STATIC:
            seconds["build"] += rates.parameter * size.params + rates.operator_s * size.operators
        if "static" in self._metrics and self._is_new(cell.network.label):
            seconds["counts"] += rates.counts * size.operators
        wanted = self._metrics == STATIC or "memory" in self._metrics
        if wanted and cell.is_eager and self._is_new(group.group_id):
            steps = TRAINING if cell.phase == "training" else 1.0
            seconds["counts"] += rates.prediction * size.operators * steps

    def _is_new(self, what: str) -> bool:
        new = what not in self._found
        self._found.add(what)
        return new

    def _cell(self, cell: Cell, seconds: Seconds, *, first: bool, alone: bool) -> None:
        rates, metrics, operators = self._rates, self._metrics, size_of(cell.network).operators
        step = self.step_s(cell)
        training = cell.phase == "training"
        compiles = not cell.is_eager

        def by_line(fixed: float, each: float) -> float:
            return (fixed + each * operators) * (2.0 if training else 1.0)

        if compiles:
            by_inductor = cell.compile_mode != "off" or cell.runtime == "aot-inductor"
            line = rates.compile_cold if by_inductor else rates.convert_cold
            seconds["compile cold"] += rates.colds.get(cell.cell_id) or by_line(*line)
        else:
            seconds["cuDNN search"] += self._search(cell)
        seconds["warm-up"] += self._warm_up(step, first) + step
        if "latency" in metrics:
            seconds["latency"] += max(self._latency(step) - self._begun(step, first), 0.0) + rates.monitor
        queued = kind_named(cell.device).own_clock and step < self._protocol.burst_s  # else latency has timed it
        if "throughput" in metrics and ("latency" not in metrics or queued):
            seconds["throughput"] += self._throughput(step) + rates.monitor
        if "memory" in metrics:
            seconds["memory"] += rates.memory + 3 * step
        if "energy" in metrics and kind_named(cell.device).counts_energy:
            seconds["energy"] += self._protocol.energy_window_s
        if "numerics" in metrics and alone and not training and cell.toggles != PLAIN:  # else it is the reference
            seconds["numerics"] += self._judging(cell, step)
        if "profile" in metrics and not compiles:
            seconds["profile"] += rates.profile
        if compiles and "compile" in metrics and alone:
            again = rates.warms.get(cell.cell_id) or by_line(*rates.compile_warm)
            seconds["compile warm"] += again + rates.process + rates.parameter * size_of(cell.network).params
            if kind_named(cell.device).records_graphs and cell.compile_mode in ("reduce-overhead", "max-autotune"):
                seconds["profile"] += rates.graph_check

    def _search(self, cell: Cell) -> float:
        """cuDNN's search in a cell's first step."""
        plans = min(self._protocol.cudnn_benchmark_limit, PLANS)
        share = FIRST_PLAN + (1 - FIRST_PLAN) * plans / PLANS
        passes = TRAINING if cell.phase == "training" else 1.0
        prepared = self._rates.search * size_of(cell.network).operators * share * passes
        return prepared + plans * PLAN_RUNS * SEARCHED * self.step_s(cell) if prepared else 0.0

    def _warm_up(self, step: float, first: bool) -> float:
        protocol = self._protocol
        least = protocol.warmup_first_cell_s if first else protocol.warmup_later_cell_s
        return max(self._block(step) * protocol.warmup_level_blocks * step, protocol.warmup_min_calls * step, least)

    def _block(self, step: float) -> int:
        return max(2, min(self._protocol.warmup_block, int(self._protocol.warmup_block_s / step)))

    def _latency(self, step: float) -> float:
        protocol = self._protocol
        sample = step * max(1, math.ceil(protocol.sample_floor_s / step))
        slow = sample > protocol.slow_step_s
        samples = protocol.min_samples_slow if slow else max(protocol.min_samples, self._samples)
        return self._between(max(samples * sample, protocol.min_sampling_s), protocol.max_sampling_s)

    def _begun(self, step: float, first: bool) -> float:
        """Of the warm-up's last blocks, those that are samples: they begin after its least."""
        protocol, block_s = self._protocol, self._block(step) * step
        if block_s < WATCHED_S or step < protocol.sample_floor_s:
            return 0.0
        least = protocol.warmup_first_cell_s if first else protocol.warmup_later_cell_s
        before = max(math.ceil(least / block_s), math.ceil((protocol.warmup_min_calls - 1) / self._block(step)))
        return max(protocol.warmup_level_blocks - before, 0) * block_s

    def _throughput(self, step: float) -> float:
        protocol = self._protocol
        burst = step * max(protocol.min_burst_steps, math.ceil(protocol.burst_s / step))
        return self._between(max(protocol.min_bursts * burst, protocol.min_throughput_s), protocol.max_throughput_s)

    def _judging(self, cell: Cell, step: float) -> float:
        """The cell's steps on the images and the reference's, which are those of fp32."""
        steps = max(1, min(math.ceil(JUDGED_IMAGES / cell.batch_size), int(JUDGING_S / step)))
        reference = Cell(network=cell.network, batch_size=cell.batch_size, device=cell.device)
        return steps * (step + self.step_s(reference)) + 2 * step

    def _between(self, least: float, most: float) -> float:
        return least + self._rates.noise * max(most - least, 0.0)


def shared_s(alone: Sequence[float], busy: Sequence[float], cores: int) -> float:
    """How long jobs take that begin at once, by what each takes `alone` and how many cores it keeps `busy` then.

    Where they want more cores than there are, all go slower by the same factor.
    """
    took = done = 0.0
    wanted = sum(busy)
    for seconds, cores_each in sorted(zip(alone, busy, strict=True)):
        took += (seconds - done) * max(1.0, wanted / cores)
        done = seconds
        wanted -= cores_each
    return took
