"""What the cells of one group share: the device and its instruments, the built network, its counts."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import cached_property

import torch
from torch import Tensor, nn

from archbench.analyze.fresh import (
    COUNTING_S,
    PREDICTING_S,
    DiedError,
    FreshProcessError,
    FreshProcesses,
    call_apart,
)
from archbench.analyze.step import WHOLE_MODEL
from archbench.catalog import facts
from archbench.catalog.build import build, takes_of
from archbench.catalog.inputs import Batch, Takes
from archbench.catalog.roles import in_mode
from archbench.catalog.user_code import brings_weights
from archbench.catalog.weights import preprocessing, repeated_draws
from archbench.device.health import Probe
from archbench.device.kind import Clock, find_device, kind_of, open_probe
from archbench.measure.machine_speed import Canary, calibrate
from archbench.measure.metrics.correctness import drawn_images, make_comparable
from archbench.measure.metrics.footprint import resident_bytes
from archbench.measure.state import apply_state, default_threads, keep_freed_memory, threads_set
from archbench.model.axes import PLAIN, STATIC, Precision
from archbench.model.cell import Cell
from archbench.model.counts import Carried, Counts, MemoryModel
from archbench.model.environment import Calibration
from archbench.model.errors import UnfitError, UsageError
from archbench.model.messages import Task
from archbench.model.record import Facts

FEWEST_IMAGES = 8
"""That set BatchNorm's statistics, so that they know how images differ; one would leave 1 x 1 maps a single value."""


