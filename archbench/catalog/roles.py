"""A network in the role in which it is used: the pyramid of maps that a detector reads, folded for inference.

Needs torch. How a role is named, and what it is by default: `Roles` of `archbench.model.axes`.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from archbench.catalog.inputs import Takes, refused, tensors_in
from archbench.model.counts import Level
from archbench.model.errors import UsageError, first_line

FINEST = 4
"""The stride from which maps count: detectors read the levels C2 to C5, strides 4 to 32 (Lin et al. 2017, FPN)."""
_FOLDS = ("fuse", "reparameterize", "switch_to_deploy")
"""Methods by which blocks become what inference needs, in timm and in the repositories of RepVGG and its heirs. What
`fuse` returns takes the block's place."""
_FOLDED = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def in_mode(module: nn.Module, *, training: bool) -> nn.Module:
    """The module itself in training or evaluation mode, whatever its own `train` and `eval` return.

    What `torch.export` gives has no modes, and stays in that of its export.
    """
    try:
        module.train() if training else module.eval()
    except NotImplementedError:
        for part in module.modules():
            part.training = training
    return module


def folds(module: nn.Module) -> bool:
    """Whether it is built in a form for training that folds into a smaller one (RepVGG, MobileOne, RepViT, ...)."""
    return any(hasattr(part, name) for part in module.modules() for name in _FOLDS[1:])


def deployed(module: nn.Module, given: Takes, label: str) -> nn.Module:
    """The form for inference: branches folded where the network can, batch norms into convolutions before them.

    It computes the same in evaluation mode. A convolution is folded where its output goes nowhere but into a batch
    norm, found out on one input. Raises `UsageError` where the network's own way to fold fails.
    """
    training, trained = module.training, all(weight.requires_grad for weight in module.parameters())
    in_mode(module, training=False)
    try:
        with torch.no_grad():
            _fold_blocks(module)
            _fold_norms(module, given)
    except Exception as error:  # the network's own code
        raise UsageError(f"{label}: cannot be folded for inference: {refused(module, given, error)}") from error
    if trained:  # what folding makes may be frozen, and would not be counted
        module.requires_grad_(True)
    return in_mode(module, training=training)


def _fold_blocks(module: nn.Module) -> None:
    for name, child in module.named_children():
        if hasattr(child, "fuse"):
            setattr(module, name, cast(Any, child).fuse())
        else:
            for fold in _FOLDS[1:]:
                if hasattr(child, fold):
                    cast(Any, getattr(child, fold))()
                    break
        _fold_blocks(getattr(module, name))


def _fold_norms(module: nn.Module, given: Takes) -> None:
    uses = _Uses()  # type: ignore[no-untyped-call]
    made: dict[int, tuple[str, Tensor]] = {}
    pairs: dict[str, tuple[str, int]] = {}
    calls: Counter[str] = Counter()

    def after(path: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        calls[path] += 1
        made[id(output)] = path, output  # kept, so that no other tensor gets its address

    def before(path: str, _module: nn.Module, inputs: Any) -> None:
        calls[path] += 1
        if inputs and (known := made.get(id(inputs[0]))) is not None:
            pairs[path] = known[0], id(inputs[0])

    with ExitStack() as watching:
        for path, part in module.named_modules():
            if isinstance(part, _FOLDED):
                watching.enter_context(part.register_forward_hook(partial(after, path)))
            elif isinstance(part, _BatchNorm) and part.track_running_stats:
                watching.enter_context(part.register_forward_pre_hook(partial(before, path)))
        watching.enter_context(uses)
        _try_one(module, given)
    for norm_path, (path, key) in pairs.items():
        if calls[path] == calls[norm_path] == 1 and uses.by_tensor[key] == 1:
            norm = cast(_BatchNorm, module.get_submodule(norm_path))
            _put(module, path, fuse_conv_bn_eval(cast(nn.Conv2d, module.get_submodule(path)), norm))
            _put(module, norm_path, _without_norm(norm))


def _try_one(module: nn.Module, given: Takes) -> None:
    given.blank(1, next((weight.device for weight in module.parameters()), torch.device("meta")))(module)


def _without_norm(norm: nn.Module) -> nn.Module:
    """What is left of a batch norm that is folded: timm's hold their activation."""
    rest = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*rest) if rest else nn.Identity()


def _put(module: nn.Module, path: str, part: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, part)


_LOOKS = frozenset({"__get__", "dim", "size", "numel", "stride", "is_floating_point", "__len__"})
"""What reads no values."""


class _Uses(TorchFunctionMode):
    """Counts how many operators read each tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_tensor: Counter[int] = Counter()
        self._kept: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") not in _LOOKS:
            read = list(tensors_in((args, kwargs or {})))
            self._kept += read
            self.by_tensor.update({id(tensor) for tensor in read})
        return func(*args, **(kwargs or {}))


def levels(output: object, image: tuple[int, ...] | None) -> tuple[Level, ...]:
    """Stride and channels of each map that a network gives for one image, channels first or last; empty for others."""
    maps = list(tensors_in(output))
    if image is None or len(maps) < 2 or any(one.dim() != 4 for one in maps):
        return ()
    found = [_level(tuple(one.shape[1:]), image) for one in maps]
    return tuple(one for one in found if one is not None) if None not in found else ()


def _level(shape: tuple[int, ...], image: tuple[int, ...]) -> Level | None:
    _, height, width = image
    for channels, rows, columns in (shape, (shape[2], *shape[:2])):
        # Convolutions without padding leave a little less than a power of two.
        stride, across = (2 ** round(math.log2(whole / part)) for whole, part in ((height, rows), (width, columns)))
        if stride == across >= 1 and min(rows, columns) > 1:
            return Level(stride=int(stride), channels=channels)
    return None


def pyramid(module: nn.Module, given: Takes, label: str) -> nn.Module:
    """Gives the last map of each stride from `FINEST` on, by torchvision's feature extraction: a dictionary by path.

    Raises `UsageError` for what cannot be followed, and for what has fewer than two such maps.
    """
    from torchvision.models.feature_extraction import create_feature_extractor

    last: dict[int, str] = {}

    def after(path: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        level = None
        if isinstance(output, Tensor) and output.dim() == 4 and given.image is not None:
            level = _level(tuple(output.shape[1:]), given.image)
        if level is not None and level.stride >= FINEST:
            last[level.stride] = path

    training = module.training
    try:
        with torch.no_grad(), ExitStack() as watching:
            for path in _units(module):
                watching.enter_context(module.get_submodule(path).register_forward_hook(partial(after, path)))
            _try_one(in_mode(module, training=False), given)
    except Exception as error:  # the network's own code
        raise UsageError(f"{label}: {refused(module, given, error)}") from error
    if len(last) < 2:
        raise UsageError(f"{label}: gives no maps of two strides or more from {FINEST} on; take head: none")
    try:
        made: nn.Module = create_feature_extractor(module, [last[stride] for stride in sorted(last)])
        return made.train(training)
    except Exception as error:  # torch.fx, on the network's own code
        raise UsageError(f"{label}: its maps cannot be taken out by torch.fx: {first_line(error)}") from error


def _units(module: nn.Module) -> list[str]:
    """Paths of its parts, and of what is in those that only hold others."""
    paths = []
    for name, child in module.named_children():
        paths.append(name)
        if type(child) in (nn.Sequential, nn.ModuleList):
            paths += [f"{name}.{inner}" for inner, _ in child.named_children()]
    return [path for path in paths if type(module.get_submodule(path)) is not nn.ModuleList]
