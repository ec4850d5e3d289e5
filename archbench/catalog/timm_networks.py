"""Builds timm's networks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn

from archbench.catalog.build import construct, refuse_reserved
from archbench.catalog.roles import FINEST
from archbench.catalog.tables import Entry
from archbench.model.cell import Network, sides_of
from archbench.model.errors import UsageError, did_you_mean, first_line

_RESERVED = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "num_classes",
    "in_chans",
    "img_size",
)


def make(entry: Entry, network: Network) -> nn.Module:
    """Return timm's `entry` with the departures of `network`, without pretrained weights."""
    refuse_reserved(network, _RESERVED)
    config = config_of(entry)
    chosen: dict[str, object] = {}
    if network.num_classes is not None:
        chosen["num_classes"] = network.num_classes
    if network.in_channels is not None:
        chosen["in_chans"] = network.in_channels
    if network.input_size is not None and config.fixed_input_size:
        # Such a network holds a table of positions, and has to be built for its size.
        size = network.input_size
        chosen["img_size"] = size if isinstance(size, int) else sides_of(size)
    create: Callable[..., nn.Module] = functools.partial(timm.create_model, _full_name(entry))
    if network.head == "features":
        return _pyramid(network, create, {**entry.options, **network.options, **chosen})
    if network.head == "classifier":
        return construct(create, entry, network, _RESERVED, chosen)
    try:
        return create(**{**entry.options, **network.options, **chosen}, num_classes=0, global_pool="")
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(f"{network.label}: timm cannot take its head off: {first_line(error)}") from error


def _pyramid(network: Network, create: Callable[..., nn.Module], options: dict[str, object]) -> nn.Module:
    try:
        with torch.device("meta"):
            info: Any = create(**options, features_only=True).feature_info
        strides = dict(zip(info.out_indices, info.reduction(), strict=True))
        chosen = tuple(index for index, stride in strides.items() if stride >= FINEST)
        return create(**options, features_only=True, out_indices=chosen)
    except (TypeError, ValueError, AssertionError, AttributeError, RuntimeError) as error:
        raise UsageError(f"{network.label}: timm cannot give its maps: {first_line(error)}") from error


def native_shape(entry: Entry) -> tuple[int, ...]:
    """Channels, height and width for which timm made the network (or the tagged weights that the name asks for)."""
    return tuple(config_of(entry).input_size)


def _full_name(entry: Entry) -> str:
    """As the user wrote it after `timm:`, with the tag of its weights, or the constructor of a catalogued network."""
    return entry.name.removeprefix("timm:") if entry.name.startswith("timm:") else entry.constructor


def config_of(entry: Entry) -> timm.models.PretrainedCfg:
    """What timm says of a network: input, mean and deviation, crop. Raises `UsageError` for a name or tag unknown."""
    name = _full_name(entry)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UsageError(f"timm {timm.__version__} has no network {architecture!r}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(architecture)]
        near = did_you_mean(tag, tags) or f"; it has {', '.join(tags)}"
        raise UsageError(f"timm's {architecture} has no weights {tag!r}{near}") from error
    assert config is not None
    return config
