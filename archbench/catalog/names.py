"""From what a user writes to the network that is meant, and what is known of that without building it. Free of torch.

No library that could build it is imported either.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Literal, get_args

from msgspec.structs import asdict, replace

from archbench.catalog.tables import (
    IMAGENET,
    NEUTRAL_OPTIONS,
    Accuracy,
    Entry,
    counted_by_label,
    counted_with,
    default_weights,
    entries,
    weights_by_constructor,
)
from archbench.model.axes import AS_USUAL
from archbench.model.cell import Network, StatedAccuracy, is_passed
from archbench.model.counts import Counts
from archbench.model.errors import UsageError, did_you_mean
from archbench.model.record import Facts

Library = Literal["torchvision", "timm"]
LIBRARIES: tuple[Library, ...] = get_args(Library)
_USER_CODE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

_LISTS: dict[Library, str] = {"torchvision": "torchvision.models.list_models()", "timm": "timm.list_models()"}
"""How to see all of a library's names."""
_NEAR = 0.6
"""How much of two names has to agree (difflib's ratio) for one to be suggested for the other."""


def resolve(name: str, *, allow_code: bool = False) -> Entry:
    """Return the network that `name` means: of the catalogue, an alias, `torchvision:N`, `timm:N`, `module:function`.

    A timm name may carry a tag of pretrained weights (`timm:resnet50.a1_in1k`): of it only the architecture and its
    native input are used. Raises `UsageError` for an unknown name, with the nearest known ones of every source, and
    for `module:function` unless `allow_code`.
    """
    found = known(name, allow_code=allow_code)
    if found is None:
        near = _suggestions(name)
        if not near and (dotted := re.fullmatch(r"([^\W\d][\w.]*)\.([^\W\d]\w*)", name)):
            near = f"; a network of your own is named as {dotted[1]}:{dotted[2]}, with --allow-code"
        raise UsageError(f"unknown architecture {name!r}{near}; `archbench list` shows all that have a name")
    return found


def known(name: str, *, allow_code: bool = False) -> Entry | None:
    """As `resolve`, and `None` for an unknown name: to look for those near it takes milliseconds."""
    catalogued = entries().get(_canonical().get(name, name))
    if catalogued is not None:
        return catalogued
    prefix, colon, rest = name.partition(":")
    for library in LIBRARIES:
        if colon and prefix == library:
            return _of_library(library, rest)
    if is_passed(name):
        return Entry(name=name, source="user code", constructor=name)
    if prefix.endswith(".py"):
        raise UsageError(f"architecture {name!r} names a file, not a module; {_in_module(PurePath(prefix), rest)}")
    if _USER_CODE.fullmatch(name):
        if not allow_code:
            raise UsageError(f"architecture {name!r} runs code of yours: say --allow-code if you trust it")
        return Entry(name=name, source="user code", constructor=name)
    return None


def _in_module(file: PurePath, network: str) -> str:
    """How to name a network in a file: by the module that the file is, from a folder where Python finds that."""
    outside = file.is_absolute() or ".." in file.parts
    module = file.stem if outside else ".".join(file.with_suffix("").parts)
    there = f", run in {file.parent}" if outside else ""
    if network:
        return f"did you mean {module}:{network}{there}?"
    return f"name a class or function in it, as in {module}:Net{there}"


def family(name: str) -> tuple[Entry, ...]:
    """The catalogued networks of one family, in the table's order. Raises `UsageError` for an unknown family."""
    members = tuple(entry for entry in entries().values() if entry.family == name)
    if not members:
        known = list(dict.fromkeys(entry.family for entry in entries().values() if entry.family is not None))
        near = did_you_mean(name, known) or f"; there are {', '.join(known)}"
        raise UsageError(f"unknown family {name!r}{near}")
    return members


