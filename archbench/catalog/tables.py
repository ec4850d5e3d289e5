"""Reads the catalogue's tables: `architectures.csv` is written by hand, the rest by `archbench.catalog.generate`."""

from __future__ import annotations

import csv
import functools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
from msgspec import Struct

from archbench.catalog.entry import IMAGENET, UNUSUAL_RECIPES, Accuracy, Entry, PublishedSize
from archbench.model.counts import Counts, OperatorCalls, Stage

ARCHITECTURES = "architectures.csv"
ACCURACY = "accuracy.csv"
COUNTS = "counts.csv"
STAGES = "stages.csv"
TIMM_WEIGHTS = "timm_weights.csv"


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


@functools.cache
def timm_tags() -> Mapping[str, str]:
    """The tag of the weights that timm loads for each of its networks in the catalogue, by its name in timm."""
    return MappingProxyType({row["network"]: row["tag"] for row in _rows(TIMM_WEIGHTS)})


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


def parse_shape(text: str) -> tuple[int, ...] | None:
    """`3x224x224` as (3, 224, 224), `""` as None."""
    return tuple(int(side) for side in text.split("x")) if text else None


def format_shape(shape: tuple[int, ...] | None) -> str:
    """The other way round."""
    return "" if shape is None else "x".join(map(str, shape))


def _rows(file: str) -> Iterator[dict[str, str]]:
    with (Path(__file__).parent / file).open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines, strict=True)


def _filled(row: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in row.items() if value != ""}


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
    text = {key: row[key] for key in ("name", "source", "constructor", "family", "paper", "arxiv", "idea", "note")}
    known = {
        **_filled(text),
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
