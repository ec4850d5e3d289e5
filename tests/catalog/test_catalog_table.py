"""The hand-written table: well formed, and its published figures against what archbench counts."""

from __future__ import annotations

import re

import pytest

from archbench.catalog import SOURCES, Entry, counted_by_label, entries
from archbench.catalog.names import accuracies
from archbench.catalog.tables import default_weights, format_shape, parse_shape
from archbench.model.axes import Scalar
from archbench.model.cell import Network

ROWS = list(entries().values())
TOLERANCE = 0.025
"""Papers round to two figures; a row that is farther off must say why in its note."""


def test_every_alias_names_one_network_and_none_hides_a_name() -> None:
    aliases = [alias for entry in ROWS for alias in entry.aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & {entry.name for entry in ROWS}


@pytest.mark.parametrize("entry", ROWS, ids=lambda entry: entry.name)
def test_row_is_well_formed(entry: Entry) -> None:
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", entry.name)
    assert entry.source in SOURCES
    assert entry.family is not None
    assert re.fullmatch(r"[a-z]+", entry.family)
    assert entry.idea
    assert entry.input_shape is not None
    assert len(entry.input_shape) in (1, 3)
    assert entry.arxiv is None or re.fullmatch(r"\d{4}\.\d{4,5}", entry.arxiv)
    assert (entry.paper is None) == (entry.year is None)
    assert entry.year is None or 1998 <= entry.year <= 2022


@pytest.mark.parametrize("entry", [e for e in ROWS if e.arxiv], ids=lambda entry: entry.name)
def test_year_is_not_after_the_preprint(entry: Entry) -> None:
    assert entry.arxiv is not None
    assert entry.year is not None
    assert entry.year <= 2000 + int(entry.arxiv[:2])


@pytest.mark.parametrize("entry", [e for e in ROWS if e.accuracy], ids=lambda entry: entry.name)
def test_published_accuracy_says_what_it_is(entry: Entry) -> None:
    accuracy = entry.accuracy
    assert accuracy is not None
    assert accuracy.dataset in ("ImageNet", "CIFAR-10", "MNIST")
    assert accuracy.protocol
    assert accuracy.origin
    assert all(40 < figure < 100 for figure in (accuracy.top1, accuracy.top5) if figure is not None)
    assert accuracy.top1 is None or accuracy.top5 is None or accuracy.top1 < accuracy.top5


@pytest.mark.parametrize("entry", [e for e in ROWS if e.published], ids=lambda entry: entry.name)
def test_counted_size_is_the_published_one_or_the_note_says_why_not(entry: Entry) -> None:
    counts = counted_by_label()[entry.name].counts
    assert entry.published is not None
    pairs = ((counts.params, entry.published.params), (counts.macs, entry.published.macs))
    off = [counted / published - 1 for counted, published in pairs if published]
    assert off
    assert max(map(abs, off)) <= TOLERANCE or entry.note, off
    # Even what a note explains is the same network.
    assert max(map(abs, off)) < 0.15


@pytest.mark.parametrize("entry", [e for e in ROWS if e.source == "torchvision"], ids=lambda entry: entry.name)
def test_counted_parameters_are_torchvisions_own_figure(entry: Entry) -> None:
    # torchvision publishes googlenet without its auxiliary heads and inception_v3 with its one.
    options: dict[str, Scalar] = {"aux_logits": True} if entry.name == "inception_v3" else {}
    counted = counted_by_label()[Network(name=entry.name, options=options).label].counts
    weights = default_weights(entry.constructor)
    assert weights is not None
    assert counted.params == weights.size.params


def test_tables_cover_the_catalogue_and_nothing_else() -> None:
    expected = {entry.name for entry in ROWS}
    expected |= {Network(name=entry.name, options=options).label for entry in ROWS for options in entry.variants}
    assert set(counted_by_label()) == expected
    assert all(counted.counts.stages for counted in counted_by_label().values() if counted.counts.depth > 1)


def test_known_figures() -> None:
    """A few that everybody knows, so that no table can be stale as a whole."""
    params = {name: counted.counts.params for name, counted in counted_by_label().items()}
    assert params["resnet50"] == 25_557_032
    assert params["resnet50_v1"] == 25_557_032
    assert params["googlenet"] == 6_624_904
    assert params["googlenet[aux_logits=true]"] == 13_004_888
    assert params["inception_v3"] == 23_834_568
    assert params["lenet5"] == 60_000
    macs = {name: counted.counts.macs for name, counted in counted_by_label().items()}
    assert macs["resnet50"] == 4_089_184_256
    assert round(macs["resnet50_v1"] / 1e9, 2) == 3.86


def test_cifar_networks_are_not_mixed_into_the_imagenet_families() -> None:
    """A suite at 224 px that says `{family: resnet}` shall not get a network for 32 px."""
    for family in ("resnet", "densenet", "efficientnet", "convnext", "vgg"):
        sizes = {entry.input_size for entry in ROWS if entry.family == family}
        assert min(size for size in sizes if size is not None) >= 224


def test_accuracies_put_the_default_tag_first_and_the_paper_last() -> None:
    tags = [accuracy.tag for accuracy in accuracies(entries()["resnet50"])]
    assert tags == ["IMAGENET1K_V1", "IMAGENET1K_V2", None]


@pytest.mark.parametrize("shape", [(3, 224, 224), (256,), None])
def test_shapes_survive_the_table(shape: tuple[int, ...] | None) -> None:
    assert parse_shape(format_shape(shape)) == shape
