"""Weights that repeat a few draws have the moments, the bounds and the independence of drawn ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from archbench.catalog.build import build
from archbench.catalog.weights import PERIOD, SMALL, repeated_draws
from archbench.model.cell import Network

N = 3 * PERIOD + 17
"""More than the draws there are."""


@pytest.mark.parametrize(
    ("initialise", "mean", "std", "bound"),
    [
        (lambda w: nn.init.normal_(w, 0.5, 0.1), 0.5, 0.1, math.inf),
        (lambda w: nn.init.uniform_(w, -1.0, 3.0), 1.0, 4 / math.sqrt(12), 2.0),
        (lambda w: nn.init.trunc_normal_(w, std=0.02), 0.0, 0.02, 0.12),
        (lambda w: nn.init.trunc_normal_(w, a=-1.0, b=1.0), 0.0, 0.5396, 1.0),  # variance 1 - 2 phi(1) / (2 Phi(1) - 1)
    ],
)
def test_moments_and_bounds_are_those_of_the_distribution(initialise, mean, std, bound):
    weight = torch.empty(N)
    with repeated_draws(0):
        initialise(weight)
    # 131,071 draws: five standard errors of mean and deviation.
    assert weight.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(PERIOD))
    assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * PERIOD))
    assert (weight - mean).abs().max().item() <= bound * (1 + 1e-6)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(0)
        with repeated_draws(seed):
            return build(Network(name="resnet18")).get_parameter("layer4.1.conv2.weight").detach()

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))


def test_layers_keep_the_scale_that_their_network_chose():
    torch.manual_seed(0)
    own = build(Network(name="vit_b_16"))
    with repeated_draws(0):
        quick = build(Network(name="vit_b_16"))
    for (name, theirs), ours in zip(own.named_parameters(), quick.parameters(), strict=True):
        if theirs.numel() >= SMALL:
            assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.03), name
            assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.03 * theirs.std().item()), name


@pytest.mark.parametrize("width", [512, 4096, 4608, 25088])  # 4,608: 512 channels of 3 x 3
def test_no_two_channels_are_alike(width):
    with repeated_draws(0):
        weight = nn.init.normal_(torch.empty(512, width))
    likeness = torch.corrcoef(weight) - torch.eye(512)
    # Of independent rows it scatters by 1 / sqrt(width); six of that is never seen in 130,000 pairs.
    assert likeness.abs().max().item() < 6 / math.sqrt(width)


def test_small_tensors_and_those_with_a_generator_of_their_own_are_drawn_as_ever():
    def drawn() -> list[torch.Tensor]:
        torch.manual_seed(1)
        generator = torch.Generator().manual_seed(2)
        return [torch.empty(SMALL - 1).normal_(), torch.empty(SMALL).uniform_(generator=generator)]

    expected = drawn()
    with repeated_draws(0):
        found = drawn()
    assert all(map(torch.equal, expected, found))


def test_torch_is_left_as_it_was():
    before = torch.Tensor.normal_, torch.Tensor.uniform_, nn.init.trunc_normal_
    with pytest.raises(ValueError, match="network"), repeated_draws(0):
        raise ValueError("network")
    assert (torch.Tensor.normal_, torch.Tensor.uniform_, nn.init.trunc_normal_) == before
    assert not {"normal_", "uniform_"} & set(vars(torch.Tensor))
