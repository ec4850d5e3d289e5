"""Parameters, MACs and shapes of every own network, on tensors without data."""

from __future__ import annotations

import functools
from typing import NamedTuple

import pytest
import torch
from networks_truth import BLOCKS, DEEP, DEPARTURES, TIMM, TRUTH, builders
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from archbench.catalog import entries


def slow_unless_first(keys: set[str]) -> list[object]:
    """In the quick suite only one network of a family and a year, which share their code."""
    firsts = {(entry.family, entry.year): entry.name for entry in reversed([*entries().values()]) if entry.name in keys}
    return [key if key in firsts.values() else pytest.param(key, marks=pytest.mark.slow) for key in sorted(keys)]


def slow_if_deep(keys: set[str]) -> list[object]:
    return [pytest.param(key, marks=pytest.mark.slow) if key in DEEP else key for key in sorted(keys)]


def build(key: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return builders()[key](**options).eval()


@functools.cache
def built(key: str) -> nn.Module:
    return build(key)


def params(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def run(net: nn.Module, shape: tuple[int, ...], batch: int = 2) -> Tensor:
    with torch.no_grad():
        return net(torch.empty(batch, *shape, device="meta"))


class Count(NamedTuple):
    params: int
    macs: int
    output: tuple[int, ...]
    features: tuple[int, ...]
    feature_names: frozenset[str]


@functools.cache
def counted(key: str) -> Count:
    """What one input does in the whole network. `features` and their parameters' names are empty without a head."""
    net = built(key)
    shapes: list[tuple[int, ...]] = [()]
    inner = getattr(net, "features", None)
    if inner is not None:
        inner.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    with FlopCounterMode(display=False) as counter:
        output = run(net, TRUTH[key].input, batch=1)
    names = frozenset(name for name in net.state_dict() if name.startswith("features."))
    return Count(params(net), counter.get_total_flops() // 2, tuple(output.shape[1:]), shapes[-1], names)


def test_every_builder_has_its_truth() -> None:
    assert set(builders()) == set(TRUTH)


@pytest.mark.parametrize("key", sorted(TRUTH))
def test_parameters(key: str) -> None:
    assert params(built(key)) == TRUTH[key].params


@pytest.mark.parametrize("key", sorted(key for key, truth in TRUTH.items() if truth.published))
def test_parameters_round_to_the_published_figure_or_the_docstring_says_why_not(key: str) -> None:
    truth = TRUTH[key]
    published = truth.published or ""
    decimals = len(published.partition(".")[2])
    assert (f"{truth.params / 1e6:.{decimals}f}" == published) == (key not in DEPARTURES)
    if key in DEPARTURES:
        assert published in (builders()[key].__doc__ or "")


@pytest.mark.parametrize("key", slow_if_deep(set(TRUTH)))
def test_macs_and_shape(key: str) -> None:
    truth = TRUTH[key]
    assert counted(key).output == truth.output
    if truth.gmacs is not None:
        assert counted(key).macs / 1e9 == pytest.approx(truth.gmacs, rel=truth.tolerance)


@pytest.mark.parametrize("key", sorted(TRUTH))
def test_the_docstring_tells_shape_and_parameters(key: str) -> None:
    doc = builders()[key].__doc__ or ""
    assert "[N, " in doc
    assert f"{TRUTH[key].params:,}" in doc


@pytest.mark.parametrize("key", slow_if_deep(set(TRUTH) - BLOCKS - TIMM))
def test_without_head_the_features_are_left_under_the_same_names(key: str) -> None:
    bare = build(key, head="none")
    assert frozenset(bare.state_dict()) == counted(key).feature_names
    assert list(dict(bare.named_children())) == ["features"]
    assert counted(key).features == TRUTH[key].features


@pytest.mark.parametrize("key", sorted(TIMM))
def test_without_head_timms_networks_give_their_last_map(key: str) -> None:
    assert tuple(run(build(key, head="none"), TRUTH[key].input).shape[1:]) == TRUTH[key].features


@pytest.mark.parametrize("key", slow_unless_first(set(TRUTH) - BLOCKS))
def test_classes_and_channels_can_be_chosen(key: str) -> None:
    truth = TRUTH[key]
    channels = truth.input[0] + 2
    net = build(key, num_classes=7, in_channels=channels)
    assert tuple(run(net, (channels, *truth.input[1:])).shape) == (2, 7)


@pytest.mark.parametrize("key", sorted(BLOCKS))
def test_blocks_take_other_channels(key: str) -> None:
    channels = TRUTH[key].input[0] * 2
    assert run(build(key, in_channels=channels), (channels, *TRUTH[key].input[1:])).shape[0] == 2
