"""Copies of a module whose tensors have shapes and strides but no data."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn


def copy_with(module: nn.Module, make: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a deep copy of `module` in which `make` has replaced each parameter and buffer.

    No data is copied on the way, and what was tied stays tied.
    """
    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(make(parameter), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = make(buffer)
    return copy.deepcopy(module, memo)


def on_meta(tensor: Tensor) -> Tensor:
    """A tensor like this one on the meta device."""
    return torch.empty_like(tensor, device="meta")
