"""Where the memory of one step goes: a real step is watched, and every byte that its allocator held is accounted for.

On the CPU the totals are the allocator's own, from the profiler's memory events; on CUDA its peak around each operator.
What tensors account for is told apart by category; what the allocator held beyond them is workspace of the operator
that ran. So the categories add up to the measured bytes. Watching could only change them by changing the step:
`MemoryTimeline.measured_peak_bytes`, of a step that nobody watched, shows whether it did.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct, structs
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.autograd.graph import saved_tensors_hooks
from torch.autograd.profiler import record_function
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from archbench.analyze.memory import MEMORY, measured_peak, memory_events
from archbench.device.cuda import CudaAllocator
from archbench.device.kind import kind_of
from archbench.measure.workload import Workload
from archbench.model.errors import UnfitError
from archbench.model.profile import (
    CATEGORIES,
    MemoryCategory,
    MemoryHolder,
    MemoryPoint,
    MemoryTimeline,
    SavedBytes,
    StageMemory,
    StepSection,
)
from archbench.profiler.boundaries import OPTIMIZER, PARTS, Boundaries, observe
from archbench.profiler.rows import stage_of

MOST_POINTS = 400
"""As many as a chart can show."""
MOST_HOLDERS = 40
"""Allocations that are named one by one."""
COMPILED = (
    "A compiled step does not say what its memory is for: beside weights, optimizer state and inputs all of it is "
    "unattributed. Profile it with compile mode off for the categories."
)


def memory_timeline(
    workload: Workload, stages: Sequence[str] = (), predicted_peak_bytes: int | None = None
) -> MemoryTimeline:
    """Account for the memory of one step of `workload`, which must have done a step before.

    `stages` are the paths of the network's stages, in order. Does three steps. Raises what the step raises:
    `torch.OutOfMemoryError`, or the CPU's RuntimeError, where there is no room.
    """
    boundaries = Boundaries(workload.module, lambda: None)
    log = StorageLog(workload.module, workload.device, boundaries)
    log.hold([*workload.module.named_parameters(), *workload.module.named_buffers()], "weights")
    log.hold(workload.optimizer_state(), "optimizer")
    log.hold(workload.ready(), "inputs")
    standing = sum(block.bytes for block in log.blocks)
    measured = _measured_peak(workload, standing)
    if workload.cell.compile_mode == "off":
        points = _points(log, _watch(log, boundaries, workload, standing))
    else:
        points = _unattributed(log, workload)
    peak = max(range(len(points)), key=lambda number: points[number].total)
    alive = [block for block in log.blocks if block.born <= peak and (block.died is None or block.died > peak)]
    saved = [block for block in log.blocks if block.category == "activations"]
    return MemoryTimeline(
        points=_thinned(_changes(points)),
        operators=len(points),
        measured_peak_bytes=measured,
        predicted_peak_bytes=predicted_peak_bytes,
        holders=_holders(alive, stages),
        saved_bytes=sum(block.bytes for block in saved),
        saved_by_operator=_by_operator(saved),
        stages=_by_stage(saved, alive, stages),
        note="" if workload.cell.compile_mode == "off" else COMPILED,
    )


def _measured_peak(workload: Workload, standing: int) -> int:
    """Peak bytes of a step that nobody watches. CPU: above `standing`, the bytes alive before it."""
    allocator = _allocator(workload)
    if allocator is None:
        return measured_peak(workload.step, standing)
    kind = kind_of(workload.device)
    kind.synchronize(workload.device)
    allocator.reset_peaks()
    workload.step()
    kind.synchronize(workload.device)
    return allocator.peak_allocated()


def _allocator(workload: Workload) -> CudaAllocator | None:
    return kind_of(workload.device).allocator(workload.device)


def _watch(log: StorageLog, boundaries: Boundaries[Any], workload: Workload, standing: int) -> list[int]:
    """Do a step under the eyes of `log`; return the most bytes that the allocator held during each operator.

    Follows `_measured_peak`, whose steps have shown the CPU's allocator whatever this one will free.
    """

    def step() -> None:
        with log.watching():
            observe(workload, boundaries)

    if _allocator(workload) is not None:
        step()
        return [operator.inside or 0 for operator in log.operators]
    live = standing
    levels: list[int] = []
    ends_ns = 0
    for event in memory_events(step):
        name = event.name()
        if name.startswith(MARK):
            levels.append(live)
            ends_ns = event.end_ns()
        elif name == MEMORY:
            live += event.nbytes()
            if levels and event.start_ns() <= ends_ns:
                levels[-1] = max(levels[-1], live)
    return levels


def _points(log: StorageLog, levels: Sequence[int]) -> list[MemoryPoint]:
    """One point for each operator: what tensors account for, and the rest of the allocator's level as workspace."""
    changes: dict[int, Counter[str]] = defaultdict(Counter)
    for block in log.blocks:
        changes[max(block.born, 0)][block.category] += block.bytes
        if block.died is not None:
            changes[block.died][block.category] -= block.bytes
    held: Counter[str] = Counter(dict.fromkeys(CATEGORIES, 0))
    points = []
    for number, (operator, level) in enumerate(zip(log.operators, levels, strict=True)):
        for category, change in changes[number].items():
            held[category] += change
        held["workspace"] = 0
        held["workspace"] = max(level - held.total(), 0)
        points.append(MemoryPoint(section=operator.section, module=operator.module, operator=operator.name, **held))
    return points


