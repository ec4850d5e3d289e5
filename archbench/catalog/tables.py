"""What the catalogue says of a network, read from its tables. Free of torch.

`architectures.csv` is written by hand, the other tables by `docs/catalog_tables.py`.
"""

from __future__ import annotations

import csv
import functools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Struct

from archbench.model.axes import Scalar
from archbench.model.counts import Counts, OperatorCalls, Stage

Source = Literal["torchvision", "timm", "archbench", "user code"]
SOURCES: tuple[Source, ...] = ("torchvision", "timm", "archbench")
"""Where a catalogued network may come from."""

IMAGENET = "ImageNet"

NEUTRAL_OPTIONS = frozenset({"aux_logits", "memory_efficient"})
"""Options that change how a network is trained or stored, not what it computes: its published accuracy still holds."""


class Accuracy(Struct, frozen=True, kw_only=True):
    """One published accuracy in percent, and everything that it depends on.

    Figures of different protocols are not comparable: ten crops gain one to two points over one, a newer training
    recipe up to five. So a figure never travels without `source`.
    """

    top1: float | None
    top5: float | None
    dataset: str = IMAGENET
    origin: str
    """Who published it: `torchvision`, `paper`, `authors' repository`, ..."""
    protocol: str
    """How it was measured: `crop 224, resize 256`, or `10 crops 224`."""
    tag: str | None = None
    """torchvision's name for the weights."""
    crop: int | None = None
    """Side of the image that the network saw, in pixels, where the figure is torchvision's."""
    resize: int | None = None
    recipe: str | None = None
    """How the weights came about, where the figure is torchvision's."""
    source: str
    """All of that in one line: `torchvision IMAGENET1K_V1 (crop 224, resize 256)`, `paper: single crop 224`."""


NEWER_RECIPE = "torchvision's newer recipe"
SWAG = "pre-trained by SWAG on 3.6 billion other images"
UNUSUAL_RECIPES = frozenset({NEWER_RECIPE, SWAG})
"""Recipes that lift a network above what its architecture gave its siblings; named wherever the figure is."""


class PublishedSize(Struct, frozen=True, kw_only=True):
    """Parameters and MACs as somebody published them, to be held against what archbench counts."""

    params: int | None
    macs: int | None
    """Per image."""
    origin: str


class Entry(Struct, frozen=True, kw_only=True):
    """One network that can be built. `None` where the catalogue does not know."""

    name: str
    source: Source
    constructor: str
    """The function that builds it: torchvision's, timm's, one of `archbench.catalog.networks`, or the user's."""
    options: dict[str, Scalar] = {}
    """Options that make this network of the constructor's; a suite's options override them."""
    variants: tuple[dict[str, Scalar], ...] = ()
    """Options under which the network is another one worth counting (auxiliary heads)."""
    family: str | None = None
    year: int | None = None
    """Of first publication, on arXiv or in proceedings, whichever was earlier."""
    paper: str | None = None
    arxiv: str | None = None
    idea: str | None = None
    """What was new, in a few words."""
    input_shape: tuple[int, ...] | None = None
    """One native input without its batch axis: channels, height, width; or a vector's width."""
    aliases: tuple[str, ...] = ()
    published: PublishedSize | None = None
    accuracy: Accuracy | None = None
    """As the paper (or who else is named) has it; torchvision's weights: `names.accuracies`."""
    note: str | None = None
    """What the figures above need to be read rightly."""

    @property
    def full_name(self) -> str:
        """As the user wrote it after `timm:`, with the tag of its weights; the constructor of a catalogued network."""
        return self.name.removeprefix("timm:") if self.name.startswith("timm:") else self.constructor

    @property
    def input_size(self) -> int | None:
        """Side of the native input in pixels; `None` for vectors and where it is unknown."""
        return self.input_shape[-1] if self.input_shape is not None and len(self.input_shape) == 3 else None


ARCHITECTURES = "architectures.csv"
ACCURACY = "accuracy.csv"
COUNTS = "counts.csv"
STAGES = "stages.csv"
COUNTED_WITH = "counted_with.csv"
TIMM_WEIGHTS = "timm_weights.csv"
PAPERS = "papers.csv"
DEFAULT_TAG = "IMAGENET1K_V1"
"""The weights that stand for a torchvision network.

Most V1 weights share one plain recipe (90 epochs, crop 224), so that they compare architectures. V2 weights compare
recipes: the newer one lifts ResNet-50 by 4.7 points, and not every network has it.
"""


class Counted(Struct, frozen=True, kw_only=True):
    """What archbench counted of a network."""

    counts: Counts
    feature_width: int | None
    """Channels of the features under the classifier; `None` where there is no classifier to take off."""


class Weights(Struct, frozen=True, kw_only=True):
    """One set of weights that torchvision publishes, as its metadata describes it."""

    accuracy: Accuracy
    size: PublishedSize


@functools.cache
def entries() -> Mapping[str, Entry]:
    """The catalogue, by name, in the order of its table."""
    found: dict[str, Entry] = {}
    for row in _rows(ARCHITECTURES):
        try:
            found[row["name"]] = _entry(row)
        except (ValueError, msgspec.ValidationError) as error:
            raise ValueError(f"{ARCHITECTURES}: {row['name']}: {error}") from error
    return MappingProxyType(found)


