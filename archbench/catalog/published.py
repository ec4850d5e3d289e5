"""What is known of a network without building it: its accuracy, as others have published it, their weights, its counts.

Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import asdict, replace

from archbench.catalog.names import known, resolve
from archbench.catalog.tables import (
    IMAGENET,
    NEUTRAL_OPTIONS,
    Accuracy,
    Entry,
    counted_by_label,
    counted_with,
    default_weights,
    entries,
    timm_tags,
    weights_by_constructor,
)
from archbench.model.axes import AS_USUAL, Scalar
from archbench.model.cell import Network
from archbench.model.counts import Counts
from archbench.model.errors import UsageError
from archbench.model.record import Facts


def accuracies(entry: Entry) -> tuple[Accuracy, ...]:
    """Every accuracy that is published for `entry`, the one that stands for it first."""
    of_paper = () if entry.accuracy is None else (entry.accuracy,)
    if entry.source != "torchvision":
        return of_paper
    default = default_weights(entry.constructor)
    others = (weights for weights in weights_by_constructor().get(entry.constructor, ()) if weights != default)
    first = () if default is None else (default.accuracy,)
    usable = (weights.accuracy for weights in others if weights.accuracy.top1 is not None)
    return (*first, *usable, *of_paper)


def facts(network: Network) -> Facts:
    """What is known of `network` without building it; `None` where nothing is. Raises `UsageError` for an unknown name.

    Accuracy is given only where it is of this function: not with another number of classes or channels, nor with
    options that change the network. Where only the input size or the head departs, the figure says so. What a suite
    states of its network goes before that, as it is.
    """
    entry = resolve(network.name, allow_code=True)  # nothing is run here, so the user's own code needs no permission
    found = Facts(family=entry.family, source=entry.source, input_size=entry.input_size)
    if network.accuracy is not None:
        stated = network.accuracy
        dataset = _DATASETS.get("".join(filter(str.isalnum, stated.dataset.lower())), stated.dataset)
        return replace(
            found, top1=stated.top1, top5=stated.top5, accuracy_source=stated.source, accuracy_dataset=dataset
        )
    accuracy = next(iter(accuracies(entry)), None)
    if accuracy is None or not _is_as_published(network):
        return found
    source = accuracy.source
    if network.input_size not in (None, entry.input_size):
        source += f"; not at this input size of {network.input_size}"
    if network.head != "classifier":
        source += "; with its classifier"
    return replace(
        found, top1=accuracy.top1, top5=accuracy.top5, accuracy_source=source, accuracy_dataset=accuracy.dataset
    )


_DATASETS = {"imagenet": IMAGENET, "imagenet1k": IMAGENET, "cifar10": "CIFAR-10", "mnist": "MNIST"}
"""The catalogue's spelling of its data sets: `imagenet` and `ImageNet` are one."""


def _is_as_published(network: Network) -> bool:
    bare = replace(network, input_size=None, options={}, **asdict(AS_USUAL))
    return bare == Network(name=network.name) and network.options.keys() <= NEUTRAL_OPTIONS


def counts_of(network: Network, versions: Mapping[str, str | None]) -> Counts | None:
    """What the tables have counted of `network` with these very versions of torch and of the library that builds it.

    `None` where they were made with others, or lack it: then it has to be counted.
    """
    found = counted_by_label().get(network.label)
    if found is None:
        return None
    needed = counted_with().keys() & {"torch", resolve(network.name).source}
    alike = all((versions.get(name) or "").partition("+")[0] == counted_with()[name] for name in needed)
    return found.counts if alike else None


def year_of(name: str) -> int | None:
    """Year of a network's first publication; `None` where none is known, or no such network."""
    found = _known(name)
    return None if found is None else found.year


def dataset_of(name: str) -> str | None:
    """The data set of the accuracy that stands for a network; `None` where none is known, or no such network."""
    found = _known(name)
    return None if found is None else next((one.dataset for one in accuracies(found)), None)


def _known(name: str) -> Entry | None:
    try:
        return known(name, allow_code=True)
    except UsageError:  # of another version's catalogue
        return None


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
