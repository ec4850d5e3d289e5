"""MACs by module, from the very pass that gives a network its total (`archbench.analyze.counts`)."""

from __future__ import annotations

from collections import Counter

import torch
from msgspec import Struct
from torch import nn

from archbench.analyze.counts import blank_image, decomposed_attention, evaluating, on_module
from archbench.analyze.forward_trace import ForwardTrace
from archbench.analyze.stages import StageRecorder
from archbench.catalog.build import input_shape
from archbench.model.cell import Network
from archbench.model.counts import Stage
from archbench.profiler.boundaries import Boundaries, between


class Counted(Struct, frozen=True, kw_only=True):
    """Per image, of one forward pass in evaluation mode."""

    macs: int
    own_macs: Counter[str]
    """By path, without the modules inside; adds up to `macs`."""
    stages: tuple[Stage, ...]
    paths: tuple[str, ...]
    """Of every module that ran, and of those that hold one."""


def count_by_module(network: Network, *, allow_code: bool = False) -> Counted:
    """Count without data; where the network's forward looks at values, with data.

    Raises whatever the network's own code raises on real tensors.
    """
    shape = input_shape(network, allow_code=allow_code)
    return on_module(network, lambda module: _count(module, shape), allow_code=allow_code)


def _count(module: nn.Module, shape: tuple[int, ...]) -> Counted:
    image = blank_image(module, shape)
    trace = ForwardTrace(module, image)

    def macs() -> int:
        return trace.macs

    boundaries = Boundaries(module, macs)
    recorder = StageRecorder(module, macs)
    with evaluating(module), decomposed_attention(), torch.inference_mode(), image.device, recorder, boundaries, trace:
        module(image)
    boundaries.end()
    had = between(boundaries.marks, lambda before, after: after - before)
    own = Counter({owner.path: int(count) for owner, count in had.items() if count})
    ran = [owner.path.split(".") for owner in had]
    paths = dict.fromkeys(".".join(path[: depth + 1]) for path in ran for depth in range(len(path)))
    return Counted(macs=trace.macs, own_macs=own, stages=recorder.stages(), paths=tuple(paths))
