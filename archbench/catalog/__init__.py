"""Every network that archbench knows by name, and what is known of it without building it. Free of torch.

`archbench.catalog.build` is the other half: it makes modules, and needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from archbench.catalog.names import LIBRARIES, family, known, resolve
from archbench.catalog.published import accuracies, facts_of
from archbench.catalog.tables import (
    SOURCES,
    Accuracy,
    Counted,
    Entry,
    PublishedSize,
    Source,
    counted_by_label,
    counted_with,
    default_weights,
    entries,
)
from archbench.model.cell import Network
from archbench.model.counts import Counts
from archbench.model.errors import UsageError
from archbench.model.record import Facts

__all__ = [
    "LIBRARIES",
    "SOURCES",
    "Accuracy",
    "Counted",
    "Entry",
    "Facts",
    "PublishedSize",
    "Source",
    "accuracies",
    "counted_by_label",
    "counts_of",
    "dataset_of",
    "default_weights",
    "entries",
    "facts",
    "family",
    "resolve",
    "year_of",
]


def facts(network: Network) -> Facts:
    """What the catalogue knows of `network`; `None` where it knows nothing. Raises `UsageError` for an unknown name."""
    # Nothing is run here, so the user's own code needs no permission yet.
    return facts_of(resolve(network.name, allow_code=True), network)


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
    try:
        found = known(name, allow_code=True)
    except UsageError:  # of another version's catalogue
        return None
    return None if found is None else found.year


def dataset_of(name: str) -> str | None:
    """The data set of the accuracy that stands for a network; `None` where none is known, or no such network."""
    try:
        found = known(name, allow_code=True)
    except UsageError:  # of another version's catalogue
        return None
    return None if found is None else next((one.dataset for one in accuracies(found)), None)
