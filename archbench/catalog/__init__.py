"""Every network that archbench knows by name, and what is known of it without building it. Free of torch.

`archbench.catalog.build` is the other half: it makes modules, and needs torch.
"""

from archbench.catalog.names import counts_of, dataset_of, facts, family, resolve, year_of
from archbench.catalog.tables import SOURCES, Counted, Entry, counted_by_label, entries

__all__ = [
    "SOURCES",
    "Counted",
    "Entry",
    "counted_by_label",
    "counts_of",
    "dataset_of",
    "entries",
    "facts",
    "family",
    "resolve",
    "year_of",
]
