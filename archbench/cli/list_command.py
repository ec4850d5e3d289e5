"""`archbench list`: the networks that have a name, with their size and published accuracy."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from archbench.catalog.card import Summary


def command(
    family: Annotated[str | None, typer.Option(help="Only this family: resnet, densenet, ...")] = None,
    source: Annotated[str | None, typer.Option(help="Only from torchvision, timm or archbench.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an array of objects.")] = False,
) -> None:
    """List the catalogue: family, year, parameters, GMACs and published top-1 of every named network."""
    import msgspec

    from archbench import catalog
    from archbench.catalog.card import summary
    from archbench.model.errors import UsageError, did_you_mean

    if source is not None and source not in catalog.SOURCES:
        near = did_you_mean(source, catalog.SOURCES)
        raise UsageError(f"unknown source {source!r}{near or '; there are ' + ', '.join(catalog.SOURCES)}")
    chosen = catalog.entries().values() if family is None else catalog.family(family)
    listed = [summary(entry) for entry in chosen if source in (None, entry.source)]
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(listed), indent=2).decode())
        return
    _show(listed)
    _hint(source)


def _show(listed: list[Summary]) -> None:
    from archbench.cli.catalog_text import scaled, shape, table
    from archbench.model.units import GIGA, MILLION

    numeric = ("year", "params M", "GMACs", "top-1 %")
    rows = [
        (
            network.name,
            network.family or "",
            str(network.year or ""),
            scaled(network.params, MILLION),
            scaled(network.macs, GIGA),
            "" if network.top1 is None else f"{network.top1:.2f}",
            network.dataset or "",
            shape(network.input_shape),
            network.source,
            network.accuracy_source or "",
        )
        for network in listed
    ]
    headings = ("name", "family", *numeric, "on", "input", "source", "accuracy from")
    print("\n".join(table(headings, numeric, rows)))


def _hint(source: str | None) -> None:
    """How to name what is not listed; on stderr, since it is no row of the table."""
    from archbench.catalog.libraries import LIBRARIES, families_by_name

    for library in LIBRARIES:
        if source == library:
            number = len(families_by_name(library))
            print(f"Any of {library}'s {number:,} classification networks goes by {library}:NAME.", file=sys.stderr)
    if source is None:
        print("Any classification network of these libraries goes by torchvision:NAME or timm:NAME.", file=sys.stderr)
