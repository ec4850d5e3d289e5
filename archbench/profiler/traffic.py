"""Counts what the operators of one real step do, by module: bytes read and written, FLOP, memory kept for backward.

A pass of its own: a dispatch mode costs microseconds an operator, so nothing is timed under it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from archbench.measure.state import step_contexts
from archbench.measure.workload import Workload
from archbench.profiler.boundaries import Boundaries, Owner, observe

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
