"""Watches one real step: each storage from its birth to its death, what it was for, and the operators in between."""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.autograd.graph import saved_tensors_hooks
from torch.autograd.profiler import record_function
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from archbench.device.kind import kind_of
from archbench.model.profile import MemoryCategory, StepSection
from archbench.profiler.boundaries import OPTIMIZER, PARTS, Boundaries

_CONVOLUTIONS = re.compile(r"^conv(olution|[123]d)(?=$|_backward)")
MARK = "archbench operator "
"""Begins the name of the profiler's range around each operator; its number follows."""


class Block:
    """One storage: a line of the log."""

    __slots__ = ("born", "bytes", "category", "died", "dtype", "needed_by", "operator", "path", "shape")

    def __init__(self, tensor: Tensor, category: MemoryCategory, path: str, operator: str, born: int) -> None:
        self.category: MemoryCategory = category
        self.path = path
        self.operator = operator
        self.shape = tuple(tensor.shape)
        self.dtype = str(tensor.dtype).removeprefix("torch.")
        self.bytes = tensor.untyped_storage().nbytes()
        self.born = born
        """Number of the operator that made it; -1 for what stood before."""
        self.died: int | None = None
        """Number of the first operator that runs without it; `None` if it outlives the step."""
        self.needed_by: dict[str, None] = {}
        """Functions whose backward pass needs it, in the order in which they said so."""


class Operator:
    """One operator that ran."""

    __slots__ = ("inside", "module", "name", "section")

    def __init__(self, name: str, section: StepSection, module: str) -> None:
        self.name = name
        self.section: StepSection = section
        self.module = module
        self.inside: int | None = None
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
        self._references: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._boundaries = boundaries
        self._function = ""

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
                    handle = parameter.register_post_accumulate_grad_hook(self._have_gradient)  # type: ignore[no-untyped-call]
                    stack.callback(handle.remove)
            stack.enter_context(self._boundaries)
            if self._module.training:
                stack.enter_context(_Functions(self._called))  # type: ignore[no-untyped-call]
                stack.enter_context(saved_tensors_hooks(self._pack, lambda tensor: tensor))
            stack.enter_context(self)
            yield

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.is_view or func.namespace == "profiler":  # the optimizer's own marks
            return func(*args, **(kwargs or {}))
        number = len(self.operators)
        operator = Operator(plain_name(func.overloadpacket.__name__), *self._place())
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

    def _place(self) -> tuple[StepSection, str]:
        """The section of the step that runs now, and the module that it runs for."""
        owner = self._boundaries.owner
        section: StepSection = "update" if owner.path == OPTIMIZER else "backward" if owner.backward else "forward"
        return section, "" if owner.path in PARTS else owner.path

    def _enter(self, tensor: Tensor, category: MemoryCategory, path: str, operator: str, *, born: int) -> None:
        if tensor.device.type != self._device.type or tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        block = Block(tensor, category, path, operator, born)
        self.blocks.append(block)
        self._alive[key] = block

        def gone(_: object) -> None:
            block.died = len(self.operators)
            del self._alive[key], self._references[key]

        self._references[key] = weakref.ref(storage, gone)

    def _block(self, tensor: Tensor) -> Block | None:
        return self._alive.get(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else None

    def _pack(self, tensor: Tensor) -> Tensor:
        block = self._block(tensor)
        if block is not None and block.category in ("temporaries", "activations"):
            block.category = "activations"
            block.needed_by[plain_name(self._function) or "autograd"] = None
        # Detached, or a node that saves its own output would hold itself alive.
        return tensor if tensor.is_leaf else tensor.detach()

    def _called(self, function: str) -> None:
        self._function = function

    def _have_gradient(self, parameter: Tensor) -> None:
        block = self._block(parameter.grad) if parameter.grad is not None else None
        if block is not None and block.category == "temporaries":
            block.category = "gradients"


class _Functions(TorchFunctionMode):
    """Tells which of torch's functions is being called: the one that saves tensors meanwhile.

    Dispatched operators cannot tell: an operand is saved before its operator arrives, a result after it.
    """

    def __init__(self, called: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._called = called

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._called(getattr(func, "__name__", ""))
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._called("")


def plain_name(name: str) -> str:
    """An operator's name as its users know it: one for a convolution's several, none of a library's."""
    for prefix in ("native_", "cudnn_", "miopen_", "mkldnn_"):
        name = name.strip("_").removeprefix(prefix)
    return _CONVOLUTIONS.sub("conv", name.removesuffix("_with_indices"))
