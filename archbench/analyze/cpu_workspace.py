"""What oneDNN's convolutions allocate on the CPU beside their result."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

_CONVOLUTION = torch.ops.aten.convolution.default
_BACKWARD = torch.ops.aten.convolution_backward.default
# oneDNN's blocked layouts hold 8 or 16 channels together; an image's 3 channels are read as they are.
_FEWEST_BLOCKED_CHANNELS = 8

Moments = tuple[tuple[Tensor, ...], ...]


def convolution_workspace(func: OpOverload, args: Any, out: Any) -> Moments:
    """What a convolution on the CPU holds from moment to moment; nothing for any other operator.

    oneDNN computes in a blocked layout: it copies the operands into it, computes, and copies the result back, all
    through torch's allocator, whose memory events show it. With channels last only the weight is copied.
    """
    if func is _CONVOLUTION:
        image, weight = args[:2]
        blocked = _blocked(out)
        return (*_blocked(image), weight, *(blocked or (out,))), (*blocked, out)
    if func is _BACKWARD:
        gradient, image, weight = args[:3]
        for_image, for_weight = out[:2]
        moments: list[tuple[Tensor, ...]] = []
        kept: tuple[Tensor, ...] = ()
        if for_image is not None:
            blocked = _blocked(for_image)
            moments += [(*_blocked(gradient), weight, *(blocked or (for_image,))), (*blocked, for_image)]
            kept = (for_image,)
        if for_weight is not None:
            moments += [(*kept, *_blocked(image), *_blocked(gradient), for_weight), (*kept, for_weight, for_weight)]
        return tuple(moments)
    return ()


def no_workspace(func: OpOverload, args: Any, out: Any) -> Moments:
    """For devices whose libraries' workspaces are not modelled."""
    return ()


def _blocked(feature_map: Tensor) -> tuple[Tensor, ...]:
    """A tensor of the size of the blocked copy; nothing where oneDNN takes the feature map as it is."""
    if feature_map.shape[1] < _FEWEST_BLOCKED_CHANNELS or feature_map.is_contiguous(memory_format=torch.channels_last):
        return ()
    return (feature_map,)
