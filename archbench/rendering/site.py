"""Any number of machines side by side as a static site: an index, a report and a file to take away for each run.

Times of different classes of hardware are never put in one ranking: a class has its own decision matrix, and what
stands beside each other are ratios, of each cell's time to that of the reference on the very device that measured it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from msgspec import Struct

from archbench.model.errors import UnfitError
from archbench.rendering.content import Block, Paragraph, Report, Section, Table, every, slug
from archbench.rendering.decisions import decisions
from archbench.rendering.html import render_html
from archbench.rendering.report import build_report
from archbench.rendering.run_data import RunData, read_several
from archbench.rendering.side_by_side import Named, against_reference, named, overview
from archbench.results import Exported, export
from archbench.results.files import write_bytes


class _Page(Struct, frozen=True, kw_only=True):
    """One run of the site."""

    named: Named
    folder: str
    exported: Exported


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
    return _Page(named=one, folder=folder, exported=export(run.path, out / folder / "run.archbench"))


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
            Section(title="Against the reference", blocks=tuple(against_reference(each))),
            Section(title="Which network, class by class", blocks=tuple(matrices)),
        ),
    )


def _matrix(run: RunData) -> tuple[Block, ...]:
    found = decisions(run)
    tables = [] if found is None else list(every(Table, found.blocks))[:1]
    return (Paragraph(run.trust.statement), *tables)


def _links(pages: Sequence[_Page]) -> str:
    items = (
        f'<li><a href="{page.folder}/index.html">{escape(page.named.letter)}: {escape(page.named.label)}</a> '
        f'(<a href="{page.folder}/run.archbench" download>all of it as one file</a>, '
        f"SHA-256 <code>{page.exported.sha256}</code>)</li>"
        for page in pages
    )
    return f"<ul>{''.join(items)}</ul>"
