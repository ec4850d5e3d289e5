"""Builds the networks of `archbench.catalog.networks`."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from torch import nn

from archbench.catalog.construct import construct, keywords
from archbench.catalog.entry import Entry
from archbench.catalog.own_files import PACKAGE, file_of
from archbench.model.cell import Network
from archbench.model.errors import UsageError

_FIELDS = ("num_classes", "in_channels", "head")


def make(entry: Entry, network: Network) -> nn.Module:
    """Return the own network `entry` with the departures of `network`."""
    home = importlib.import_module(f"{PACKAGE}.{file_of(entry.constructor).stem}")
    builder: Callable[..., nn.Module] = getattr(home, entry.constructor)
    takes = keywords(builder)
    arguments = {**entry.options, **network.options}
    for field in _FIELDS:
        value = getattr(network, field)
        if value is None or value == "classifier":
            continue
        if field not in takes:
            raise UsageError(f"{network.label}: {network.name} has no {field} to choose")
        arguments[field] = value
    return construct(builder, arguments, network, lambda: takes - set(_FIELDS))