class GroupContext:
    """What one process measures with, made on first use, so that a failure lands in the cell that needed it."""

    def __init__(self, task: Task, calibrated: Callable[[Calibration], object] = lambda found: None) -> None:
        """`calibrated` is told the device's ceilings where the task asks for them, as soon as they are measured."""
        keep_freed_memory()
        self.task = task
        self._to_calibrate = calibrated if task.calibrate else None
        self._network = task.group.cells[0].network
        self.baseline_rss = resident_bytes()
        self._calibration = task.context.calibration
        self._rivals: tuple[int, ...] = ()
        self._memory: dict[str, MemoryModel | None] = {**task.carried.memory}
        self._own_code = self.facts.source == "user code"
        first = task.group.cells[0]
        wants = "compile" in task.metrics or (first.is_converted and "memory" in task.metrics)
        prepares_again = not first.is_eager and wants
        self.fresh = FreshProcesses() if prepares_again or self._own_code else None
        """Compiled cells are compiled again there, a user's network is counted; made before anything runs."""
        self._aside = self.fresh if self._own_code else None

    @cached_property
    def device(self) -> torch.device:
        """The device, made current."""
        device = find_device(self.task.context.environment)
        kind_of(device).use(device)
        return device

    def set_state(self, precision: Precision) -> None:
        """Set all process-wide state for a cell: those of one group may differ in precision."""
        threads = self.task.group.cells[0].threads or self._default_threads
        apply_state(precision, threads, self.task.seed, self.task.protocol.cudnn_benchmark_limit)

    @cached_property
    def clock(self) -> Clock:
        return kind_of(self.device).clock(self.device)

    @property
    def calibration(self) -> Calibration | None:
        """The device's ceilings, measured now if this process was asked to; `None` where nobody knows them."""
        told, self._to_calibrate = self._to_calibrate, None
        if told is not None:
            try:
                found = calibrate(self.device, self.clock, self._default_threads, self.task.protocol.soak_s)
                told(found)
                self._calibration = found
            except Exception as error:  # a small GPU, a broken clock: shares of the peak are null then, no more is lost
                print(f"calibration failed: {error}", file=sys.stderr)
        return self._calibration

    def time_canary(self) -> float:
        """Run the canary once and return its seconds: at the default threads, the same beside every cell of a run."""
        if self.task.group.cells[0].runtime != PLAIN.runtime:
            kind_of(self.device).settle()  # a runtime's own threads may spin on, and are no drift of the machine's
        with threads_set(self._default_threads):
            return self._canary.time()

    @property
    def _default_threads(self) -> int:
        return default_threads(self.task.context.environment.cpu_count)

    def put_canary_away(self) -> None:
        """Free the canary's memory, which is not the network's; it is made again when it is next needed."""
        self.__dict__.pop("_canary", None)

    @cached_property
    def _canary(self) -> Canary:
        return Canary(self.device, self.clock)

    @cached_property
    def probe(self) -> Probe:
        uuid = kind_of(self.device).uuid(self.device)
        return open_probe(self.task.context.environment.device, uuid=uuid, ours=self._rivals)

    def admit(self, rivals: tuple[int, ...]) -> None:
        """Processes that take turns with this one, and are no strangers to the probe, which is opened anew."""
        self._rivals = rivals
        self.__dict__.pop("probe", None)

    @cached_property
    def takes(self) -> Takes:
        """What the network takes."""
        asked = self.module if self._own_code and self.task.metrics != STATIC else None
        return takes_of(self._network, asked, allow_code=self.task.allow_code)

    @cached_property
    def facts(self) -> Facts:
        """The catalogue's; none of a network that this interpreter's libraries lack, which fails when it is built."""
        try:
            return facts(self._network)
        except UsageError:
            return Facts()

    @cached_property
    def counts(self) -> Counts:
        if self.task.carried.counts:
            return self.task.carried.counts
        from archbench.analyze.counts import count  # with triton, for which nobody's first figure should wait

        try:
            return call_apart(self._aside, COUNTING_S, count, self._network, allow_code=self.task.allow_code)
        except DiedError:  # here it dies, too, and whoever waits for this process tells how
            return count(self._network, allow_code=self.task.allow_code)
        except FreshProcessError as error:
            raise UsageError(f"{self._network.label}: cannot be counted: {error}") from error

    def memory_model(self, cell: Cell) -> MemoryModel | None:
        """Predicted memory at any batch size; `None` where the network's step cannot run without data."""
        if cell.group_id not in self._memory:
            from archbench.analyze.memory import predict_cell  # which counts, too

            self._memory[cell.group_id] = None
            with suppress(FreshProcessError, UnfitError):
                model = call_apart(self._aside, PREDICTING_S, predict_cell, cell, allow_code=self.task.allow_code)
                self._memory[cell.group_id] = model
        return self._memory[cell.group_id]

    def found(self) -> Carried:
        """What was found out here that the task did not know, for a later process."""
        told = self.task.carried
        return Carried(
            counts=None if told.counts else self.__dict__.get("counts"),
            memory={key: model for key, model in self._memory.items() if model is not None and key not in told.memory},
        )

    @cached_property
    def module(self) -> nn.Module:
        """The network on the device, weights drawn from the suite's seed; each cell's workload casts it in place."""
        return self.build()

    def build(self) -> nn.Module:
        """Build the network in fp32: with the same weights each time, so that a reference need not be kept."""
        device = self.device
        torch.manual_seed(self.task.seed)
        with nullcontext() if self._own_code else repeated_draws(self.task.seed):
            module = build(self._network, allow_code=self.task.allow_code).to(device)
        if self.judges_numerics and not self.has_weights:
            # cuDNN looks a shape up among its plans before it heeds the switch for its search: what ran without a
            # search keeps the plan that was guessed. So no cell may have this batch size.
            timed = {cell.batch_size for cell in self.task.group.cells}
            images = next(n for n in itertools.count(FEWEST_IMAGES) if n not in timed)
            make_comparable(module, self._drawn(images, self.task.seed, module).map(lambda one: one.to(device)))
        return module

    @property
    def has_weights(self) -> bool:
        """Whether the network's weights are trained ones, as far as one knows."""
        return self._network.weights is not None or brings_weights(self._network.name)

    def batches(self, images: int, cell: Cell, seed: int) -> list[Batch]:
        """Whole batches of a cell with at least so many images, drawn from a seed, in its types and on its device."""
        count, dtype = -(-images // cell.batch_size), WHOLE_MODEL.get(cell.precision)

        def placed(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, dtype or tensor.dtype if tensor.is_floating_point() else tensor.dtype)

        if self.takes.image is None:
            several = [self._drawn(cell.batch_size, seed + number, self.module) for number in range(count)]
            return [batch.map(placed) for batch in several]
        (drawn,) = self._drawn(count * cell.batch_size, seed, self.module).map(placed).tensors
        return [Batch((part,)) for part in torch.split(drawn, cell.batch_size)]

    def _drawn(self, images: int, seed: int, module: nn.Module) -> Batch:
        given = takes_of(self._network, module, allow_code=self.task.allow_code)
        if given.image is not None and given.example is None:
            return Batch((drawn_images(given.image, images, seed, preprocessing(self._network)),))
        return given.drawn(images, None, torch.Generator().manual_seed(seed))

    @property
    def judges_numerics(self) -> bool:
        return "numerics" in self.task.metrics and self.task.group.cells[0].phase == "inference"

    def reference(self, precision: Precision) -> nn.Module:
        """The network's weights in fp32 and eager, beside a module that was cast and formatted for `precision`."""
        if precision in WHOLE_MODEL:  # cast to half the bits: the weights have to be drawn again
            return in_mode(self.build(), training=False)
        return copy.deepcopy(self.module).to(memory_format=torch.contiguous_format)
