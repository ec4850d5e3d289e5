"""Puts what was timed, counted and moved for each module into rows that add up; of a suite's cell, those of stages.

And follows what the operators of one real step move: bytes read and written, FLOP, memory kept for backward. A pass of
its own: a dispatch mode costs microseconds an operator, so nothing is timed under it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from archbench.analyze.operators import formula_of
from archbench.analyze.step import settled
from archbench.device.kind import Clock
from archbench.measure.state import step_contexts
from archbench.measure.workload import Workload
from archbench.model.axes import Precision
from archbench.model.environment import Calibration
from archbench.model.profile import Bound, ModuleProfile, StageProfile, StepPart
from archbench.profiler.boundaries import (
    PARTS,
    Boundaries,
    ModuleCounts,
    Owner,
    StepTimes,
    count_by_module,
    observe,
    time_by_module,
)

TIMING_S = 2.0
"""Of a suite's cell: stages are told to a per cent or two, and a suite has hundreds of cells."""
_ATEN = torch.ops.aten
_SAME_FORMULA = {
    # torch's counter knows CUDA's fused attention alone; the CPU's takes the same operands in the same order.
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _ATEN._scaled_dot_product_flash_attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _ATEN._scaled_dot_product_flash_attention_backward,
}
_MAKERS = ("empty", "new_empty")
"""Operators that take memory and write nothing."""


Call = tuple[str, tuple[tuple[int, ...], ...]]
"""An operator at given shapes of its tensor operands, as the profiler spells them."""


class Work(Struct):
    """FLOP and bytes of something."""

    flops: int = 0
    bytes_moved: int = 0


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tallies by owner while it is active. Bytes as if no cache held anything from one operator to the next."""

    def __init__(self, boundaries: Boundaries[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_owner: dict[Owner, Work] = defaultdict(Work)
        self.by_call: dict[Call, Work] = defaultdict(Work)
        """Of one call."""
        self.written: Counter[Owner] = Counter()
        """Bytes of new memory."""
        self.saved: Counter[str] = Counter()
        """Bytes kept for the backward pass, by the module that keeps them first."""
        self._boundaries = boundaries
        self._kept: set[int] = set()

    def work_of(self, path: str) -> Work:
        """All that was done for a module or a part of the step, forward and backward."""
        ahead, back = (self.by_owner.get(Owner(path, backward), Work()) for backward in (False, True))
        return Work(ahead.flops + back.flops, ahead.bytes_moved + back.bytes_moved)

    @contextmanager
    def watching(self, standing: list[Tensor]) -> Iterator[None]:
        """Tally, and follow what autograd keeps that is none of `standing`: weights and inputs are there anyway."""
        self._kept = {tensor.untyped_storage().data_ptr() for tensor in standing}
        with ExitStack() as stack:
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor))
            stack.enter_context(self)
            yield

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if isinstance(func, HigherOrderOperator) or func.is_view:
            return out
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        read, written = _moved(func, args, kwargs, inputs, out)
        owner = self._boundaries.owner
        flops = _flops(func, args, kwargs, out)
        work = self.by_owner[owner]
        work.flops += flops
        work.bytes_moved += read + written
        self.written[owner] += written
        shapes = tuple(tuple(tensor.shape) for tensor in inputs)
        self.by_call[func.overloadpacket.__name__, shapes] = Work(flops, read + written)
        return out

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._kept:
            self._kept.add(storage.data_ptr())
            self.saved[self._boundaries.owner.path] += storage.nbytes()
        return tensor


def watch_traffic(workload: Workload) -> Traffic:
    """Do one eager step and follow what it moves.

    At inference without inference mode, in which operators arrive whole.
    """
    boundaries = Boundaries(workload.module, lambda: None)
    traffic = Traffic(boundaries)
    standing = [*workload.module.parameters(), *workload.module.buffers(), *workload.input_tensors]
    with boundaries, traffic.watching(standing):
        if workload.cell.phase == "training":
            observe(workload, boundaries)
        else:
            with step_contexts(workload.device, "training", workload.cell.precision)(), torch.no_grad():
                settled(workload.inputs[0](workload.module))
    return traffic


def _moved(func: OpOverload, args: Any, kwargs: Any, inputs: list[Tensor], out: Any) -> tuple[int, int]:
    """Bytes that the operator reads, and bytes that it writes; both 0 where it returns what it was given."""
    name = func.overloadpacket.__name__
    if name.startswith(_MAKERS):
        return 0, 0
    outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    held = {tensor.untyped_storage()._cdata for tensor in inputs}
    new = [tensor for tensor in outputs if tensor.untyped_storage()._cdata not in held]
    changed = _changed(func, args, kwargs) if func._schema.is_mutable else []
    written = sum(map(_bytes, [*new, *changed]))
    return (sum(map(_bytes, inputs)), written) if written else (0, 0)


def _changed(func: OpOverload, args: Any, kwargs: Any) -> list[Tensor]:
    """The operands that an in-place operator writes to, by its schema."""
    named = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    written = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [leaf for name in written for leaf in tree_leaves(named.get(name)) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    """Of its elements; of what is behind it where an `expand` repeats that."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _flops(func: OpOverload, args: Any, kwargs: Any, out: Any) -> int:
    packet = func.overloadpacket
    if packet == _ATEN.convolution_backward:
        return _convolution_backward_flops(*args)
    formula = flop_registry.get(_SAME_FORMULA.get(packet, packet))
    if formula is not None:
        return int(formula(*args, **kwargs, out_val=out))
    own = formula_of(str(packet), args)
    return 0 if own is None else 2 * own(args, out)


