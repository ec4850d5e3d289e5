"""Which published accuracy stands for a network, and when none may."""

from __future__ import annotations

from msgspec.structs import replace

from archbench.catalog.entry import IMAGENET, NEUTRAL_OPTIONS, Accuracy, Entry
from archbench.catalog.tables import Weights, weights_by_constructor
from archbench.model.cell import Network
from archbench.model.empty_record import Facts

DEFAULT_TAG = "IMAGENET1K_V1"
"""The weights that stand for a torchvision network.

Most V1 weights share one plain recipe (90 epochs, crop 224), so that they compare architectures. V2 weights compare
recipes: the newer one lifts ResNet-50 by 4.7 points, and not every network has it.
"""


def default_weights(constructor: str) -> Weights | None:
    """torchvision's weights that stand for its network `constructor`; `None` for a network without any.

    Where there is no `DEFAULT_TAG` (ViT-H/14, RegNetY-128GF), the weights for the smallest images.
    """
    published = weights_by_constructor().get(constructor, ())
    plain = next((weights for weights in published if weights.accuracy.tag == DEFAULT_TAG), None)
    return plain or min(published, key=lambda weights: weights.accuracy.crop or 0, default=None)


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


def facts_of(entry: Entry, network: Network) -> Facts:
    """What is known of `network` (an `entry` with departures) without building it.

    Accuracy is given only where it is of this function: not with another number of classes or channels, nor with
    options that change the network. Where only the input size or the head departs, the figure says so. What a suite
    states of its network goes before that, as it is.
    """
    if network.accuracy is not None:
        stated = network.accuracy
        return Facts(
            family=entry.family,
            source=entry.source,
            input_size=entry.input_size,
            top1=stated.top1,
            top5=stated.top5,
            accuracy_source=stated.source,
            accuracy_dataset=_DATASETS.get(_bare(stated.dataset), stated.dataset),
        )
    accuracy = next(iter(accuracies(entry)), None)
    if accuracy is None or not _is_as_published(network):
        return Facts(family=entry.family, source=entry.source, input_size=entry.input_size)
    source = accuracy.source
    if network.input_size not in (None, entry.input_size):
        source += f"; not at this input size of {network.input_size}"
    if network.head == "none":
        source += "; with its classifier"
    return Facts(
        family=entry.family,
        source=entry.source,
        input_size=entry.input_size,
        top1=accuracy.top1,
        top5=accuracy.top5,
        accuracy_source=source,
        accuracy_dataset=accuracy.dataset,
    )


_DATASETS = {"imagenet": IMAGENET, "imagenet1k": IMAGENET, "cifar10": "CIFAR-10", "mnist": "MNIST"}
"""The catalogue's spelling of its data sets: `imagenet` and `ImageNet` are one."""


def _bare(dataset: str) -> str:
    return "".join(letter for letter in dataset.lower() if letter.isalnum())


def _is_as_published(network: Network) -> bool:
    bare = replace(network, input_size=None, head="classifier", options={})
    return bare == Network(name=network.name) and network.options.keys() <= NEUTRAL_OPTIONS
