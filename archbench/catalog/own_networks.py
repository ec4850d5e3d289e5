"""Builds the networks of `archbench.catalog.networks`."""

from __future__ import annotations

from torch import nn

from archbench.catalog.construct import construct, keywords
from archbench.catalog.entry import Entry
from archbench.catalog.networks import builders
from archbench.model.cell import Network
from archbench.model.errors import UsageError

_FIELDS = ("num_classes", "in_channels", "head")


def make(entry: Entry, network: Network) -> nn.Module:
    """Return the own network `entry` with the departures of `network`."""
    builder = builders()[entry.constructor]
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
