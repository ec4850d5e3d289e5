"""Follows the bytes of live tensors through a step that runs on fake tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

Workspace = Callable[[OpOverload, Any, Any], tuple[tuple[int, ...], ...]]
"""From an operator, its arguments and its result to the moments inside it, each the sizes of what is held just then."""

Bytes = tuple[int, int]
"""A number of bytes as (constant, per image)."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the bytes that are alive whenever an operator has allocated something.

    A storage counts from the operator that first returns it until nothing refers to it any more; autograd, which keeps
    what the backward pass needs, drops its references as it goes.

    The step must run at a batch size of `batch`, larger in bytes than any storage that does not grow with the batch.
    Dividing a storage's size by `batch` then gives its bytes per image, and the remainder its constant bytes.
    """

    def __init__(self, batch: int, workspace: Workspace, granule: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.timeline: list[Bytes] = []
        self._batch = batch
        self._workspace = workspace
        self._granule = granule
        self._constant = self._per_image = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that are alive before the step begins."""
        for tensor in tensors:
            self._see(tensor)
        self.timeline.append((self._constant, self._per_image))

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        constant, per_image, known = self._constant, self._per_image, len(self._storages)
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        if len(self._storages) > known:
            self.timeline.append((self._constant, self._per_image))
        for moment in self._workspace(func, args, out):
            held = [self._size(size) for size in moment]
            self.timeline.append((constant + sum(c for c, _ in held), per_image + sum(p for _, p in held)))
        return out

    def _size(self, size: int) -> Bytes:
        per_image, constant = divmod(size, self._batch)
        return -(-constant // self._granule) * self._granule, per_image

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        constant, per_image = self._size(storage.nbytes())

        def gone(_: object) -> None:
            self._constant -= constant
            self._per_image -= per_image
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, gone)
        self._constant += constant
        self._per_image += per_image
