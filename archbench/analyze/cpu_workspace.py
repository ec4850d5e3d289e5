"""What oneDNN's convolutions allocate on the CPU beside their result."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

_CONVOLUTION = torch.ops.aten.convolution.default
_BACKWARD = torch.ops.aten.convolution_backward.default
_BLOCK_OF = {"AVX512": 16}
"""Channels that oneDNN's blocked layouts hold together, by the vectors that the CPU has; 8 for shorter ones."""

Moments = tuple[tuple[int, ...], ...]
"""From moment to moment, the bytes of everything that is held."""


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


def no_workspace(func: OpOverload, args: Any, out: Any) -> Moments:
    """For devices whose libraries' workspaces are not modelled."""
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
