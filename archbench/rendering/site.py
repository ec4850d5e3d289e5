"""Any number of machines side by side as a static site: an index, a report and a file to take away for each run.

Times of different classes of hardware are never put in one ranking: a class has its own decision matrix, and what
stands beside each other are ratios, of each cell's time to that of the reference on the very device that measured it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from msgspec import Struct

from archbench.choose.devices import ratios_to_reference
from archbench.model.cell import short_id
from archbench.model.errors import UnfitError
from archbench.model.units import NULL
from archbench.rendering.content import Block, Fold, Paragraph, Report, Section, Table, every, slug, tabled
from archbench.rendering.decisions import decisions
from archbench.rendering.html import render_html
from archbench.rendering.report import build_report
from archbench.rendering.run_data import RunData, read_several
from archbench.rendering.side_by_side import Named, named, overview
from archbench.results import Exported, export, load_frame
from archbench.results.files import write_bytes
from archbench.suite.plan import reference_of

_HOW = (
    "Each figure is a time over that of the reference, {reference}, on the device that measured it: 2.00 takes twice "
    "as long as the reference there. A cell that is nearer to it on one machine than on another suits the first better."
)


class _Page(Struct, frozen=True, kw_only=True):
    """One run of the site."""

    named: Named
    folder: str
    exported: Exported
    reference: str | None
    """The cell that the others are held against, without its device; `None` where the suite has no twin."""
    ratios: dict[str, float]
    """Of each cell, likewise."""


def write_site(places: Sequence[Path], out: Path) -> Path:
    """Write the site of some runs into `out`; returns its index. What lies there under other names is left alone.

    Raises `UsageError` as `read_several` does, and `UnfitError` where the place cannot be written.
    """
    runs = named(read_several(places))
    try:
        out.mkdir(parents=True, exist_ok=True)
        pages = [_page(one, out) for one in runs]
    except OSError as error:
        raise UnfitError(f"cannot write {out}: {error.strerror or error}") from error
    index = render_html(_index(pages)).replace("</header>", f"{_links(pages)}\n</header>", 1)
    write_bytes(out / "index.html", index.encode())
    return out / "index.html"


def _page(one: Named, out: Path) -> _Page:
    run = one.run
    folder = f"{slug(one.letter)}-{slug(run.environment.hardware_class)}"
    (out / folder).mkdir(exist_ok=True)
    write_bytes(out / folder / "index.html", render_html(build_report(run)).encode())
    reference = reference_of(run.suite, run.environment.kind)
    ratios = {} if reference is None else ratios_to_reference(load_frame(run.path), reference)
    return _Page(
        named=one,
        folder=folder,
        exported=export(run.path, out / folder / "run.archbench"),
        reference=None if reference is None else short_id(reference),
        ratios={short_id(cell): ratio for cell, ratio in ratios.items()},
    )


def _index(pages: Sequence[_Page]) -> Report:
    each = [page.named for page in pages]
    suites = ", ".join(dict.fromkeys(one.run.suite.suite for one in each))
    matrices = [
        Section(title=f"{page.named.letter}: {page.named.label}", blocks=_matrix(page.named.run)) for page in pages
    ]
    return Report(
        title=f"{suites}: {len(pages)} machines" if len(pages) > 1 else f"{suites}: one machine",
        lead=overview(each),
        sections=(
            Section(title="Against the reference", blocks=tuple(_ratios(pages))),
            Section(title="Which network, class by class", blocks=tuple(matrices)),
        ),
    )


def _matrix(run: RunData) -> tuple[Block, ...]:
    found = decisions(run)
    tables = [] if found is None else list(every(Table, found.blocks))[:1]
    return (Paragraph(run.trust.statement), *tables)


def _ratios(pages: Sequence[_Page]) -> list[Block]:
    """A table for each reference: ratios to different ones do not compare."""
    blocks: list[Block] = []
    for reference in dict.fromkeys(page.reference for page in pages if page.ratios):
        alike = [page for page in pages if page.reference == reference and page.ratios]
        cells = sorted({cell for page in alike for cell in page.ratios})
        columns: dict[str, Callable[[str], str]] = {"Cell": str}
        columns |= {f">{page.named.letter} ×": _ratio_in(page) for page in alike}
        found = tabled(cells, columns, f"Time over {reference}")
        blocks.append(Paragraph(_HOW.format(reference=reference)))
        blocks.append(found if len(cells) <= 100 else Fold(summary=f"{len(cells):,} cells", blocks=(found,)))
    without = [page.named.letter for page in pages if not page.ratios]
    if without:
        blocks.append(Paragraph(f"Without a reference (`twin:` in the suite, with a latency): {', '.join(without)}."))
    return blocks


def _ratio_in(page: _Page) -> Callable[[str], str]:
    return lambda cell: f"{page.ratios[cell]:.2f}" if cell in page.ratios else NULL


def _links(pages: Sequence[_Page]) -> str:
    items = (
        f'<li><a href="{page.folder}/index.html">{escape(page.named.letter)}: {escape(page.named.label)}</a> '
        f'(<a href="{page.folder}/run.archbench" download>all of it as one file</a>, '
        f"SHA-256 <code>{page.exported.sha256}</code>)</li>"
        for page in pages
    )
    return f"<ul>{''.join(items)}</ul>"
