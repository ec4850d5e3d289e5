"""Follows a step from module to module: at every moment it is known for which of them the work is done.

Forward, hooks stand at both ends of every module's call. Backward, full backward hooks are of no use: they put a view
between a module and its neighbour, which an in-place ReLU must not write to. Instead the graph is asked: every node
carries a sequence number, dealt out in the order in which the forward pass made the nodes, so that the number tells in
which module's call it was made. The engine takes ready nodes by descending number, which is a valid order, so the
backward pass visits them exactly so; a pre-hook on the first node of each run of one module's nodes marks the change.

And counts and times a step by module, and what watching it costs: plain and observed steps take turns.
"""

from __future__ import annotations

import statistics
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from itertools import pairwise
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

import torch
from msgspec import Struct
from torch import Tensor, nn

from archbench.analyze.counts import decomposed_attention, device_of, evaluating, on_module
from archbench.analyze.forward_trace import ForwardTrace, StageRecorder
from archbench.analyze.step import settled, shape_of
from archbench.catalog.build import takes_of
from archbench.catalog.inputs import Takes
from archbench.device.kind import Clock, kind_of
from archbench.measure.workload import Workload
from archbench.model.cell import Network
from archbench.model.counts import Stage

LOSS, OPTIMIZER, OTHER, OBSERVING = "(loss)", "(optimizer)", "(other)", "(observing)"
"""Owners of the work that is no module's. `OBSERVING` is our own: finding the graph's nodes."""
PARTS = (LOSS, OPTIMIZER, OTHER)

R = TypeVar("R")


class Owner(NamedTuple):
    """For whom the work is done: a module by its path, or one of the names above."""

    path: str
    backward: bool


class Mark(NamedTuple, Generic[R]):
    """From here on the work is `owner`'s, until the next mark."""

    owner: Owner
    reading: R


