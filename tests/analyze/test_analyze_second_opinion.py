"""fvcore's count beside ours: where they must agree, and what fvcore leaves out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from archbench.analyze.counts import count, count_module, second_opinion, second_opinion_on
from archbench.catalog.inputs import takes_inputs
from archbench.known import show
from archbench.model.cell import Input, Network
from archbench.rendering.catalogue import card_report
from archbench.rendering.text import render_terminal


class Mixture(nn.Module):
    """Convolution padded by name, normalisation, attention, a product of data and something fvcore has no rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding="same", groups=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        tokens = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        scores = torch.baddbmm(torch.zeros(1, 1, 1), tokens.transpose(1, 2), tokens)
        return self.head(tokens.mean(1)) * scores.sum().cosh()  # type: ignore[no-any-return]


def test_both_counters_agree_on_all_that_multiplies() -> None:
    module = Mixture()
    first = count_module(module, (3, 4, 4))
    second = second_opinion_on(module, first, (3, 4, 4))
    assert first.macs == 16 * 8 * 27 + 2 * 16 * 16 * 8 + 16 * 64 + 40
    assert (second.macs, second.disagreement) == (first.macs, 0.0)
    assert second.activations == first.activations == 16 * 8 + 64 + 5
    assert second.total > second.macs, "fvcore's own total has the normalisation in it"
    assert "aten::cosh" in {entry.operator for entry in second.uncounted}
    assert module.training


def test_disagreement_is_told_and_not_hidden() -> None:
    module = nn.Linear(4, 4)
    first = count_module(module, (4,))
    half = type(first)(**{field: getattr(first, field) for field in first.__struct_fields__} | {"macs": 8})
    assert second_opinion_on(module, half, (4,)).disagreement == pytest.approx(1.0)


def test_nothing_is_warned_of_and_the_filters_are_restored() -> None:
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        second_opinion_on(nn.Linear(4, 4), count_module(nn.Linear(4, 4), (4,)), (4,))
    assert not caught
    assert list(warnings.filters) == filters


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("densenet121", "swin_t", "torchvision:vit_b_32")]


@pytest.mark.parametrize("name", ["resnet20_cifar", *SLOW])
def test_networks(name: str) -> None:
    first = count(Network(name=name))
    second = second_opinion(Network(name=name), first)
    assert (second.macs, second.activations) == (first.macs, first.activations)


class Caption(nn.Module):
    """Words by position, an image by name, a dataclass out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.patches, self.head = nn.Embedding(50, 8), nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 50)

    def forward(self, ids: Tensor, *, batch: dict[str, Tensor]) -> Pair:
        tokens = self.words(ids) + self.patches(batch["pixels"]).mean((2, 3))[:, None]
        return Pair(self.head(tokens), tokens)


@dataclass
class Pair:
    logits: Tensor
    tokens: Tensor


def test_whatever_a_network_takes_and_gives_is_counted_twice() -> None:
    given = takes_inputs(
        [Input(shape=(7,), dtype="int64", high=50), Input(shape=(3, 8, 8), name="batch.pixels")], "test"
    )
    first = count_module(Caption(), given)
    second = second_opinion_on(Caption(), first, given)
    assert second.macs == first.macs == 4 * 8 * 48 + 7 * 8 * 50


def test_what_cannot_be_traced_has_no_second_count_and_says_why() -> None:
    card = show("operator_networks:Scripted", input_size=16, allow_code=True)
    assert card.second_opinion is None
    assert "no second count: fvcore cannot trace it" in render_terminal(card_report(card))