def _convolution_backward_flops(gradient: Tensor, image: Tensor, weight: Tensor, *rest: Any) -> int:
    """FLOP of a convolution's backward pass: each gradient asked for, of input and of weight, is one forward pass.

    Every weight meets every point of the smaller side, once for each image: batch x points x elements of the weight,
    which holds with groups, strides and transposed. torch 2.11 to 2.15 leaves the groups out of the weight's gradient.
    """
    transposed, wanted = rest[4], rest[-1]
    points = (image if transposed else gradient).shape[2:].numel()
    return 2 * image.shape[0] * points * weight.numel() * sum(map(bool, wanted[:2]))


class Ceilings(Struct, frozen=True, kw_only=True):
    """Measured: FLOP/s of a product at the cell's arithmetic, bytes per second of a copy."""

    flops: float
    bandwidth: float

    @classmethod
    def of(cls, calibration: Calibration, precision: Precision) -> Ceilings | None:
        """Those of an arithmetic; `None` where it was not calibrated on this device."""
        peak = calibration.peak(precision)
        return None if peak is None else cls(flops=peak, bandwidth=calibration.copy_bytes_per_s)


class Tally(Struct):
    """Sums over a module, or over it and all inside."""

    forward_s: float = 0.0
    backward_s: float = 0.0
    device_s: float = 0.0
    macs: int = 0
    flops: int = 0
    bytes_moved: int = 0
    written: int = 0
    saved: int = 0
    compute_s: float = 0.0
    """Least time of the modules that the product's ceiling limits."""
    memory_s: float = 0.0
    """Least time of those that the bandwidth limits."""

    def add(self, other: Tally) -> None:
        """Every figure of another one on top."""
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + getattr(other, field))

    @property
    def total_s(self) -> float:
        """Forward and backward."""
        return self.forward_s + self.backward_s


def module_rows(
    workload: Workload,
    times: StepTimes,
    counted: ModuleCounts | None,
    traffic: Traffic,
    ceilings: Ceilings | None,
    device_s: Mapping[str, float] | None = None,
) -> tuple[ModuleProfile, ...]:
    """The network's row first, then its modules in the order of their first call, each before those inside it.

    `device_s`: time of the kernels of each module's own operators, where it is known.
    `counted`: `None` for a network that cannot be counted; its rows have no MACs, and at inference no FLOP.
    """
    own = _own_tallies(workload, times, counted, traffic, ceilings)
    for path, seconds in (device_s or {}).items():
        own.setdefault(path, Tally()).device_s = seconds
    whole = {"": Tally()}
    for path, alone in own.items():
        for above in _down_to(path):
            whole.setdefault(above, Tally()).add(alone)
    first = {path: number for number, path in enumerate(whole)}
    modules = dict(workload.module.named_modules(remove_duplicate=False))
    training = workload.cell.phase == "training"
    stages = [] if counted is None else [stage.name for stage in counted.stages]
    rows = []
    for path in sorted(whole, key=lambda path: [first[above] for above in _down_to(path)]):
        alone, inside, module = own.get(path, Tally()), whole[path], modules[path]
        least_s, total_s = inside.compute_s + inside.memory_s, inside.total_s
        bound: Bound = "compute" if inside.compute_s > inside.memory_s else "memory"
        flops = inside.flops if counted is not None or training else None
        row = ModuleProfile(
            path=path,
            kind=type(module).__name__,
            depth=len(_down_to(path)) - 1,
            stage=stage_of(path, stages) or None,
            output_shape=times.shapes.get(path),
            calls=times.calls.get(path, 0),
            forward_s=inside.forward_s,
            backward_s=inside.backward_s if training else None,
            own_s=alone.total_s,
            device_s=None if device_s is None else inside.device_s,
            own_device_s=None if device_s is None else alone.device_s,
            share=total_s / times.observed_s,
            params=sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
            macs=None if counted is None else inside.macs,
            own_macs=None if counted is None else alone.macs,
            flops=flops,
            activation_bytes=inside.written,
            saved_bytes=inside.saved if training else None,
            own_saved_bytes=alone.saved if training else None,
            bytes_moved=inside.bytes_moved,
            own_bytes=alone.bytes_moved,
            intensity=flops / inside.bytes_moved if flops is not None and inside.bytes_moved else None,
            achieved_flops=flops / total_s if flops is not None and total_s else None,
            least_s=least_s or None,
            roofline_share=least_s / total_s if least_s and total_s else None,
            bound=bound if least_s else None,
        )
        rows.append(row)
    return tuple(rows)


