"""From a `Network` to a module, its weights random or those that it names. Needs torch; for the worker and counting.

Under `torch.device("meta")` all of this works without data, which is how networks are counted.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Mapping

import torch
from msgspec.structs import replace
from torch import nn
from torch.nn.parameter import is_lazy

from archbench.catalog.inputs import Takes, refused, takes_inputs, tensors_in, told_by, with_size
from archbench.catalog.names import resolve
from archbench.catalog.networks import file_of
from archbench.catalog.roles import deployed, in_mode, pyramid
from archbench.catalog.tables import Entry, Source
from archbench.model.cell import Dtype, Input, Network, sides_of, text_of
from archbench.model.errors import UsageError, did_you_mean, first_line

# Imported at need: torchvision and timm take two seconds each, and one network needs one of them.
_MAKERS: dict[Source, str] = {"torchvision": "torchvision_networks", "timm": "timm_networks", "user code": "user_code"}

USER_CODE_INPUT = (3, 224, 224)
"""What a user's own network is given unless `input_size` or `in_channels` is set: it has no other way to say."""

CANDIDATE_SIZES = (28, 32, 64, 96, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)
"""Sides that are tried when a network cannot take the one asked for: those that suites and papers use."""


def build(network: Network, *, allow_code: bool = False) -> nn.Module:
    """Return `network` with random weights, or those that it names, on the current default device, in training mode.

    googlenet and inception_v3 come without auxiliary heads unless `options` has `aux_logits: true`. With
    `head="none"` the module returns its last feature map instead of class scores: [N, C, H, W], or tokens [N, T, C]
    for a vision transformer (timm's Swin keeps its channels last: [N, H, W, C]); with `head="features"` the last map of
    each stride from 4 on, timm's in a list, others in a dictionary by module. `deploy`: see `roles.deployed`.

    Raises `UsageError`: for a name that is unknown, an option that the network has not, an input size that it cannot
    take (saying which it can), user code that is not allowed or does not give a module.
    """
    entry = resolve(network.name, allow_code=allow_code)
    if network.head != "classifier" and network.num_classes is not None:
        raise UsageError(f"{network.label}: without its head the network has no classes; leave num_classes out")
    departs = network.input_size is not None and network.input_size != _native_shape(entry)[-1]
    if departs and entry.source != "user code":
        _require_size(entry, network, input_shape(network, allow_code=allow_code))
    follows = network.head == "features" and entry.source != "timm"
    module = _make(entry, replace(network, head="classifier") if follows else network)
    lazy = any(is_lazy(one) for one in (*module.parameters(), *module.buffers()))
    given = _taken(entry, network, module) if lazy or follows or network.deploy else None
    if lazy and given is not None:
        _let_shapes_be_known(network, module, given)
    # Under meta, as for counting, there is nothing to load weights into.
    if network.weights is not None and not torch.empty(0).is_meta:
        from archbench.catalog.weights import load_weights

        load_weights(module, network)
    if follows and given is not None:
        module = pyramid(module, given, network.label)
    if network.deploy and given is not None:
        module = deployed(module, given, network.label)
    return module


def _let_shapes_be_known(network: Network, module: nn.Module, given: Takes) -> None:
    """Show a module of lazy layers one input: only then do they have parameters, and a class of their own."""
    training = module.training
    try:
        with torch.no_grad():
            given.blank(1, torch.get_default_device())(in_mode(module, training=False))
    except Exception as error:  # the network's own code
        raise UsageError(f"{network.label}: its lazy layers: {refused(module, given, error)}") from error
    in_mode(module, training=training)


