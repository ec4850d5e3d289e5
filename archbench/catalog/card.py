"""Everything that archbench says of a network without timing it: what `archbench list` and `archbench show` print.

And the line of Python that makes it with its published weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from archbench.catalog.names import accuracies, facts, resolve
from archbench.catalog.networks import docstring_of
from archbench.catalog.tables import (
    Accuracy,
    Counted,
    Entry,
    PublishedSize,
    Source,
    counted_by_label,
    default_weights,
    entries,
    papers,
    timm_tags,
)
from archbench.model.axes import Scalar
from archbench.model.cell import Network
from archbench.model.counts import Level, OperatorCalls, SecondOpinion, Stage
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


class Variant(Struct, frozen=True, kw_only=True):
    """The same network under options that change its size."""

    options: dict[str, Scalar]
    params: int
    macs: int


class Shown(Summary, frozen=True, kw_only=True):
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
    batch_size: int | None = None
    """For which memory is predicted; this and what follows is known only of a network that was built."""
    predicted_inference_peak_bytes: int | None = None
    """Live tensor bytes of one fp32 step on the CPU, weights and input included."""
    predicted_training_peak_bytes: int | None = None
    unpredicted: str | None = None
    """Why a prediction is missing."""
    second_opinion: SecondOpinion | None = None
    no_second_opinion: str | None = None
    """Why there is none, where one was asked for."""


def summary(entry: Entry) -> Summary:
    """`entry` in one line, from the tables alone."""
    network = Network(name=entry.name)
    return Summary(**_in_one_line(entry, network, stored(network)))


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


def card(entry: Entry, network: Network, counted: Counted | None, **of_a_built: Any) -> Shown:
    """All that is known of `network` (an `entry` with departures), with what was `counted` of it."""
    counts = None if counted is None else counted.counts
    return Shown(
        **_in_one_line(entry, network, counted),
        variant=network.label,
        constructor=entry.constructor,
        options={**entry.options, **network.options},
        **_fields(counts, "activations", "activation_bytes", "weight_bytes", "buffers", "idle_params", "depth"),
        **_fields(counts, "hidden_params", "frozen_params"),  # no network of the tables has any
        feature_width=None if counted is None else counted.feature_width,
        published=_published(entry),
        accuracies=accuracies(entry),
        variants=_variants(entry),
        **_fields(counts, "stages", "pyramid", "unknown_products", without=()),
        folds=counts is not None and counts.folds,
        note=entry.note,
        bibtex=_bibtex(entry),
        about=docstring_of(entry.constructor) if entry.source == "archbench" else None,
        **of_a_built,
    )


def stored(network: Network) -> Counted | None:
    """What the package's tables have counted of `network`, departures included; `None` where it must be built."""
    return counted_by_label().get(network.label)


def _in_one_line(entry: Entry, network: Network, counted: Counted | None) -> dict[str, Any]:
    """The fields of `Summary`."""
    known = facts(network)
    counts = None if counted is None else counted.counts
    shape = entry.input_shape if counts is None else counts.input_shape
    return {
        **_fields(entry, "name", "aliases", "family", "year", "source", "idea", "paper", "arxiv"),
        **_fields(counts, "params", "macs", "flops"),
        **_fields(known, "top1", "top5", "accuracy_source"),
        "macs_lower_bound": counts is not None and bool(counts.unknown_products),
        "dataset": known.accuracy_dataset,
        "input_size": shape[-1] if shape is not None and len(shape) == 3 else None,
        "input_shape": shape,
    }


def _fields(of: object, *names: str, without: object = None) -> dict[str, Any]:
    """Those of a struct, as they are; where there is none, each is what it is `without` one."""
    return {name: getattr(of, name, without) for name in names}


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


def weights_tag(name: str) -> str | None:
    """The tag for any name that a result may carry; `None` where no weights are known, or the name is not."""
    entry = entries().get(name)
    if entry is not None and entry.source == "timm":
        return timm_tags().get(entry.constructor)
    library, _, constructor = name.partition(":")
    if entry is not None:
        library, constructor = entry.source, entry.constructor
    if library == "torchvision":
        weights = default_weights(constructor)
        return None if weights is None else weights.accuracy.tag
    # Which weights stand behind a bare timm name only timm knows; a name with a tag says it.
    return constructor.partition(".")[2] or None if library == "timm" else None


def loading_line(network: Network) -> str:
    """One line of Python that makes `network` with its published weights, or says in a comment why without them.

    Weights belong to the published head and channels: a network with other ones is loaded as published, to be changed.
    """
    try:
        entry = resolve(network.name, allow_code=True)
    except UsageError:
        return f"# {network.name!r} is not in this version's catalogue"
    tag = weights_tag(network.name)
    # Published weights hold the auxiliary heads: torchvision refuses `aux_logits=False` beside them, and GoogLeNet's go
    # by themselves after loading.
    options = {k: v for k, v in {**entry.options, **network.options}.items() if (k, v) != ("aux_logits", False)}
    if entry.source == "torchvision":
        words = [repr(entry.constructor), f"weights={tag!r}", *_keywords(options)]
        return f"model = torchvision.models.get_model({', '.join(words)})" + _departures(network)
    if entry.source == "timm":
        tagged = entry.constructor if tag is None else f"{entry.constructor}.{tag}"
        words = [repr(tagged), "pretrained=True", *_keywords(options)]
        return f"model = timm.create_model({', '.join(words)})" + _departures(network)
    if entry.source == "archbench":
        words = [f"name={network.name!r}", *([f"options={network.options!r}"] if network.options else [])]
        return f"model = archbench.catalog.build.build(Network({', '.join(words)}))  # no published weights"
    module, _, function = network.name.partition(":")
    return f"model = {module}.{function}({', '.join(_keywords(network.options))})  # your own code"


def _keywords(options: Mapping[str, Scalar]) -> list[str]:
    return [f"{name}={value!r}" for name, value in options.items()]


def _departures(network: Network) -> str:
    changed = [name for name in ("num_classes", "in_channels") if getattr(network, name) is not None]
    return f"  # as published; measured with another {' and '.join(changed)}" if changed else ""
