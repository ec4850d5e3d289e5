"""Divides a network into the stages that a reader thinks in, from one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from archbench.analyze.step import shape_of
from archbench.model.counts import Stage

# A Sequential that works at this many resolutions or more is a trunk (VGG's or MobileNet's `features`): its children
# are the stages. With fewer it is itself a stage (ResNet's `layer3`) or a head.
_TRUNK_RESOLUTIONS = 3


class StageRecorder:
    """Records output shape and MACs of the top two levels of a module while it is active."""

    def __init__(self, module: nn.Module, macs_so_far: Callable[[], int]) -> None:
        self._module = module
        self._macs_so_far = macs_so_far
        self._stages: dict[str, Stage] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> StageRecorder:
        for name, child in self._module.named_children():
            self._watch(name, child)
            if isinstance(child, _CONTAINERS):
                for inner, grandchild in child.named_children():
                    self._watch(f"{name}.{inner}", grandchild)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()

    def stages(self) -> tuple[Stage, ...]:
        """The stages in the order in which the forward pass finished them; lone activations and norms are left out."""
        opened = {name for name, child in self._module.named_children() if self._is_trunk(name, child)}
        chosen: list[Stage] = []
        for name, stage in self._stages.items():
            if name in opened or ("." in name and name.partition(".")[0] not in opened):
                continue
            if stage.macs or not chosen or stage.output_shape != chosen[-1].output_shape:
                chosen.append(stage)
        return tuple(chosen)

    def _watch(self, name: str, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            return  # takes no hooks
        macs_before = 0

        def before(*_: object) -> None:
            nonlocal macs_before
            macs_before = self._macs_so_far()

        def after(_module: nn.Module, _inputs: object, output: object) -> None:
            earlier = self._stages.get(name)
            self._stages[name] = Stage(
                name=name,
                kind=type(module).__name__,
                output_shape=shape_of(output),
                params=sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
                macs=self._macs_so_far() - macs_before + (earlier.macs if earlier else 0),
            )

        self._handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def _is_trunk(self, name: str, child: nn.Module) -> bool:
        """Whether the children of `child` are the stages; a list or dictionary of modules is never called itself."""
        if not isinstance(child, nn.Sequential):
            return isinstance(child, _CONTAINERS)
        inside = [self._stages.get(f"{name}.{inner}") for inner, _ in child.named_children()]
        return len({_resolution(stage) for stage in inside if stage} - {None}) >= _TRUNK_RESOLUTIONS


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def _resolution(stage: Stage) -> tuple[int, int] | None:
    """Height and width of a feature map, channels first or (Swin) last; `None` for anything else."""
    shape = stage.output_shape
    if shape is None or len(shape) != 3:
        return None
    return (shape[1], shape[2]) if shape[1] == shape[2] else (shape[0], shape[1])
