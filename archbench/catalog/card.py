"""Everything that archbench says of a network without timing it: what `archbench list` and `archbench show` print."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from archbench.catalog.networks import docstring_of
from archbench.catalog.published import accuracies, facts
from archbench.catalog.tables import (
    Accuracy,
    Counted,
    Entry,
    PublishedSize,
    Source,
    counted_by_label,
    default_weights,
    papers,
)
from archbench.model.axes import Scalar
from archbench.model.cell import Network
from archbench.model.counts import Level, OperatorCalls, Stage
from archbench.model.errors import UsageError
from archbench.query.expression import holds, leaves
from archbench.query.parsing import column_named, parse


class Summary(Struct, frozen=True, kw_only=True):
    """A network in one line. `None` where it is not known without building it; figures are per image."""

    name: str
    aliases: tuple[str, ...]
    family: str | None
    year: int | None
    source: Source
    idea: str | None
    params: int | None
    macs: int | None
    flops: int | None
    """2 x `macs`."""
    macs_lower_bound: bool
    """Operators with products were not counted, so `macs` and `flops` are at least that much."""
    top1: float | None
    """Published, in percent; not comparable without `accuracy_source`."""
    top5: float | None
    dataset: str | None
    accuracy_source: str | None
    input_size: int | None
    """Side of the square input in pixels; `None` for vectors."""
    input_shape: tuple[int, ...] | None
    paper: str | None
    arxiv: str | None


_COUNTED = ("activations", "activation_bytes", "weight_bytes", "buffers", "idle_params", "depth")
"""Of `Counts`, as they are."""
_OF_A_BUILT = ("hidden_params", "frozen_params")
"""The same; no network of the tables has any."""


class Variant(Struct, frozen=True, kw_only=True):
    """The same network under options that change its size."""

    options: dict[str, Scalar]
    params: int
    macs: int


class Card(Summary, frozen=True, kw_only=True):
    """All that is known of a network."""

    variant: str
    """The name with whatever departs from the network's defaults in brackets."""
    constructor: str
    options: dict[str, Scalar]
    activations: int | None
    """Elements in the outputs of convolutions and linear layers, per image."""
    activation_bytes: int | None
    """The same in fp32."""
    weight_bytes: int | None
    """Parameters and buffers."""
    buffers: int | None
    """Elements in buffers."""
    idle_params: int | None
    """Parameters that inference never uses: auxiliary heads, mostly."""
    frozen_params: int | None
    """Parameters that ask for no gradient: beside `params`, or all of them."""
    hidden_params: int | None
    """Parameters that inference uses and the network does not hold, beside `params`: no optimizer trains them."""
    depth: int | None
    """Weight layers on the longest path to an output."""
    feature_width: int | None
    """Channels of the features under the classifier."""
    published: tuple[PublishedSize, ...]
    """Sizes as others have them, to be held against the figures above."""
    accuracies: tuple[Accuracy, ...]
    """All that are published; the first is `top1` and `top5`."""
    variants: tuple[Variant, ...]
    stages: tuple[Stage, ...]
    pyramid: tuple[Level, ...]
    """The maps that it gives, where it gives several."""
    folds: bool
    """Its figures are those of the form for training, which folds into a smaller one."""
    unknown_products: tuple[OperatorCalls, ...]
    """Operators that were not counted and may hold products."""
    note: str | None
    bibtex: str | None
    """The paper's entry for a bibliography; `None` where the catalogue names no paper."""
    about: str | None
    """Source, shapes and departures of an own network, as its docstring has them."""


def summary(entry: Entry) -> Summary:
    """`entry` in one line, from the tables alone."""
    network = Network(name=entry.name)
    return _summary(entry, network, stored(network))


LISTED = {
    **{name: name for name in ("family", "year", "source", "params", "macs", "flops", "top1", "top5", "input_size")},
    "architecture": "name",
    "accuracy_dataset": "dataset",
    "accuracy_source": "accuracy_source",
}
COUNTED = ("activations", "weight_bytes", "depth", "feature_width")


def columns_of(entry: Entry) -> dict[str, object]:
    """What the tables say of a network, by the names of columns of results, in their units: for conditions on it."""
    counted = stored(Network(name=entry.name))
    one = asdict(summary(entry))
    return {
        **{column: one[field] for column, field in LISTED.items()},
        **{column: None if counted is None else getattr(counted.counts, column) for column in COUNTED[:-1]},
        "feature_width": None if counted is None else counted.feature_width,
    }


