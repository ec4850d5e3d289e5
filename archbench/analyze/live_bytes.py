"""Follows the bytes of live tensors through a step that runs on fake tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

Workspace = Callable[[OpOverload, Any, Any], int]
"""From an operator, its arguments and its result to the most bytes it holds at once, its result included."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records, operator by operator, the most bytes that are alive while it runs.

    A storage counts from the operator that first returns it until nothing refers to it: autograd, which keeps what
    the backward pass needs, is C++ and could not be asked. The allocator's granule is the unit that sizes round up to.
    """

    def __init__(self, workspace: Workspace, granule: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.timeline: list[int] = []
        self._workspace = workspace
        self._granule = granule
        self._live = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that are alive before the step begins."""
        for tensor in tensors:
            self._see(tensor)

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self._live
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        self.timeline.append(max(self._live, before + self._workspace(func, args, out)))
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = -(-storage.nbytes() // self._granule) * self._granule

        def gone(_: object) -> None:
            self._live -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, gone)
        self._live += size
