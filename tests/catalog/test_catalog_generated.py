"""The generated tables are what the generator would write today; a sample here, everything with `-m slow`."""

from __future__ import annotations

import csv
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import torchvision
from catalog_tables import accuracy_row, catalogued_networks
from torchvision.models import get_model_weights

from archbench import catalog
from archbench.analyze.counts import count
from archbench.catalog import counted_by_label, entries
from archbench.catalog.build import build, feature_width
from archbench.catalog.names import families_by_name
from archbench.catalog.tables import counted_with, default_weights, weights_by_constructor
from archbench.model.axes import Scalar
from archbench.model.cell import Network

TORCHVISION = sorted(families_by_name("torchvision"))
REMEDY = "stale: run python docs/catalog_tables.py"
with Path(catalog.__file__).with_name("accuracy.csv").open(newline="") as _file:
    ACCURACY_ROWS = {(row["network"], row["tag"]): row for row in csv.DictReader(_file)}
SAMPLE = ("resnet18", "squeezenet1_1", "alexnet", "vgg11_bn", "mobilenet_v3_small", "regnet_y_400mf", "vit_b_32")
COUNTED_SAMPLE = (
    "lenet5",
    "resnet20_cifar",
    "googlenet[aux_logits=true]",
    "resnet50_v1",
    "capsnet",
    "relu_chain",
    "scse",
)


@pytest.mark.parametrize("name", TORCHVISION)
def test_accuracy_is_as_the_installed_torchvision_publishes_it(name: str) -> None:
    stored = {weights.accuracy.tag: weights for weights in weights_by_constructor()[name]}
    for published in get_model_weights(name):
        row, weights = accuracy_row(name, published), stored.get(published.name)
        assert weights is not None, f"{published}: {REMEDY}"
        figures = (row["top1"] or None, row["top5"] or None, row["crop"], row["resize"], row["params"])
        accuracy = weights.accuracy
        assert figures == (accuracy.top1, accuracy.top5, accuracy.crop, accuracy.resize, weights.size.params), REMEDY
        assert weights.size.macs == round(float(str(row["gmacs"])) * 1e9), REMEDY
        assert ACCURACY_ROWS[name, published.name]["recipe_url"] == row["recipe_url"], REMEDY


def test_the_tables_say_with_which_libraries_they_were_counted() -> None:
    installed = {name: version(name) for name in ("torch", "torchvision", "timm")}
    if installed["torch"] == counted_with()["torch"]:  # a run trusts them only then
        assert counted_with() == installed, REMEDY


def test_all_eighty_are_there() -> None:
    assert len(weights_by_constructor()) >= 80
    assert all(default_weights(name) is not None for name in TORCHVISION)


@pytest.mark.parametrize("name", [n if n in SAMPLE else pytest.param(n, marks=pytest.mark.slow) for n in TORCHVISION])
def test_parameters_are_exactly_those_that_torchvision_publishes(name: str) -> None:
    """Golden: every set of weights of every classification network, at the image size that its positions need."""
    for weights in weights_by_constructor()[name]:
        # inception_v3's figure is with its auxiliary head, googlenet's without its two.
        options: dict[str, Scalar] = {"aux_logits": True} if name == "inception_v3" else {}
        size = weights.accuracy.crop if name.startswith("vit") else None
        with torch.device("meta"):
            module = build(Network(name=f"torchvision:{name}", options=options, input_size=size))
        assert sum(p.numel() for p in module.parameters() if p.requires_grad) == weights.size.params


def test_torchvision_publishes_googlenet_without_and_inception_v3_with_auxiliary_heads() -> None:
    for name, published_with in (("googlenet", False), ("inception_v3", True)):
        for aux_logits in (False, True):
            with torch.device("meta"):
                module = build(Network(name=name, options={"aux_logits": aux_logits}))
            weights = default_weights(name)
            assert weights is not None
            same = sum(p.numel() for p in module.parameters()) == weights.size.params
            assert same == (aux_logits == published_with)


@pytest.mark.parametrize(
    "network",
    [
        network if network.label in COUNTED_SAMPLE else pytest.param(network, marks=pytest.mark.slow)
        for network in catalogued_networks()
    ],
    ids=lambda network: network.label,
)
def test_counts_are_what_would_be_counted_today(network: Network) -> None:
    counts, stored = count(network), counted_by_label()[network.label]
    for figure in ("input_shape", "params", "idle_params", "buffers", "macs", "activations", "weight_bytes", "depth"):
        assert getattr(counts, figure) == getattr(stored.counts, figure), f"{figure} {REMEDY}"
    assert counts.stages == stored.counts.stages, REMEDY
    assert feature_width(network) == stored.feature_width, REMEDY


def test_generator_covers_the_catalogue() -> None:
    labels = [network.label for network in catalogued_networks()]
    assert len(labels) == len(set(labels))
    assert set(entries()) <= set(labels)


def test_the_table_was_made_by_a_torchvision_that_knows_all_installed_networks() -> None:
    assert set(torchvision.models.list_models(module=torchvision.models)) <= set(weights_by_constructor()), REMEDY
