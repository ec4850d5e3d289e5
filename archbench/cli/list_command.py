"""`archbench list`: the networks that have a name, with their size and published accuracy."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from archbench.cli.console import print_json


def command(
    family: Annotated[str | None, typer.Option(help="Only this family: resnet, densenet, ...")] = None,
    source: Annotated[str | None, typer.Option(help="Only from torchvision, timm or archbench.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an array of objects.")] = False,
) -> None:
    """List the catalogue: family, year, parameters, GMACs and published top-1 of every named network."""
    from archbench import catalog
    from archbench.catalog.card import summary
    from archbench.model.errors import UsageError, did_you_mean
    from archbench.rendering.catalogue import catalogue_report
    from archbench.rendering.terminal import print_report

    if source is not None and source not in catalog.SOURCES:
        near = did_you_mean(source, catalog.SOURCES)
        raise UsageError(f"unknown source {source!r}{near or '; there are ' + ', '.join(catalog.SOURCES)}")
    chosen = catalog.entries().values() if family is None else catalog.family(family)
    listed = [summary(entry) for entry in chosen if source in (None, entry.source)]
    if as_json:
        print_json(listed)
        return
    print_report(catalogue_report(listed))
    _hint(source)


def _hint(source: str | None) -> None:
    """How to name what is not listed; on stderr, since it is no row of the table."""
    from archbench.catalog.names import LIBRARIES, families_by_name

    for library in LIBRARIES:
        if source == library:
            number = len(families_by_name(library))
            print(f"Any of {library}'s {number:,} classification networks goes by {library}:NAME.", file=sys.stderr)
    if source is None:
        print("Any classification network of these libraries goes by torchvision:NAME or timm:NAME.", file=sys.stderr)
