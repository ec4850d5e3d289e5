"""Builds timm's networks, and finds their weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from archbench.catalog.build import construct, refuse_reserved
from archbench.catalog.roles import FINEST
from archbench.catalog.tables import Entry
from archbench.catalog.weights import Preprocessing
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
    create: Callable[..., nn.Module] = functools.partial(timm.create_model, entry.full_name)
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


def known_tags(entry: Entry) -> list[str]:
    """Of the weights that timm publishes for its architecture."""
    return [one.partition(".")[2] for one in timm.list_pretrained(entry.full_name.partition(".")[0])]


def cached_weights(entry: Entry, tag: str) -> tuple[Path | None, str, str]:
    """Those of a known tag, if they are here; where they would be; and what brings them."""
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(f"{entry.full_name.partition('.')[0]}.{tag}")
    repository = config.hf_hub_id if config else None
    found = try_to_load_from_cache(str(repository), "model.safetensors")
    file = Path(found) if isinstance(found, str) else None
    return file, "in the cache of huggingface_hub", f"hf download {repository} model.safetensors"


def preprocessing_of(entry: Entry, tag: str | None) -> Preprocessing:
    """That of the weights which its name asks for, by default of those that timm would take."""
    config = config_of(entry)
    return Preprocessing(
        mean=tuple(config.mean),  # type: ignore[arg-type]
        std=tuple(config.std),  # type: ignore[arg-type]
        crop_share=float(config.crop_pct),
        bicubic=config.interpolation == "bicubic",
    )


def native_shape(entry: Entry) -> tuple[int, ...]:
    """Channels, height and width for which timm made the network (or the tagged weights that the name asks for)."""
    return tuple(config_of(entry).input_size)


def config_of(entry: Entry) -> timm.models.PretrainedCfg:
    """What timm says of a network: input, mean and deviation, crop. Raises `UsageError` for a name or tag unknown."""
    architecture, _, tag = entry.full_name.partition(".")
    if not timm.is_model(architecture):
        raise UsageError(f"timm {timm.__version__} has no network {architecture!r}")
    try:
        config = timm.get_pretrained_cfg(entry.full_name)
    except RuntimeError as error:
        tags = known_tags(entry)
        near = did_you_mean(tag, tags) or f"; it has {', '.join(tags)}"
        raise UsageError(f"timm's {architecture} has no weights {tag!r}{near}") from error
    assert config is not None
    return config
