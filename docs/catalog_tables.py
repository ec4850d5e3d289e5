"""Writes the catalogue's tables that nobody should type: `python docs/catalog_tables.py [accuracy] [counts] [timm]`.

Run it after a change of `architectures.csv`, of an own network or of a counter, and when a new torchvision publishes
new weights. The tests say when a table has become stale.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import timm
import torchvision
from torchvision.models import WeightsEnum, get_model_weights, list_models

from archbench.analyze.counts import count
from archbench.catalog import tables
from archbench.catalog.build import feature_width
from archbench.catalog.names import LIBRARIES
from archbench.catalog.tables import (
    ACCURACY,
    COUNTED_WITH,
    COUNTS,
    NEWER_RECIPE,
    STAGES,
    SWAG,
    TIMM_WEIGHTS,
    entries,
    format_shape,
)
from archbench.model.cell import Network
from archbench.model.counts import Counts
from archbench.model.errors import UsageError

Row = Mapping[str, object]

# The first of these that stands in torchvision's description of some weights tells how they came about.
_RECIPES = {
    "SWAG": SWAG,
    "new training recipe": NEWER_RECIPE,
    "DeIT": "DeiT's recipe",
    "ported": "ported from the authors",
    "can't be used for classification": "features only",
}
_PLAIN_RECIPE = "plain recipe"


def accuracy_rows() -> Iterator[Row]:
    """One row for each set of weights of torchvision's classification networks. Downloads nothing."""
    for name in sorted(list_models(module=torchvision.models)):
        for weights in get_model_weights(name):
            yield accuracy_row(name, weights)


def accuracy_row(name: str, weights: WeightsEnum) -> Row:
    """What torchvision says of one set of weights."""
    meta = weights.meta
    transforms = weights.transforms()
    measured = {metric: value for metric, value in meta["_metrics"]["ImageNet-1K"].items() if not math.isnan(value)}
    return {
        "network": name,
        "tag": weights.name,
        "top1": measured.get("acc@1", ""),
        "top5": measured.get("acc@5", ""),
        "crop": transforms.crop_size[0],
        "resize": transforms.resize_size[0],
        "min_size": meta["min_size"][0],
        "params": meta["num_params"],
        "gmacs": meta["_ops"],
        "recipe": next((label for sign, label in _RECIPES.items() if sign in meta["_docs"]), _PLAIN_RECIPE),
        "recipe_url": meta["recipe"],
    }


def timm_rows() -> Iterator[Row]:
    """Which weights timm loads for each of its networks in the catalogue. Downloads nothing."""
    for entry in entries().values():
        config = timm.get_pretrained_cfg(entry.constructor) if entry.source == "timm" else None
        if config is not None and config.has_weights:
            yield {"network": entry.constructor, "tag": config.tag}


def catalogued_networks() -> Iterator[Network]:
    """Every network of the catalogue as it is, then its variants."""
    for entry in entries().values():
        yield Network(name=entry.name)
        yield from (Network(name=entry.name, options=options) for options in entry.variants)


def counts_row(network: Network, counts: Counts) -> Row:
    """What archbench counts of one network at its native input."""
    return {
        "network": network.label,
        "input_shape": format_shape(counts.input_shape),
        **{name: getattr(counts, name) for name in ("params", "idle_params", "buffers", "macs")},
        **{name: getattr(counts, name) for name in ("activations", "weight_bytes", "depth")},
        "feature_width": feature_width(network) or "",
        "uncounted": " ".join(f"{seen.operator}={seen.calls}" for seen in counts.uncounted),
    }


def stage_rows(network: Network, counts: Counts) -> Iterator[Row]:
    """The network's stages, in order."""
    for stage in counts.stages:
        yield {
            "network": network.label,
            "stage": stage.name,
            "kind": stage.kind,
            "output_shape": format_shape(stage.output_shape),
            "params": stage.params,
            "macs": stage.macs,
        }


def write(file: str, rows: Iterable[Row]) -> None:
    """Write `rows` beside the module that reads them."""
    listed = list(rows)
    with Path(tables.__file__).with_name(file).open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, listed[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
    print(f"{file}: {len(listed)} rows", file=sys.stderr)


def main(asked: list[str]) -> None:
    """Write the tables asked for, or all."""
    if unknown := set(asked) - {"accuracy", "counts", "timm"}:
        raise UsageError(f"no table {sorted(unknown)[0]!r}; there are accuracy, counts and timm")
    if "accuracy" in asked or not asked:
        write(ACCURACY, accuracy_rows())
    if "timm" in asked or not asked:
        write(TIMM_WEIGHTS, timm_rows())
    if "counts" in asked or not asked:
        counted = [(network, count(network)) for network in catalogued_networks()]
        write(COUNTS, (counts_row(network, counts) for network, counts in counted))
        write(STAGES, (row for network, counts in counted for row in stage_rows(network, counts)))
        write(COUNTED_WITH, [{"library": name, "version": version(name)} for name in ("torch", *LIBRARIES)])


if __name__ == "__main__":
    main(sys.argv[1:])
