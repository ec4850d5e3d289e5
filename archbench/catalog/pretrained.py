"""Which published weights a network's library loads, and the line of Python that loads them. Free of torch."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from archbench.catalog.accuracy import default_weights
from archbench.catalog.entry import Entry
from archbench.catalog.names import resolve
from archbench.catalog.tables import entries, timm_tags
from archbench.model.axes import Scalar
from archbench.model.cell import Network
from archbench.model.errors import UsageError


@functools.cache
def weights_tags() -> Mapping[str, str]:
    """By name, for every catalogued network that has some, the tag of the weights that `loading_line` names."""
    tags = {entry.name: _tag(entry) for entry in entries().values()}
    return {name: tag for name, tag in tags.items() if tag is not None}


def weights_tag(name: str) -> str | None:
    """The tag for any name that a result may carry; `None` where no weights are known, or the name is not."""
    if name in entries():
        return weights_tags().get(name)
    library, _, constructor = name.partition(":")
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
        name = entry.name.removeprefix("timm:") if entry.name.startswith("timm:") else _tagged(entry.constructor, tag)
        words = [repr(name), "pretrained=True", *_keywords(options)]
        return f"model = timm.create_model({', '.join(words)})" + _departures(network)
    if entry.source == "archbench":
        words = [f"name={network.name!r}", *([f"options={network.options!r}"] if network.options else [])]
        return f"model = archbench.catalog.build.build(Network({', '.join(words)}))  # no published weights"
    module, _, function = network.name.partition(":")
    return f"model = {module}.{function}({', '.join(_keywords(network.options))})  # your own code"


def _tag(entry: Entry) -> str | None:
    if entry.source == "torchvision":
        weights = default_weights(entry.constructor)
        return None if weights is None else weights.accuracy.tag
    return timm_tags().get(entry.constructor) if entry.source == "timm" else None


def _tagged(constructor: str, tag: str | None) -> str:
    return constructor if tag is None else f"{constructor}.{tag}"


def _keywords(options: Mapping[str, Scalar]) -> list[str]:
    return [f"{name}={value!r}" for name, value in options.items()]


def _departures(network: Network) -> str:
    changed = [name for name in ("num_classes", "in_channels") if getattr(network, name) is not None]
    return f"  # as published; measured with another {' and '.join(changed)}" if changed else ""