def matching(entries: Iterable[Entry], where: Iterable[str], sort: str | None = None) -> list[Entry]:
    """Those that satisfy every condition, by the column `sort` (`-top1`: the largest first), nulls last.

    Raises `UsageError` for what is no condition, or names a column that the catalogue does not have.
    """
    conditions = [parse(text) for text in where]
    order = None if sort is None else column_named(sort.removeprefix("-")).name
    known = {*LISTED, *COUNTED}
    for column in [leaf.column for condition in conditions for leaf in leaves(condition)] + [order] * bool(order):
        if column not in known:
            raise UsageError(
                f"the catalogue has no {column}, which has to be measured; it has {', '.join(sorted(known))}"
            )
    rows = [(columns_of(entry), entry) for entry in entries]
    rows = [(row, entry) for row, entry in rows if all(holds(condition, row) for condition in conditions)]
    if order is not None:
        there = [pair for pair in rows if pair[0][order] is not None]
        there.sort(key=lambda pair: pair[0][order], reverse=str(sort).startswith("-"))  # type: ignore[arg-type, return-value]
        rows = there + [pair for pair in rows if pair[0][order] is None]
    return [entry for _, entry in rows]


def card(entry: Entry, network: Network, counted: Counted | None) -> Card:
    """All that is known of `network` (an `entry` with departures), with what was `counted` of it."""
    counts = None if counted is None else counted.counts
    as_counted: dict[str, Any] = {name: getattr(counts, name, None) for name in (*_COUNTED, *_OF_A_BUILT)}
    return Card(
        **asdict(_summary(entry, network, counted)),
        variant=network.label,
        constructor=entry.constructor,
        options={**entry.options, **network.options},
        **as_counted,
        feature_width=None if counted is None else counted.feature_width,
        published=_published(entry),
        accuracies=accuracies(entry),
        variants=_variants(entry),
        stages=() if counts is None else counts.stages,
        pyramid=() if counts is None else counts.pyramid,
        folds=counts is not None and counts.folds,
        unknown_products=() if counts is None else counts.unknown_products,
        note=entry.note,
        bibtex=_bibtex(entry),
        about=docstring_of(entry.constructor) if entry.source == "archbench" else None,
    )


def stored(network: Network) -> Counted | None:
    """What the package's tables have counted of `network`, departures included; `None` where it must be built."""
    return counted_by_label().get(network.label)


def _summary(entry: Entry, network: Network, counted: Counted | None) -> Summary:
    known = facts(network)
    counts = None if counted is None else counted.counts
    shape = entry.input_shape if counts is None else counts.input_shape
    return Summary(
        name=entry.name,
        aliases=entry.aliases,
        family=entry.family,
        year=entry.year,
        source=entry.source,
        idea=entry.idea,
        params=None if counts is None else counts.params,
        macs=None if counts is None else counts.macs,
        flops=None if counts is None else counts.flops,
        macs_lower_bound=counts is not None and bool(counts.unknown_products),
        top1=known.top1,
        top5=known.top5,
        dataset=known.accuracy_dataset,
        accuracy_source=known.accuracy_source,
        input_size=shape[-1] if shape is not None and len(shape) == 3 else None,
        input_shape=shape,
        paper=entry.paper,
        arxiv=entry.arxiv,
    )


def _published(entry: Entry) -> tuple[PublishedSize, ...]:
    weights = default_weights(entry.constructor) if entry.source == "torchvision" else None
    found = (None if weights is None else weights.size, entry.published)
    # The row's "torchvision" is its metadata's figure, rounded.
    return tuple(size for size in found if size is not None and size.origin != "torchvision")


def _variants(entry: Entry) -> tuple[Variant, ...]:
    found = []
    for options in entry.variants:
        counted = counted_by_label()[Network(name=entry.name, options=options).label]
        found.append(Variant(options=options, params=counted.counts.params, macs=counted.counts.macs))
    return tuple(found)


def _bibtex(entry: Entry) -> str | None:
    """The entry in UTF-8. Its key is made as Google Scholar makes it: `he2015deep`."""
    paper = papers().get(entry.paper or "")
    if paper is None:
        return None
    family = re.sub(r"[^a-z]", "", paper["authors"].partition(",")[0].lower())
    word = next(word for word in re.findall(r"[a-z0-9]+", paper["paper"].lower()) if word not in ("a", "an", "the"))
    fields = {
        "author": paper["authors"],
        "title": f"{{{paper['paper']}}}",  # braces twice: capitals stay
        "year": str(entry.year),
        "howpublished": paper["published"],
        "eprint": paper["arxiv"],
        "archiveprefix": "arXiv" if paper["arxiv"] else "",
        "url": f"https://arxiv.org/abs/{paper['arxiv']}" if paper["arxiv"] else "",
    }
    lines = [f"  {name} = {{{value.replace('&', chr(92) + '&')}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{family}{entry.year}{word},", *lines, "}"])