class Boundaries(Generic[R]):
    """A context manager: within it, `marks` grows by one mark at each change of owner.

    `read` is asked at every mark: a clock, or a running count of anything. `ranges` gives a context for each module's
    forward call (`record_function`), for traces. One instance follows one step after the other; `start` begins each.
    """

    def __init__(
        self,
        module: nn.Module,
        read: Callable[[], R],
        ranges: Callable[[str], AbstractContextManager[Any]] | None = None,
    ) -> None:
        self.marks: list[Mark[R]] = []
        self.calls: dict[str, int] = defaultdict(int)
        """Forward calls of each path since `start`."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kinds: dict[str, str] = {}
        self._module = module
        self._read = read
        self._ranges = ranges
        self._paths: dict[int, list[str]] = defaultdict(list)
        for path, inner in module.named_modules(remove_duplicate=False):
            self._paths[id(inner)].append(path)
        self._known: dict[tuple[int, str], str] = {}
        self._hooks = ExitStack()
        self._made: list[tuple[int, Owner]] = []
        self.start()

    @property
    def owner(self) -> Owner:
        """For whom the work is done right now."""
        return self._stack[-1]

    def __enter__(self) -> Self:
        for module in self._module.modules():
            self._hooks.enter_context(module.register_forward_pre_hook(self._enter))
            self._hooks.enter_context(module.register_forward_hook(self._leave))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._hooks.close()

    def start(self, afterwards: str = OTHER) -> None:
        """Forget the last step; the work belongs to nobody in particular until a module is entered.

        `afterwards` is who works once the network's own call has returned: `LOSS` in training.
        """
        self._afterwards = Owner(afterwards, backward=False)
        self.marks = []
        self.calls.clear()
        self._made = []
        self._open: list[AbstractContextManager[Any]] = []
        self._stack: list[Owner] = [Owner(OTHER, backward=False)]
        self._mark(self._stack[0])

    def hand_over(self, part: str, *, backward: bool = False) -> None:
        """From here on the work is that of `part`, one of the names above."""
        self._stack = [Owner(part, backward)]
        self._mark(self._stack[0])

    def end(self) -> None:
        self._mark(Owner(OTHER, backward=False))

    def follow_backward(self, loss: Tensor) -> None:
        """Hook the graph under `loss`, before its backward pass."""
        self.hand_over(OBSERVING)
        before: Owner | None = None
        for number, node in sorted(_nodes(loss), key=lambda pair: pair[0], reverse=True):
            owner = self._maker_of(number)
            if owner != before:
                node.register_prehook(partial(self._visit, owner))
            before = owner
        self.hand_over(LOSS, backward=True)

    def _visit(self, owner: Owner, _gradients: Any) -> None:
        self._stack = [owner]
        self._mark(owner)

    def _maker_of(self, number: int) -> Owner:
        """In whose forward call the node with this sequence number was made; the loss where it was nobody's."""
        place = bisect_right(self._made, number, key=lambda made: made[0]) - 1
        maker = self._made[place][1].path if place >= 0 else OTHER
        return Owner(LOSS if maker == OTHER else maker, backward=True)

    def _enter(self, module: nn.Module, _inputs: Any) -> None:
        under = self._stack[-1]
        path = self._path_of(module, under.path)
        owner = Owner(path, under.backward)  # forward inside the backward pass: a checkpoint that is computed again
        self._stack.append(owner)
        self.calls[path] += 1
        self.kinds[path] = type(module).__name__
        if self._ranges is not None:
            self._open.append(self._ranges(path))
            self._open[-1].__enter__()
        self._mark(owner)

    def _path_of(self, module: nn.Module, caller: str) -> str:
        """Under its caller where it is registered there, else where it was first."""
        key = (id(module), caller)
        if key not in self._known:
            paths = self._paths.get(id(module)) or [caller]
            inside = (path for path in paths if not caller or path.startswith(f"{caller}."))
            self._known[key] = next(inside, paths[0])
        return self._known[key]

    def _leave(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        left = self._stack.pop()
        if not left.path:
            self._stack = [self._afterwards]
        if self._open:
            self._open.pop().__exit__(None, None, None)
        if left.path not in self.shapes and (shape := shape_of(output)) is not None:
            self.shapes[left.path] = shape
        self._mark(self._stack[-1])

    def _mark(self, owner: Owner) -> None:
        self.marks.append(Mark(owner, self._read()))
        if not owner.backward:
            self._made.append((torch.autograd._get_sequence_nr(), owner))  # type: ignore[attr-defined]


def between(marks: Iterable[Mark[R]], difference: Callable[[R, R], float]) -> dict[Owner, float]:
    """What each owner had of whatever `read` reads: the differences from its marks to those that follow."""
    had: dict[Owner, float] = defaultdict(float)
    for mark, following in pairwise(marks):
        had[mark.owner] += difference(mark.reading, following.reading)
    return dict(had)


def _nodes(loss: Tensor) -> Iterable[tuple[int, Any]]:
    """Sequence numbers and nodes of the graph, without those that only hand a gradient to its weight."""
    first = loss.grad_fn
    waiting: list[Any] = [first] if first is not None else []
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name() != "torch::autograd::AccumulateGrad":
            yield node._sequence_nr(), node
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                waiting.append(below)


class ModuleCounts(Struct, frozen=True, kw_only=True):
    """Per image, of one forward pass in evaluation mode."""

    macs: int
    own_macs: Counter[str]
    """By path, without the modules inside; adds up to `macs`."""
    stages: tuple[Stage, ...]
    paths: tuple[str, ...]
    """Of every module that ran, and of those that hold one."""
    whole: bool
    """No operator with products was left out; else `macs` is a lower bound."""


def count_by_module(network: Network, *, allow_code: bool = False) -> ModuleCounts:
    """Count without data; where the network's forward looks at values, with data.

    Raises whatever the network's own code raises on real tensors.
    """
    given = takes_of(network, allow_code=allow_code)
    return on_module(network, lambda module: _count(module, given), allow_code=allow_code)


def _count(module: nn.Module, given: Takes) -> ModuleCounts:
    device = device_of(module)
    batch = given.blank(1, device)
    trace = ForwardTrace(module, batch.tensors)
    boundaries = Boundaries(module, lambda: trace.macs)
    recorder = StageRecorder(module, lambda: trace.macs)
    with evaluating(module), decomposed_attention(), torch.inference_mode(), device, recorder, boundaries, trace:
        settled(batch(module))
    boundaries.end()
    had = between(boundaries.marks, lambda before, after: after - before)
    own = Counter({owner.path: int(count) for owner, count in had.items() if count})
    ran = [owner.path.split(".") for owner in had]
    paths = dict.fromkeys(".".join(path[: depth + 1]) for path in ran for depth in range(len(path)))
    return ModuleCounts(
        macs=trace.macs, own_macs=own, stages=recorder.stages(), paths=tuple(paths), whole=trace.is_whole
    )


LEAST_PAIRS = 5
LEAST_SLOW_PAIRS = 3
SLOW_S = 1.0
"""A step from which three pairs must do: a training step of a transformer takes 15 s on one core."""
MOST_PAIRS = 40


class StepTimes(Struct, frozen=True, kw_only=True):
    """Means over the faster half of the steps: they add up as medians do not, and what disturbs a step slows it."""

    plain_s: float
    """On the host's clock, waited for: events on an idle stream would contain the same gaps between launches."""
    observed_s: float
    """Without the time that looking for the graph's nodes takes, which stands between forward and backward."""
    observing_cost: float
    """Whole observed step over plain step, less 1."""
    steps: int
    by_owner: dict[Owner, float]
    calls: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, str]