def takes_of(network: Network, module: nn.Module | None = None, *, allow_code: bool = False) -> Takes:
    """What `network` takes: as it is said of it, as its own code says, or one image.

    `module`: what `build` gave. Where there is none, a user's network is built without data to be asked, which is not
    for a process that runs it: it may keep a table from one build to the next. Raises `UsageError` as `build` does,
    and where what its code says cannot be.
    """
    entry = resolve(network.name, allow_code=allow_code)
    if network.head == "features":
        module = None  # what gives the maps has none of the network's own words
    if module is not None or network.inputs or entry.source != "user code":
        return _taken(entry, network, module)
    plain = replace(network, head="classifier")
    try:
        with torch.device("meta"):
            module = _make(entry, plain)
    except Exception:  # the network's own code, which may need data
        module = _make(entry, plain)
    return _taken(entry, network, module)


def _taken(entry: Entry, network: Network, module: nn.Module | None) -> Takes:
    if network.inputs:
        return takes_inputs(network.inputs, "inputs")
    if module is not None and entry.source == "user code":
        from archbench.catalog.user_code import builder_of

        told = told_by(module, builder_of(entry))
        if told is not None:
            sized = with_size(told, network.input_size, network.in_channels)
            if sized is None:
                what = f"its {told.by} says that it takes {text_of(told.inputs)}, which is not one image"
                raise UsageError(f"{network.label}: {what}; leave input_size and in_channels out")
            return sized
    shape = input_shape(network, allow_code=True)
    said = network.input_size is not None or network.in_channels is not None or entry.source != "user code"
    return Takes(positional=(Input(shape=shape, dtype=_of_weights(module)),), by="the suite" if said else "")


def _of_weights(module: nn.Module | None) -> Dtype:
    """Of what an image is where nobody says: of what all weights are, if they are real numbers."""
    kinds = {one.dtype for one in module.parameters() if one.is_floating_point()} if module is not None else set()
    usual = {torch.float64: "float64", torch.float16: "float16", torch.bfloat16: "bfloat16"}
    return usual.get(kinds.pop(), "float32") if len(kinds) == 1 else "float32"  # type: ignore[return-value]


def input_shape(network: Network, *, allow_code: bool = False) -> tuple[int, ...]:
    """Shape of one input without its batch axis: channels, height, width; or the width of a vector.

    Raises `UsageError` where the network takes vectors and `network` sets an `input_size`.
    """
    native = _native_shape(resolve(network.name, allow_code=allow_code))
    channels = network.in_channels or native[0]
    if len(native) == 1:
        if network.input_size is not None:
            raise UsageError(f"{network.label}: takes vectors, not images; set their width by in_channels")
        return (channels,)
    return (channels, *(native[1:] if network.input_size is None else sides_of(network.input_size)))


def feature_width(network: Network, *, allow_code: bool = False) -> int | None:
    """Channels of the features under the classifier; `None` where the network has no head to take off."""
    bare = replace(network, head="none", num_classes=None, deploy=False)
    try:
        with torch.device("meta"), torch.no_grad():
            module = in_mode(build(bare, allow_code=allow_code), training=False)
            given = takes_of(bare, allow_code=allow_code)
            features = next(tensors_in(given.blank(1, torch.device("meta"))(module)))
    except (UsageError, StopIteration):
        return None
    # timm's channels may be last in four axes as well, but timm says how many there are.
    known = getattr(module, "num_features", None)
    if isinstance(known, int):
        return known
    width: int = features.shape[1] if features.dim() == 4 else features.shape[-1]
    return width


def _make(entry: Entry, network: Network) -> nn.Module:
    if entry.source == "archbench":
        return _make_own(entry, network)
    maker = importlib.import_module(f"archbench.catalog.{_MAKERS[entry.source]}")
    module: nn.Module = maker.make(entry, network)
    return module


_FIELDS = ("num_classes", "in_channels", "head")


def _make_own(entry: Entry, network: Network) -> nn.Module:
    home = importlib.import_module(f"archbench.catalog.networks.{file_of(entry.constructor).stem}")
    builder = getattr(home, entry.constructor)
    chosen = {field: value for field in _FIELDS if (value := getattr(network, field)) not in (None, "classifier")}
    if missing := [field for field in chosen if field not in keywords(builder)]:
        raise UsageError(f"{network.label}: {network.name} has no {missing[0]} to choose")
    return construct(builder, entry, network, _FIELDS, chosen)


