"""Counts of operators that torch has no formula for, each against its own; a figure that is not whole says so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import operator_networks
import pytest
import torch
from formula_networks import FORMULAS, Net
from torch import nn

from archbench.analyze.counts import count, count_module
from archbench.catalog.card import Shown
from archbench.known import show
from archbench.model.cell import Network
from archbench.rendering.catalogue import card_report
from archbench.rendering.text import render_terminal


def named(network: Any) -> Network:
    assert str(Path(__file__).parent) in sys.path
    return Network(name=f"operator_networks:{network.__name__}", input_size=operator_networks.SIDE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", operator_networks.ALL, ids=lambda network: network.__name__)
def test_macs_are_those_of_the_formula(network: Any) -> None:
    counts = count(named(network), allow_code=True)
    assert counts.macs == getattr(network, "stem", operator_networks.STEM) + network.macs
    assert tuple(one.operator for one in counts.unknown_products) == getattr(network, "unknown", ())


def shown(network: Any) -> Shown:
    return show(named(network).name, input_size=operator_networks.SIDE, allow_code=True)


def test_what_is_not_whole_says_so() -> None:
    said = render_terminal(card_report(shown(operator_networks.Spectrum)))
    assert "≥ " in said
    assert "are not counted: aten.fft_rfft x1" in said
    assert "≥ " not in render_terminal(card_report(shown(operator_networks.Vector)))


def test_layers_that_torch_does_not_see_are_said() -> None:
    card = shown(operator_networks.Hidden)
    assert card.params == WEIGHTS
    assert card.hidden_params == 6 * 4 + 4 + 4 * 5 + 5
    assert "beside them 53 parameters that torch does not see" in render_terminal(card_report(card))


WEIGHTS = operator_networks.WIDTH * (3 * 4 + 1 + 1)


def test_a_network_that_keeps_tensors_meets_none_without_data() -> None:
    """Neither in the next figure nor, afterwards, in this process."""
    card = shown(operator_networks.Remembering)
    assert card.macs == operator_networks.STEM
    assert card.predicted_inference_peak_bytes is not None
    assert card.predicted_training_peak_bytes is not None
    assert not any(table.is_meta or type(table) is not torch.Tensor for table in operator_networks.TABLES.values())


@pytest.mark.parametrize("network", ["OneByOne", "ViewByView", "Crosswise"])
def test_a_network_whose_memory_is_no_line_over_the_batch_is_shown_without_it(network: str) -> None:
    card = shown(getattr(operator_networks, network))
    assert card.macs == operator_networks.STEM
    assert card.predicted_inference_peak_bytes is None
    assert "so no line over the batch is" in (card.unpredicted or "")


@pytest.mark.slow
def test_a_probe_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archbench.analyze.fresh.PREDICTING_S", 2.0)
    card = shown(operator_networks.ThousandByThousand)
    assert card.macs == operator_networks.STEM
    assert card.predicted_inference_peak_bytes is None
    assert card.unpredicted == "memory of inference is not predicted: not done within 2 s"


def test_no_network_of_the_catalogue_is_a_lower_bound() -> None:
    from archbench.catalog import counted_by_label

    assert not [label for label, one in counted_by_label().items() if one.counts.unknown_products]


def test_memory_of_training_is_known_where_a_backward_pass_has_run_before() -> None:
    """As in a notebook: after it, autograd refuses to work in processes that are forked."""
    torch.ones(1, requires_grad=True).sum().backward()
    assert shown(operator_networks.Vector).predicted_training_peak_bytes is not None


@pytest.mark.parametrize("name", FORMULAS)
def test_macs_are_those_of_the_definition(name: str) -> None:
    work, weights, layer, macs = FORMULAS[name]
    counts = count_module(Net(work, weights, layer() if layer else None), (3, 16, 16))
    assert counts.macs == macs
    assert not counts.unknown_products


def test_frozen_parameters_are_said() -> None:
    whole = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    whole[0].requires_grad_(False)
    counts = count_module(whole, (3, 3, 3))
    assert (counts.params, counts.frozen_params) == (10, 112)
    counts = count_module(whole.requires_grad_(False), (3, 3, 3))
    assert (counts.params, counts.frozen_params) == (122, 122)
