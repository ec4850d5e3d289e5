"""What a step is to torch: its precision, its optimizer, its loss. The same measured, predicted and traced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from archbench.catalog.inputs import tensors_in
from archbench.model.axes import Loss, Roles
from archbench.model.errors import UnsupportedError

AUTOCAST: dict[str, torch.dtype] = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}
"""Precisions that choose a type for each operator; weights stay fp32."""
WHOLE_MODEL: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Precisions in which weights and inputs themselves are stored."""
LEARNING_RATE = 1e-4
"""Small, so that weights stay finite over thousands of steps on random labels; no step's cost depends on it."""
MOMENTUM = 0.9


def cast(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """Real weights in one of `WHOLE_MODEL`, in place; complex ones stay, of which a real type would keep half.

    `None`: every weight stays as the network is built.
    """
    if dtype is not None:
        module._apply(lambda one: one.to(dtype) if one.is_floating_point() else one)  # type: ignore[no-untyped-call]
    return module


def shape_of(output: object) -> tuple[int, ...] | None:
    """Shape of the first tensor in `output`, without its batch axis; `None` where there is none."""
    return next((tuple(tensor.shape[1:]) for tensor in tensors_in(output)), None)


def prepare_training(module: nn.Module, roles: Roles) -> list[nn.Parameter]:
    """Freeze what the role freezes, let blocks be computed again where it says so, and return what is trained.

    The module is in training mode. Raises `UnsupportedError` where there is nothing of the kind.
    """
    if roles.train == "head":
        layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
        if not layers:
            raise UnsupportedError("train: head trains the last linear layer, and this network has none")
        module.requires_grad_(False)
        layers[-1].requires_grad_(True)
    if roles.train == "frozen-bn":
        norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
        if not norms:
            raise UnsupportedError("train: frozen-bn freezes batch norms, and this network has none")
        for norm in norms:
            norm.eval().requires_grad_(False)
    if roles.checkpointing:
        _checkpoint(module)
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    if not trained:
        raise UnsupportedError("training needs parameters, and this network has none")
    return trained


def _checkpoint(module: nn.Module) -> None:
    """By the network's own switch (timm's, transformers'), else around each part of a sequence of blocks."""
    for name in ("set_grad_checkpointing", "gradient_checkpointing_enable"):
        if (switch := getattr(module, name, None)) is not None:
            switch()
            return
    blocks = [
        part
        for holder in module.modules()
        if isinstance(holder, nn.Sequential)
        for part in holder
        if len(list(part.children())) > 1 and not isinstance(part, nn.Sequential)
    ]
    if not blocks:
        raise UnsupportedError(
            "checkpointing needs blocks in a sequence, or a switch of the network's, and it has none"
        )
    for block in blocks:
        if not isinstance(block.forward, partial):  # the cells of a group share the network
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def optimizer_for(roles: Roles, trained: list[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW with torch's defaults, at a learning rate that changes no step's cost."""
    if roles.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=LEARNING_RATE, **options)
    return torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=MOMENTUM, **options)


def settled(output: object) -> object:
    """A network's output with what it would give only when asked, a generator's items, made."""
    return tuple(output) if isinstance(output, Iterator) else output


def figures_in(output: object) -> list[Tensor]:
    """The tensors of reals in a network's output, in order, complex ones as pairs; a lone number is one, too."""
    if isinstance(output, float):
        return [torch.tensor(output)]
    found = [tensor.detach() for tensor in tensors_in(settled(output))]
    found = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in found]
    return [tensor for tensor in found if tensor.is_floating_point() and tensor.numel()]


LabelsFor = Callable[[tuple[int, ...], int, torch.dtype], Tensor]
"""Labels of a shape, below so many classes, of a type: the same at each turn of the ring."""


def loss_of(
    output: object, batch_size: int, labels_for: LabelsFor, loss: Loss = "by-output"
) -> tuple[Tensor | None, str]:
    """What a training step minimises of a network's `output`, and that in words.

    The sum over every tensor of reals that depends on a weight. `by-output`: the cross-entropy of [N, classes] for N
    images (auxiliary heads count alike), a single number as it is, the mean square of anything else; else the one that
    is named. `None` where no tensor depends on a weight. Raises `UnsupportedError` for cross-entropy of what has no
    axis of classes: the last of [N, classes] and [N, tokens, classes], the second of maps.
    """
    losses, words = [], Counter[str]()
    for tensor in tensors_in(output):
        if not tensor.requires_grad:
            continue
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor)
        kind = _kind_of(tensor, batch_size) if loss == "by-output" else loss
        losses.append(_LOSSES[kind](tensor, labels_for))
        words[kind] += 1
    total = torch.stack(losses).sum() if len(losses) > 1 else next(iter(losses), None)
    return total, " + ".join(word if n == 1 else f"{n} x {word}" for word, n in words.items())


def _kind_of(tensor: Tensor, batch_size: int) -> str:
    if tensor.dim() == 2 and tensor.shape[0] == batch_size and tensor.shape[1] > 1:
        return "cross-entropy"
    return "mean-square" if tensor.dim() else "the output itself"


def _cross_entropy(tensor: Tensor, labels_for: LabelsFor) -> Tensor:
    if tensor.dim() < 2:
        raise UnsupportedError("loss: cross-entropy needs an axis of classes, and an output has none")
    if tensor.dim() == 3:
        tensor = tensor.transpose(1, 2)
    shape = (tensor.shape[0], *tensor.shape[2:])
    return F.cross_entropy(tensor, labels_for(shape, tensor.shape[1], torch.int64))


_LOSSES: dict[str, Callable[[Tensor, LabelsFor], Tensor]] = {
    "cross-entropy": _cross_entropy,
    "binary-cross-entropy": lambda tensor, labels_for: F.binary_cross_entropy_with_logits(
        tensor, labels_for(tuple(tensor.shape), 2, tensor.dtype)
    ),
    "mean-square": lambda tensor, _: tensor.float().square().mean(),
    "mean": lambda tensor, _: tensor.float().mean(),
    "the output itself": lambda tensor, _: tensor,
}