def _native_shape(entry: Entry) -> tuple[int, ...]:
    if entry.input_shape is not None:
        return entry.input_shape
    if entry.source != "timm":
        return USER_CODE_INPUT
    from archbench.catalog.timm_networks import native_shape

    return native_shape(entry)


def _require_size(entry: Entry, network: Network, shape: tuple[int, ...]) -> None:
    """Raise `UsageError`, naming sizes that work, if `network` cannot take inputs of `shape`."""
    refusal = _refusal(entry, network, shape)
    # A network that fails on tensors without data even at its native size cannot be judged by them.
    if refusal is None or _refusal(entry, replace(network, input_size=None), _native_shape(entry)) is not None:
        return
    sizes = sorted({*CANDIDATE_SIZES, _native_shape(entry)[-1]} - {shape[-1]})
    taken = [s for s in sizes if _refusal(entry, replace(network, input_size=s), (shape[0], s, s)) is None]
    raise UsageError(
        f"{network.label}: cannot take {shape[-2]}x{shape[-1]} images ({refusal}); "
        f"of the usual sizes it takes {', '.join(map(str, taken))}"
    )


def _refusal(entry: Entry, network: Network, shape: tuple[int, ...]) -> str | None:
    """Why `network` cannot take one input of `shape`, found out with tensors that have no data."""
    try:
        with torch.device("meta"), torch.no_grad():
            in_mode(_make(entry, network), training=False)(torch.empty(1, *shape))
    except Exception as error:  # whatever the network's own code raises is the answer
        return first_line(error)
    return None


# What the makers of `_MAKERS` share.


def refuse_reserved(network: Network, reserved: Collection[str]) -> None:
    """Raise `UsageError` for an option that would load weights, or that has a field of its own beside `options`."""
    for option in network.options.keys() & set(reserved):
        remedy = "archbench never loads weights" if option in _WEIGHTS else "it has a key of its own beside options"
        raise UsageError(f"{network.label}: {option} cannot be an option: {remedy}")


_WEIGHTS = frozenset({"weights", "weights_backbone", "pretrained", "checkpoint_path", "pretrained_cfg", "progress"})


def construct(
    builder: Callable[..., nn.Module],
    entry: Entry,
    network: Network,
    reserved: Collection[str],
    chosen: Mapping[str, object],
) -> nn.Module:
    """Return what `builder` makes with the options of `entry`, those of `network`, and the arguments `chosen`.

    Raises `UsageError` where it refuses the options that the user gave, naming those that it has, without `reserved`
    ones. Without options of the user's, what it raises is nobody's mistake but ours, and is let through.
    """
    try:
        return builder(**{**entry.options, **network.options, **chosen})
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        if not network.options:
            raise
        names = sorted(_options(builder, entry) - set(reserved))
        unknown = [option for option in network.options if option not in names]
        if unknown:
            near = did_you_mean(unknown[0], names)
            raise UsageError(
                f"{network.label}: {network.name} has no option {unknown[0]!r}{near}; it has {', '.join(names)}"
            ) from error
        raise UsageError(f"{network.label}: {network.name} refuses these options: {first_line(error)}") from error


def _options(builder: Callable[..., nn.Module], entry: Entry) -> set[str]:
    """What `builder` can be told, or, where it passes anything on, the class behind it."""
    if inspect.Parameter.VAR_KEYWORD not in {p.kind for p in inspect.signature(builder).parameters.values()}:
        return keywords(builder)
    with torch.device("meta"):
        return keywords(type(builder(**entry.options)).__init__)


def keywords(function: Callable[..., object]) -> set[str]:
    """Names of the parameters of `function` that can be given by keyword."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"}