_DEFINITION = re.compile(r"^@register_model(?:\(\))?\s*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)

# Files that are called otherwise than the family they hold.
_FAMILIES = {
    "vision_transformer": "vit",
    "swin_transformer": "swin",
    "swin_transformer_v2": "swin",
    "inception_v3": "inception",
    "inception_v4": "inception",
    "inception_resnet_v2": "inception",
    "googlenet": "inception",
    "mobilenetv2": "mobilenet",
    "mobilenetv3": "mobilenet",
}
# Families that share a file with the one they grew from.
_PREFIXES = {"resnext": "resnext", "wide_resnet": "wideresnet", "seresnet": "senet", "seresnext": "senet"}


@functools.cache
def families_by_name(library: Library) -> Mapping[str, str]:
    """Every classification network of the installed `library`, with its family: one lower-case word.

    Read from its source files: importing it would cost seconds, and a list shipped with archbench would be wrong for
    every version but one. Both libraries mark each network with a decorator on the line above its definition, which a
    search finds in 0.1 s. Empty where the library is not installed, or is installed without its sources.
    """
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        return MappingProxyType({})
    found: dict[str, str] = {}
    for file in sorted((Path(spec.origin).parent / "models").glob("*.py")):
        family = _FAMILIES.get(file.stem, file.stem.replace("_", ""))
        for name in _DEFINITION.findall(file.read_text(encoding="utf-8")):
            found[name] = next((own for prefix, own in _PREFIXES.items() if name.startswith(prefix)), family)
    return MappingProxyType(found)


@functools.cache
def _canonical() -> Mapping[str, str]:
    return MappingProxyType({alias: entry.name for entry in entries().values() for alias in entry.aliases})


def _of_library(library: Library, name: str) -> Entry:
    families = families_by_name(library)
    constructor = name.partition(".")[0] if library == "timm" else name
    # No names at all means a library without sources: then only the worker, which imports it, can tell.
    if families and constructor not in families:
        near = _suggestions(name) or f"; `{_LISTS[library]}` names those that it has"
        raise UsageError(f"{library} has no classification network {name!r}{near}")
    full_name = f"{library}:{name}"
    for entry in entries().values():
        if entry.source == library and entry.constructor == name and entry.options.keys() <= NEUTRAL_OPTIONS:
            return replace(entry, name=full_name, aliases=())
    weights = default_weights(name) if library == "torchvision" else None
    side = None if weights is None else weights.accuracy.crop
    return Entry(
        name=full_name,
        source=library,
        constructor=constructor,
        family=families.get(constructor),
        input_shape=None if side is None else (3, side, side),
    )


def _suggestions(name: str) -> str:
    """`"; did you mean a, b?"` over the names of every source, each as it has to be written."""
    spelling: dict[str, str] = {}
    for library in reversed(LIBRARIES):
        spelling |= {known: f"{library}:{known}" for known in families_by_name(library)}
    spelling |= {alias.lower(): canonical for alias, canonical in _canonical().items()}
    spelling |= {known.lower(): known for known in entries()}
    near = difflib.get_close_matches(name.rpartition(":")[2].lower(), spelling, n=3, cutoff=_NEAR)
    return f"; did you mean {', '.join(dict.fromkeys(spelling[word] for word in near))}?" if near else ""


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
    accuracy: StatedAccuracy | Accuracy | None = network.accuracy or next(iter(accuracies(entry)), None)
    if accuracy is None or not (network.accuracy or _is_as_published(network)):
        return found
    source, dataset = accuracy.source, accuracy.dataset
    if network.accuracy is not None:
        dataset = _DATASETS.get("".join(filter(str.isalnum, dataset.lower())), dataset)
    else:
        if network.input_size not in (None, entry.input_size):
            source += f"; not at this input size of {network.input_size}"
        if network.head != "classifier":
            source += "; with its classifier"
    return replace(found, top1=accuracy.top1, top5=accuracy.top5, accuracy_source=source, accuracy_dataset=dataset)


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
