"""Gradients at initialisation: what reaches each weight layer, and what comes out of each stage.

A deep network trains if the error reaches its first layers neither vanished nor exploded. With batch normalisation and
ReLU, a chain without shortcuts multiplies gradients by about sqrt(pi / (pi - 1)) = 1.21 at each layer backwards (Yang
et al. 2019, A Mean Field Theory of Batch Normalization), 20,000-fold over 54 layers; shortcuts hold the
growth down. A chain of sigmoids divides them by 4 or more at each (the largest slope of a sigmoid is 1/4).
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from archbench.catalog.inputs import Taken, tensors_in
from archbench.measure.workload import Workload
from archbench.model.cell import Cell
from archbench.model.counts import AcrossSeeds, GradientHealth, LayerGradient, StageActivation

SEEDS = 3
"""Enough to tell a network's habit from one draw's luck: habits differ by orders of magnitude."""
BATCH_SIZE = 8
"""Images: enough for batch normalisation's statistics, few enough for a second a seed."""


def gradient_health(
    build: Callable[[], nn.Module],
    cell: Cell,
    given: Taken,
    device: torch.device,
    *,
    stages: Sequence[str] = (),
    seeds: int = SEEDS,
    batch_size: int = BATCH_SIZE,
) -> GradientHealth:
    """Draw weights, input and labels `seeds` times, and look at one backward pass in fp32 each time.

    `build` makes the network of `cell` anew, with weights from torch's generator. `given` is what it takes; `stages`
    are paths of modules, in order. Raises `UnsupportedError` where there is nothing to train.
    """
    plain = Cell(network=cell.network, batch_size=batch_size, phase="training", device=cell.device)
    draws: list[_Draw] = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        workload = Workload(plain, build(), given, device, ring=1, seed=seed)
        draws.append(_Draw(workload, stages))
    first = draws[0]
    layers = tuple(
        LayerGradient(
            path=path,
            kind=first.kinds[path],
            position=position,
            weights=first.weights[path],
            gradient_norm=_spread([draw.gradients.get(path) for draw in draws]),
            weight_norm=_spread([draw.norms.get(path) for draw in draws]),
            signal_rms=_spread([draw.signals.get(path) for draw in draws]),
        )
        for position, path in enumerate(first.kinds)
    )
    return GradientHealth(
        seeds=seeds,
        batch_size=batch_size,
        layers=layers,
        first_to_last=_spread([_first_to_last(draw.gradients, first.kinds) for draw in draws]),
        signal_first_to_last=_spread([_first_to_last(draw.signals, first.kinds) for draw in draws]),
        stages=tuple(
            StageActivation(
                stage=stage,
                mean=_spread([draw.outputs[stage][0] for draw in draws]),
                std=_spread([draw.outputs[stage][1] for draw in draws]),
                zero_share=_spread([draw.outputs[stage][2] for draw in draws]),
            )
            for stage in stages
            if all(stage in draw.outputs for draw in draws)
        ),
        without_gradient=tuple(path for path in first.kinds if all(not draw.gradients.get(path) for draw in draws)),
    )


class _Draw:
    """One seed's backward pass. Its tables are by path, in the order of the forward pass."""

    def __init__(self, workload: Workload, stages: Sequence[str]) -> None:
        self.kinds: dict[str, str] = {}
        self.weights: dict[str, int] = {}
        self.gradients: dict[str, float] = {}
        self.norms: dict[str, float] = {}
        self.signals: dict[str, float] = {}
        self.outputs: dict[str, tuple[float, float, float]] = {}
        self._squares: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        self._turn: dict[str, int] = {}
        with ExitStack() as watching:
            for handle in self._hooks(workload.module, frozenset(stages)):
                watching.enter_context(handle)
            workload.backward(workload.loss())
        self._read(workload.module)

    def _hooks(self, module: nn.Module, stages: frozenset[str]) -> Iterator[RemovableHandle]:
        for path, child in module.named_modules():
            yield child.register_forward_pre_hook(partial(self._enter, path))
            if path in stages:
                yield child.register_forward_hook(partial(self._leave_stage, path))
            if any(True for _ in _weights_of(child)):
                yield child.register_forward_hook(partial(self._leave_layer, path))

    def _enter(self, path: str, _module: nn.Module, _inputs: object) -> None:
        self._turn.setdefault(path, len(self._turn))

    def _leave_layer(self, path: str, _module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(partial(self._arrive, path))  # type: ignore[no-untyped-call]

    def _arrive(self, path: str, gradient: Tensor) -> None:
        self._squares[path].append((_norm(gradient) ** 2, gradient.numel()))

    def _leave_stage(self, path: str, _module: nn.Module, _inputs: object, output: object) -> None:
        # As it comes out: a ReLU in place behind it would change it.
        found = next((one for one in tensors_in(output) if one.is_floating_point()), None)
        if found is not None:
            result = found.detach().double()
            zeros = float((result == 0).double().mean())
            self.outputs[path] = (float(result.mean()), float(result.std(correction=0)), zeros)

    def _read(self, module: nn.Module) -> None:
        found = [(self._called(path), path, child) for path, child in module.named_modules()]
        for _, path, child in sorted(found, key=lambda one: one[0]):
            weights = list(_weights_of(child))
            for name, weight in weights:
                label = path if len(weights) == 1 else f"{path}.{name}".lstrip(".")
                self.kinds[label] = type(child).__name__
                self.weights[label] = weight.numel()
                self.norms[label] = _norm(weight)
                if weight.grad is not None:
                    self.gradients[label] = _norm(weight.grad)
                squares = self._squares.get(path)
                if squares:
                    self.signals[label] = math.sqrt(sum(s for s, _ in squares) / sum(n for _, n in squares))

    def _called(self, path: str) -> float:
        """When the module was first called; a module that its parent uses without calling counts as its parent."""
        while path and path not in self._turn:
            path = path.rpartition(".")[0]
        return self._turn.get(path, 0)


def _weights_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Trained parameters of the module itself that weigh its input: those of two or more axes called a weight."""
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.requires_grad and parameter.dim() > 1 and name.endswith("weight"):
            yield name, parameter


def _norm(tensor: Tensor) -> float:
    reals = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return float(reals.detach().double().norm())


def _first_to_last(figures: dict[str, float], order: dict[str, str]) -> float | None:
    known = [figures[path] for path in order if path in figures]
    return known[0] / known[-1] if len(known) > 1 and known[-1] else None


def _spread(figures: Sequence[float | None]) -> AcrossSeeds | None:
    """`None` where a figure is missing or not finite: a median of the others would hide it."""
    known = [figure for figure in figures if figure is not None and math.isfinite(figure)]
    if not known or len(known) < len(figures):
        return None
    return AcrossSeeds(median=statistics.median(known), low=min(known), high=max(known))
