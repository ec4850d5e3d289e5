"""Gradient health against chains whose gradients are known in closed form."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from archbench.catalog.build import build, input_shape
from archbench.model.cell import Cell, Network
from archbench.model.counts import GradientHealth
from archbench.profiler.gradient_health import gradient_health

CELL = Cell(network=Network(name="lenet5"), batch_size=1)
WIDTH = 16


class Chain(nn.Module):
    """Orthogonal layers, each times `gain`; squared on the way out, so that the loss is the mean square."""

    def __init__(self, depth: int, gain: float, activation: nn.Module | None = None) -> None:
        super().__init__()
        layers = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(depth)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight, gain)
        self.layers = nn.ModuleList(layers)
        self.activation = activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.activation(layer(x))
        return x.unsqueeze(-1)  # not two axes: not taken for class scores


def health(module: nn.Module, shape: tuple[int, ...] = (WIDTH,), **options: object) -> GradientHealth:
    return gradient_health(lambda: module, CELL, shape, torch.device("cpu"), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_a_linear_chain_of_known_gain(gain: float) -> None:
    """The error grows by `gain` at each layer backwards, the signal by `gain` forwards: weights see their product."""
    found = health(Chain(6, gain), batch_size=1)
    assert [layer.path for layer in found.layers] == [f"layers.{number}" for number in range(6)]
    assert found.signal_first_to_last.median == pytest.approx(gain**5, rel=1e-4)
    assert found.first_to_last.median == pytest.approx(1.0, rel=1e-4)
    assert found.layers[2].weight_norm.median == pytest.approx(gain * WIDTH**0.5, rel=1e-5)
    assert found.layers[0].weights == WIDTH**2


def test_a_chain_of_sigmoids_shrinks_the_error_fourfold_at_least() -> None:
    found = health(Chain(8, 1.0, nn.Sigmoid()))
    assert 0 < found.signal_first_to_last.high <= 0.25**7 * 1.001 * 16  # a norm per element may concentrate
    assert found.signal_first_to_last.median < 1e-3


def test_shortcuts_carry_the_error_where_a_plain_chain_multiplies_it() -> None:
    ratios = {}
    for name in ("plain20_cifar", "resnet20_cifar"):
        network = Network(name=name)
        found = gradient_health(partial(build, network), CELL, input_shape(network), torch.device("cpu"), seeds=2)
        assert len(found.layers) == 20
        assert found.first_to_last.low <= found.first_to_last.median <= found.first_to_last.high
        ratios[name] = found.first_to_last.median
    assert ratios["plain20_cifar"] > 5 * ratios["resnet20_cifar"]


class Staged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, 1000), nn.ReLU())
        self.head = nn.Linear(1000, 5)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def test_activations_by_stage_and_layers_without_gradient() -> None:
    found = health(Staged(), stages=("body", "head"))
    body, head = found.stages
    assert body.zero_share.median == pytest.approx(0.5, abs=0.05), "a ReLU cuts off half"
    assert body.mean.median > 0
    assert head.std.median < 1.0
    assert found.without_gradient == ("body.0",), "a head of zeros passes nothing on"
    assert found.first_to_last.median == 0.0


class Odd(nn.Module):
    """Calls a layer twice, has one that it never calls, and returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Linear(WIDTH, 3)
        self.twice = nn.Linear(WIDTH, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.twice(self.twice(x)).unsqueeze(1)
        return {"out": self.attention(x, x, x)[0]}


def test_unused_shared_and_attention_weights() -> None:
    found = health(Odd())
    by_path = {layer.path: layer for layer in found.layers}
    assert set(by_path) == {"never", "twice", "attention", "attention.out_proj"}
    assert by_path["never"].gradient_norm is None
    assert "never" in found.without_gradient
    assert by_path["twice"].gradient_norm.median > 0
    assert by_path["attention.out_proj"].position == by_path["attention"].position + 1
    assert by_path["attention.out_proj"].signal_rms is None, "attention multiplies by its weight without calling it"


def test_what_is_not_finite_is_null() -> None:
    module = Chain(3, 1.0)
    with torch.no_grad():
        module.layers[1].weight.fill_(float("inf"))
    found = health(module)
    assert found.first_to_last is None
    assert found.layers[0].gradient_norm is None
    assert found.layers[0].weight_norm is not None


def test_no_hooks_are_left() -> None:
    module = Chain(3, 1.0)
    health(module, stages=("layers.0",))
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())