def time_by_module(workload: Workload, clock: Clock, timing_s: float) -> StepTimes:
    """Time the eager step of a warmed-up `workload` for `timing_s`, or longer for the fewest pairs."""
    stopwatch = kind_of(workload.device).stopwatch()
    observed: list[dict[Owner, float]] = []
    boundaries = Boundaries(workload.module, stopwatch.read)

    def watch() -> None:
        with boundaries:
            clock.synchronize()
            observe(workload, boundaries)
            clock.synchronize()
        observed.append(between(boundaries.marks, stopwatch.seconds))
        stopwatch.restart()

    plain_s = time_plain(workload, clock, timing_s, watch)
    fast = sorted(observed, key=lambda step: sum(step.values()))[: (len(observed) + 1) // 2]
    by_owner: dict[Owner, float] = defaultdict(float)
    for step in fast:
        for owner, seconds in step.items():
            by_owner[owner] += seconds / len(fast)
    whole_s = sum(by_owner.values())
    own_work_s = sum(by_owner.pop(owner) for owner in list(by_owner) if owner.path == OBSERVING)
    return StepTimes(
        plain_s=plain_s,
        observed_s=whole_s - own_work_s,
        observing_cost=whole_s / plain_s - 1.0,
        steps=len(fast),
        by_owner=dict(by_owner),
        calls=dict(boundaries.calls),
        shapes=dict(boundaries.shapes),
        kinds=dict(boundaries.kinds),
    )


def time_plain(
    workload: Workload, clock: Clock, timing_s: float, between_steps: Callable[[], object] = lambda: None
) -> float:
    """Seconds of one step, as `StepTimes.plain_s`; of a workload that has been called."""
    plain: list[float] = []
    begin = time.perf_counter()
    while True:
        pairs, spent_s = len(plain), time.perf_counter() - begin
        slow = pairs >= LEAST_SLOW_PAIRS and spent_s > 2 * SLOW_S * pairs
        enough = pairs >= MOST_PAIRS or spent_s >= timing_s
        if enough and (pairs >= LEAST_PAIRS or slow):
            return statistics.fmean(sorted(plain)[: (len(plain) + 1) // 2])
        plain.append(clock.latency(workload.step).host_s)
        between_steps()


def observe(workload: Workload, boundaries: Boundaries[Any]) -> None:
    """Do one step and tell `boundaries` of its parts; the same work as `workload.step`."""
    if workload.cell.phase == "inference":
        boundaries.start()
        workload.step()
    else:
        boundaries.start(afterwards=LOSS)
        loss = workload.loss()
        boundaries.follow_backward(loss)
        workload.backward(loss)
        boundaries.hand_over(OPTIMIZER)
        workload.update()
    boundaries.end()
