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


def convolution_workspace(func: OpOverload, args: Any, out: Any) -> int:
    """Most bytes that `func` holds at once on the CPU, its result included; 0 for all but convolutions.

    oneDNN computes in a blocked layout: it copies the input and the weight into it, computes, and copies the result
    back. (Seen in torch's own memory events; the copies go through torch's allocator.) With channels last only the
    weight is copied.
    """
    if func is _CONVOLUTION:
        image, weight = args[:2]
        return _forward(image, weight, out)
    if func is _BACKWARD:
        gradient, image, weight = args[:3]
        return _backward(gradient, image, weight, out)
    return 0


def no_workspace(func: OpOverload, args: Any, out: Any) -> int:
    """For devices whose libraries' workspaces are not modelled."""
    return 0


def _forward(image: Tensor, weight: Tensor, out: Tensor) -> int:
    blocked_out = _blocked(out)
    return max(_blocked(image) + _bytes(weight) + max(blocked_out, 0 if blocked_out else _bytes(out)), blocked_out + _bytes(out))


def _backward(gradient: Tensor, image: Tensor, weight: Tensor, out: Any) -> int:
    for_image, for_weight = out[:2]
    copies = _blocked(gradient)
    peak = kept = 0
    if for_image is not None:
        blocked = _blocked(for_image)
        peak = max(copies + _bytes(weight) + max(blocked, 0 if blocked else _bytes(for_image)), blocked + _bytes(for_image))
        kept = _bytes(for_image)
    if for_weight is not None:
        blocked = _bytes(for_weight)
        peak = max(peak, kept + _blocked(image) + copies + blocked, kept + 2 * blocked)
    return peak


def _blocked(tensor: Tensor) -> int:
    """Bytes of the blocked copy of a feature map; 0 where oneDNN takes it as it is."""
    if tensor.shape[1] < _FEWEST_BLOCKED_CHANNELS or tensor.is_contiguous(memory_format=torch.channels_last):
        return 0
    return _bytes(tensor)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
