"""Follows the bytes of live tensors through a step that runs on fake tensors, and what convolutions hold besides."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

_CONVOLUTION = torch.ops.aten.convolution.default
_BACKWARD = torch.ops.aten.convolution_backward.default
_BLOCK_OF = {"AVX512": 16}
"""Channels that oneDNN's blocked layouts hold together, by the vectors that the CPU has; 8 for shorter ones."""

Moments = tuple[tuple[int, ...], ...]
"""From moment to moment inside an operator, the bytes of everything that it holds beside its result."""

Bytes = tuple[int, int]
"""A number of bytes as (constant, per image)."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the bytes that are alive whenever an operator has allocated something.

    A storage counts from the operator that first returns it until nothing refers to it any more; autograd, which keeps
    what the backward pass needs, drops its references as it goes.

    The step must run at a batch size of `batch`, larger in bytes than any storage that does not grow with the batch.
    Dividing a storage's size by `batch` then gives its bytes per image, and the remainder its constant bytes.
    Allocations round up to `granule`; `blocked_convolutions` adds what oneDNN's hold inside.
    """

    def __init__(self, batch: int, granule: int, *, blocked_convolutions: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.timeline: list[Bytes] = []
        self.operators = 0
        """That ran, views included."""
        self._batch = batch
        self._blocked_convolutions = blocked_convolutions
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
        self.operators += 1
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        if len(self._storages) > known:
            self.timeline.append((self._constant, self._per_image))
        for moment in convolution_workspace(func, args, out) if self._blocked_convolutions else ():
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


def convolution_workspace(func: OpOverload, args: Any, out: Any) -> Moments:
    """What a convolution on the CPU holds from moment to moment, in bytes; nothing for any other operator.

    oneDNN computes in a blocked layout: it copies the operands into it, computes, and copies the result back, all
    through torch's allocator, whose memory events show it. With channels last only the weight is copied.
    """
    if func is _CONVOLUTION:
        image, weight = args[:2]
        blocked = _blocked(out)
        return (*_operand(image), weight.nbytes, *(blocked or (out.nbytes,))), (*blocked, out.nbytes)
    if func is _BACKWARD:
        gradient, image, weight = args[:3]
        for_image, for_weight = out[:2]
        moments: list[tuple[int, ...]] = []
        kept: tuple[int, ...] = ()
        if for_image is not None:
            blocked, kept = _blocked(for_image), (for_image.nbytes,)
            moments += [(*_operand(gradient), weight.nbytes, *(blocked or kept)), (*blocked, *kept)]
        if for_weight is not None:
            made = for_weight.nbytes
            moments += [(*kept, *_operand(image), *_operand(gradient), made), (*kept, made, made)]
        return tuple(moments)
    return ()


def _operand(feature_map: Tensor) -> tuple[int, ...]:
    """Bytes of the copy that is read in its place; nothing where it is read as it is, like an image's 3 channels."""
    return _blocked(feature_map) if feature_map.shape[1] >= _block() else ()


def _blocked(feature_map: Tensor) -> tuple[int, ...]:
    """Bytes of a blocked copy, its channels filled up to whole blocks; nothing where channels stand last."""
    if feature_map.is_contiguous(memory_format=torch.channels_last):
        return ()
    batch, channels, *area = feature_map.shape
    filled = -(-channels // _block()) * _block()
    return (batch * filled * math.prod(area) * feature_map.element_size(),)


@cache
def _block() -> int:
    capability = torch.backends.cpu.get_cpu_capability()
    return next((block for prefix, block in _BLOCK_OF.items() if capability.startswith(prefix)), 8)