def _changes(points: Sequence[MemoryPoint]) -> list[MemoryPoint]:
    """Those that differ from the one before in more than the operator's name: an optimizer's hundreds do not."""
    before = [None, *points]
    return [
        point
        for point, last in zip(points, before, strict=False)
        if last is None or (point.section, point.by_category) != (last.section, last.by_category)
    ]


def _unattributed(log: StorageLog, workload: Workload) -> list[MemoryPoint]:
    """The same of a compiled step, from its allocator alone, a point for each allocation."""
    held: Counter[str] = Counter(dict.fromkeys(CATEGORIES, 0))
    for block in log.blocks:
        held[block.category] += block.bytes
    start = MemoryPoint(section="compiled", module="", operator="", **held)
    if _allocator(workload) is not None:
        extra = [_measured_peak(workload, 0) - start.total]
    else:
        extra = list(accumulate(e.nbytes() for e in memory_events(workload.step) if e.name() == MEMORY))
    return [start, *(structs.replace(start, unattributed=max(more, 0)) for more in extra)]


def _thinned(points: Sequence[MemoryPoint]) -> tuple[MemoryPoint, ...]:
    """The largest of each stretch, the peak among them."""
    stretch = -(-len(points) // MOST_POINTS)
    starts = range(0, len(points), stretch)
    return tuple(max(points[start : start + stretch], key=lambda point: point.total) for start in starts)


def _holders(alive: Sequence[Block], stages: Sequence[str]) -> tuple[MemoryHolder, ...]:
    largest = sorted(alive, key=lambda block: -block.bytes)[:MOST_HOLDERS]
    return tuple(
        MemoryHolder(
            category=block.category,
            path=block.path,
            stage=stage_of(block.path, stages),
            operator=block.operator,
            shape=block.shape,
            dtype=block.dtype,
            bytes=block.bytes,
        )
        for block in largest
    )


def _by_operator(saved: Sequence[Block]) -> tuple[SavedBytes, ...]:
    kinds: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
    for block in saved:
        kinds[block.operator, tuple(sorted(block.needed_by))].append(block.bytes)
    found = [
        SavedBytes(made_by=made_by, needed_by=needed_by, tensors=len(sizes), bytes=sum(sizes))
        for (made_by, needed_by), sizes in kinds.items()
    ]
    return tuple(sorted(found, key=lambda kind: -kind.bytes))


def _by_stage(saved: Sequence[Block], alive: Sequence[Block], stages: Sequence[str]) -> tuple[StageMemory, ...]:
    kept: Counter[str] = Counter()
    standing: Counter[str] = Counter()
    for block in saved:
        kept[stage_of(block.path, stages)] += block.bytes
    for block in alive:
        standing[stage_of(block.path, stages)] += block.bytes
    return tuple(
        StageMemory(stage=stage, saved_bytes=kept[stage], peak_bytes=standing[stage])
        for stage in (*stages, "")
        if kept[stage] or standing[stage]
    )


def write_snapshot(workload: Workload, path: Path) -> None:
    """Do one step and write CUDA's memory snapshot of it, which https://pytorch.org/memory_viz shows.

    Raises `UnfitError` on other devices, and where `path` cannot be written.
    """
    allocator = _allocator(workload)
    if allocator is None:
        raise UnfitError("a memory snapshot is CUDA's; the memory timeline says the same of the CPU")
    snapshot = allocator.snapshot(workload.step)
    try:
        path.write_bytes(pickle.dumps(snapshot))
    except OSError as error:
        raise UnfitError(f"cannot write the memory snapshot {path}: {error.strerror}; give another place") from error


_CONVOLUTIONS = re.compile(r"^conv(olution|[123]d)(?=$|_backward)")
MARK = "archbench operator "
"""Begins the name of the profiler's range around each operator; its number follows."""


class Block(Struct, kw_only=True, eq=False):
    """One storage: a line of the log."""

    category: MemoryCategory
    path: str
    operator: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    born: int
    """Number of the operator that made it; -1 for what stood before."""
    died: int | None = None
    """Number of the first operator that runs without it; `None` if it outlives the step."""
    needed_by: dict[str, None] = {}
    """Functions whose backward pass needs it, in the order in which they said so."""
    storage: weakref.ref[torch.UntypedStorage] | None = None


class Operator(Struct):
    """One operator that ran in the step, with where in the network that was."""

    name: str
    section: StepSection
    module: str
    inside: int | None = None
    """Peak of the device's allocated bytes while it ran, where the allocator tells it at once (CUDA)."""


class StorageLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records blocks and operators while a step that tells `boundaries` of its parts runs inside `watching`.

    Real storages are followed by weak references, so that autograd's and Python's own references decide when one dies.
    Not for compiled steps: a dispatch mode makes torch run them eagerly, in silence.
    """

    def __init__(self, module: nn.Module, device: torch.device, boundaries: Boundaries[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.blocks: list[Block] = []
        self.operators: list[Operator] = []
        self._module = module
        self._device = device
        self._allocator = kind_of(device).allocator(device)
        self._alive: dict[int, Block] = {}
        self._boundaries = boundaries
        self._functions = _Functions()  # type: ignore[no-untyped-call]

    def hold(self, tensors: Iterable[tuple[str, Tensor]], category: MemoryCategory) -> None:
        """Enter named tensors that stand before the step begins; what was entered before keeps its category."""
        for name, tensor in tensors:
            self._enter(tensor, category, name, "", born=-1)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Follow modules, functions, saved tensors and gradients too; the step runs inside."""
        with contextlib.ExitStack() as stack:
            for parameter in self._module.parameters():
                if parameter.requires_grad:
                    stack.enter_context(parameter.register_post_accumulate_grad_hook(self._have_gradient))  # type: ignore[no-untyped-call]
            stack.enter_context(self._boundaries)
            if self._module.training:
                stack.enter_context(self._functions)
                stack.enter_context(saved_tensors_hooks(self._pack, lambda tensor: tensor))
            stack.enter_context(self)
            yield

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (
            isinstance(func, HigherOrderOperator) or func.is_view or func.namespace == "profiler"
        ):  # an optimizer's marks
            return func(*args, **(kwargs or {}))
        number = len(self.operators)
        owner = self._boundaries.owner
        section: StepSection = "update" if owner.path == OPTIMIZER else "backward" if owner.backward else "forward"
        module = "" if owner.path in PARTS else owner.path
        operator = Operator(plain_name(func.overloadpacket.__name__), section, module)
        self.operators.append(operator)
        if self._allocator is not None:
            self._allocator.reset_peaks()
        with record_function(f"{MARK}{number}"):
            out = func(*args, **(kwargs or {}))
        if self._allocator is not None:
            operator.inside = self._allocator.peak_allocated()
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self._enter(tensor, "temporaries", operator.module, operator.name, born=number)
        return out

    def _enter(self, tensor: Tensor, category: MemoryCategory, path: str, operator: str, *, born: int) -> None:
        if tensor.device.type != self._device.type or tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        block = Block(
            category=category,
            path=path,
            operator=operator,
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            bytes=storage.nbytes(),
            born=born,
        )
        self.blocks.append(block)
        self._alive[key] = block

        def gone(_: object) -> None:
            block.died = len(self.operators)
            del self._alive[key]

        block.storage = weakref.ref(storage, gone)

    def _block(self, tensor: Tensor) -> Block | None:
        return self._alive.get(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else None

    def _pack(self, tensor: Tensor) -> Tensor:
        block = self._block(tensor)
        if block is not None and block.category in ("temporaries", "activations"):
            block.category = "activations"
            block.needed_by[plain_name(self._functions.name) or "autograd"] = None
        # Detached, or a node that saves its own output would hold itself alive.
        return tensor if tensor.is_leaf else tensor.detach()

    def _have_gradient(self, parameter: Tensor) -> None:
        block = self._block(parameter.grad) if parameter.grad is not None else None
        if block is not None and block.category == "temporaries":
            block.category = "gradients"


class _Functions(TorchFunctionMode):
    """Tells which of torch's functions is being called: the one that saves tensors meanwhile.

    Dispatched operators cannot tell: an operand is saved before its operator arrives, a result after it.
    """

    name = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.name = getattr(func, "__name__", "")
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.name = ""


def plain_name(name: str) -> str:
    """An operator's name as its users know it: one for a convolution's several, none of a library's."""
    for prefix in ("native_", "cudnn_", "miopen_", "mkldnn_"):
        name = name.strip("_").removeprefix(prefix)
    return _CONVOLUTIONS.sub("conv", name.removesuffix("_with_indices"))
