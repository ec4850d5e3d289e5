"""What a step is to torch: its precision, its optimizer, its loss. The same measured, predicted and traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

AUTOCAST: dict[str, torch.dtype] = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}
"""Precisions that choose a type for each operator; weights stay fp32."""
WHOLE_MODEL: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Precisions in which weights and inputs themselves are stored."""
LEARNING_RATE = 1e-4
"""Small, so that weights stay finite over thousands of steps on random labels; no step's cost depends on it."""
MOMENTUM = 0.9


def tensors_in(tree: object) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dictionaries, such as a network returns, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from tensors_in(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from tensors_in(item)


def shape_of(output: object) -> tuple[int, ...] | None:
    """Shape of the first tensor in `output`, without its batch axis; `None` where there is none."""
    return next((tuple(tensor.shape[1:]) for tensor in tensors_in(output)), None)


def loss_of(output: object, labels_for: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Cross-entropy of every classifier output (auxiliary heads count alike), the mean square of anything else, summed.

    `labels_for` gives the labels [N] of logits [N, classes]. `None` where there is no tensor in `output`.
    """
    losses = [
        F.cross_entropy(tensor, labels_for(tensor)) if tensor.dim() == 2 else tensor.float().square().mean()
        for tensor in tensors_in(output)
    ]
    return torch.stack(losses).sum() if len(losses) > 1 else next(iter(losses), None)