@functools.cache
def weights_by_constructor() -> Mapping[str, tuple[Weights, ...]]:
    """Every set of weights of torchvision's classification networks, by the network's name in torchvision."""
    found: dict[str, list[Weights]] = defaultdict(list)
    for row in _rows(ACCURACY):
        found[row["network"]].append(_weights(row))
    return MappingProxyType({name: tuple(group) for name, group in found.items()})


def default_weights(constructor: str) -> Weights | None:
    """torchvision's weights that stand for its network `constructor`; `None` for a network without any.

    Where there is no `DEFAULT_TAG` (ViT-H/14, RegNetY-128GF), the weights for the smallest images.
    """
    published = weights_by_constructor().get(constructor, ())
    plain = next((weights for weights in published if weights.accuracy.tag == DEFAULT_TAG), None)
    return plain or min(published, key=lambda weights: weights.accuracy.crop or 0, default=None)


@functools.cache
def timm_tags() -> Mapping[str, str]:
    """The tag of the weights that timm loads for each of its networks in the catalogue, by its name in timm."""
    return MappingProxyType({row["network"]: row["tag"] for row in _rows(TIMM_WEIGHTS)})


@functools.cache
def papers() -> Mapping[str, Mapping[str, str]]:
    """By title: who wrote a paper, as BibTeX separates names, its number on arXiv or where else it was published."""
    return MappingProxyType({row["paper"]: row for row in _rows(PAPERS)})


@functools.cache
def counted_by_label() -> Mapping[str, Counted]:
    """What archbench counted at native input, by the network's label: `googlenet`, `googlenet[aux_logits=true]`."""
    stages: dict[str, list[Stage]] = defaultdict(list)
    for row in _rows(STAGES):
        stage = {**row, "name": row["stage"], "output_shape": parse_shape(row["output_shape"])}
        stages[row["network"]].append(msgspec.convert(stage, Stage, strict=False))
    found: dict[str, Counted] = {}
    for row in _rows(COUNTS):
        operators = (pair.rpartition("=") for pair in row["uncounted"].split())
        known: dict[str, object] = {
            **row,
            "input_shape": parse_shape(row["input_shape"]),
            "uncounted": [OperatorCalls(operator=name, calls=int(calls)) for name, _, calls in operators],
            "stages": stages[row["network"]],
        }
        width = row["feature_width"]
        found[row["network"]] = Counted(
            counts=msgspec.convert(known, Counts, strict=False), feature_width=int(width) if width else None
        )
    return MappingProxyType(found)


@functools.cache
def counted_with() -> Mapping[str, str]:
    """Versions of torch, and of the libraries that build networks, under which `counted_by_label` was counted."""
    return MappingProxyType({row["library"]: row["version"] for row in _rows(COUNTED_WITH)})


def parse_shape(text: str) -> tuple[int, ...] | None:
    """`3x224x224` as (3, 224, 224), `""` as None."""
    return tuple(int(side) for side in text.split("x")) if text else None


def format_shape(shape: tuple[int, ...] | None) -> str:
    """The other way round."""
    return "" if shape is None else "x".join(map(str, shape))


def _rows(file: str) -> Iterator[dict[str, str]]:
    with (Path(__file__).parent / file).open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines, strict=True)


def _entry(row: dict[str, str]) -> Entry:
    published = PublishedSize(
        params=_scaled(row["params_m"], 1e6), macs=_scaled(row["gmacs"], 1e9), origin=row["size_from"]
    )
    dataset = "" if row["dataset"] == IMAGENET else f"{row['dataset']}, "
    accuracy = Accuracy(
        top1=_real(row["top1"]),
        top5=_real(row["top5"]),
        dataset=row["dataset"],
        origin=row["accuracy_from"],
        protocol=row["protocol"],
        source=f"{row['accuracy_from']}: {dataset}{row['protocol']}",
    )
    text = ("name", "source", "constructor", "family", "paper", "arxiv", "idea", "note")
    known = {
        **{key: row[key] for key in text if row[key]},
        "year": int(row["year"]) if row["year"] else None,
        "options": json.loads(row["options"] or "{}"),
        "variants": json.loads(row["variants"] or "[]"),
        "input_shape": parse_shape(row["input"]),
        "aliases": row["aliases"].split(),
        "published": published if row["size_from"] else None,
        "accuracy": accuracy if row["accuracy_from"] else None,
    }
    return msgspec.convert(known, Entry)


def _weights(row: dict[str, str]) -> Weights:
    protocol = f"crop {row['crop']}, resize {row['resize']}"
    unusual = f"; {row['recipe']}" if row["recipe"] in UNUSUAL_RECIPES else ""
    accuracy = Accuracy(
        top1=_real(row["top1"]),
        top5=_real(row["top5"]),
        origin="torchvision",
        protocol=protocol,
        source=f"torchvision {row['tag']} ({protocol}{unusual})",
        tag=row["tag"],
        crop=int(row["crop"]),
        resize=int(row["resize"]),
        recipe=row["recipe"],
    )
    return Weights(
        accuracy=accuracy,
        size=PublishedSize(
            params=int(row["params"]), macs=_scaled(row["gmacs"], 1e9), origin=f"torchvision {row['tag']}"
        ),
    )


def _real(text: str) -> float | None:
    return float(text) if text else None


def _scaled(text: str, unit: float) -> int | None:
    return round(float(text) * unit) if text else None