def _down_to(path: str) -> list[str]:
    """The network, the modules that the one at `path` lies in, and that one itself."""
    parts = path.split(".") if path else []
    return [".".join(parts[:depth]) for depth in range(len(parts) + 1)]


def step_parts(workload: Workload, times: StepTimes, traffic: Traffic) -> tuple[StepPart, ...]:
    """What belongs to no module."""
    training = workload.cell.phase == "training"
    parts = []
    for name in PARTS:
        ahead, back = Owner(name, backward=False), Owner(name, backward=True)
        if ahead in times.by_owner or back in times.by_owner:
            forward_s, backward_s = times.by_owner.get(ahead, 0.0), times.by_owner.get(back)
            work = traffic.work_of(name)
            part = StepPart(
                name=name.strip("()"),
                forward_s=forward_s,
                backward_s=backward_s if training else None,
                share=(forward_s + (backward_s or 0.0)) / times.observed_s,
                flops=work.flops,
                bytes_moved=work.bytes_moved,
            )
            parts.append(part)
    return tuple(parts)


def _own_tallies(
    workload: Workload, times: StepTimes, counted: ModuleCounts | None, traffic: Traffic, ceilings: Ceilings | None
) -> dict[str, Tally]:
    """By path, without what modules inside do."""
    training = workload.cell.phase == "training"
    own: dict[str, Tally] = {}
    paths = [owner.path for owner in (*times.by_owner, *traffic.by_owner)]
    own_macs = Counter[str]() if counted is None else counted.own_macs
    for path in dict.fromkeys([*times.kinds, *paths, *own_macs]):
        if path in PARTS:
            continue
        ahead, back = Owner(path, backward=False), Owner(path, backward=True)
        work, macs = traffic.work_of(path), own_macs[path]
        # In inference mode operators arrive whole (`linear`), for which the counter of FLOP has no formula; in training
        # they arrive in parts, and the counts are those of what really runs, backward and auxiliary heads included.
        flops = work.flops if training else 2 * macs * workload.cell.batch_size
        tally = own[path] = Tally(
            forward_s=times.by_owner.get(ahead, 0.0),
            backward_s=times.by_owner.get(back, 0.0),
            macs=macs,
            flops=flops,
            bytes_moved=work.bytes_moved,
            written=traffic.written[ahead],
            saved=traffic.saved[path],
        )
        if ceilings is not None and (training or counted is not None):
            compute_s, memory_s = flops / ceilings.flops, tally.bytes_moved / ceilings.bandwidth
            if compute_s > memory_s:
                tally.compute_s = compute_s
            else:
                tally.memory_s = memory_s
    return own


def stage_of(path: str, stages: Sequence[str]) -> str:
    """The stage that the module or parameter at `path` belongs to; empty where to none."""
    return max((s for s in stages if path == s or path.startswith(f"{s}.")), key=len, default="")


def stage_rows(rows: Iterable[ModuleProfile]) -> tuple[ModuleProfile, ...]:
    """The rows that are the network's stages, in order."""
    return tuple(row for row in rows if row.stage == row.path)


def profile_stages(
    workload: Workload,
    clock: Clock,
    calibration: Calibration | None,
    *,
    round: int,
    visit: int,
    allow_code: bool = False,
) -> StageProfile:
    """Profile the eager step of a warmed-up `workload`; shares of the roofline need the device's `calibration`.

    Takes `TIMING_S`, or a dozen steps where they are longer. Raises whatever the step raises.
    """
    cell = workload.cell
    times = time_by_module(workload, clock, TIMING_S)
    traffic = watch_traffic(workload)
    counted = None
    with suppress(Exception):  # the network's own code, without data: its times are worth storing without its MACs
        counted = count_by_module(cell.network, allow_code=allow_code)
    ceilings = Ceilings.of(calibration, cell.precision) if calibration else None
    rows = module_rows(workload, times, counted, traffic, ceilings)
    return StageProfile(
        cell_id=cell.cell_id,
        round=round,
        visit=visit,
        step_s=times.plain_s,
        observed_step_s=times.observed_s,
        observing_cost=times.observing_cost,
        steps=times.steps,
        whole=rows[0],
        stages=stage_rows(rows),
        parts=step_parts(workload, times, traffic),
    )
