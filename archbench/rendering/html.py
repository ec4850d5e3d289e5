"""A report as one HTML file that works from a disk without a network: tables that sort, filters, live charts.

Scripts run only where their hash stands in the page's content security policy, and nothing can be loaded: a name that
broke out of its place could still do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

import msgspec

from archbench.model.errors import UnfitError
from archbench.model.units import printable
from archbench.rendering import content
from archbench.rendering.content import Block, Picture, Report, Section, Table, every, slug, spelled_out, unique
from archbench.rendering.drawing import DARK, DRAWN_BY, LIGHT, PLACED, library, theme
from archbench.rendering.text import html
from archbench.results.files import write_bytes

FIRST_ROWS = 100
"""Rows of a table that stand in the page as such; the page makes the others when they are asked for."""
MOST_ROWS = 25_000
"""Rows of all long tables together, so that a run of 100,000 cells stays a page of 15 MiB."""

_RIGHT = ' class="n"'
_INK = {"light": ("#1f2328", "#dfe3e8"), "dark": ("#e3e7ec", "#343b45")}


def render_html(report: Report) -> str:
    """The report as one HTML document. Its pictures are live; without the plotting library, they are described."""
    drawing = load_scripts() if any(every(Picture, report.blocks)) else ""
    page = _Page(_rows_each(report), drawing=bool(drawing))
    lead, sections = (page.blocks(spelled_out(part, report.shared), 2) for part in (report.lead, report.sections))
    scripts = [script for script in (drawing, _own("page.js")) if script]
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    themes = {
        name: theme(*_INK[name], palette, background="transparent")
        for name, palette in (("light", LIGHT), ("dark", DARK))
    }
    # What the page's script needs: the figures behind the pictures, the filters, the themes, where names go.
    layers = {"shown": f"{content.SHOWN}_marks", "names": f"{content.NAMES}_marks"}
    data = {"dataset": report.dataset, "themes": themes, "layers": layers, "placed": PLACED}
    return Template(_own("page.html")).substitute(
        title=html(report.title),
        policy=f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'",
        style=_own("page.css"),
        lead=lead,
        contents="".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in page.contents),
        sections=sections,
        data=_json(data),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


class _Page:
    """Turns blocks into HTML, and remembers the headings and which anchors are taken."""

    def __init__(self, rows_each: int, *, drawing: bool) -> None:
        self._drawing = drawing
        self.contents: list[tuple[str, str]] = []
        """Anchor and title, as HTML, of each section of the first level."""
        self._rows_each = rows_each
        self._anchors: set[str] = set()
        self._label = "Figures"

    def blocks(self, blocks: Iterable[Block], level: int) -> str:
        """The blocks in order; pictures that follow each other share a grid."""
        parts = []
        for drawn, members in groupby(blocks, lambda block: isinstance(block, Picture)):
            inside = "\n".join(self._block(block, level) for block in members)
            parts.append(f'<div class="plots">\n{inside}\n</div>' if drawn else inside)
        return "\n".join(parts)

    def section(self, section: Section, level: int) -> str:
        """A section with its heading, `h2` for level 2, as a place that can be linked to."""
        anchor, title = unique(slug(section.title)[:40] or "part", self._anchors), html(section.title)
        if level == 2:
            self.contents.append((anchor, title))
        self._label = printable(section.title)
        phase = f' data-phase="{html(section.phase)}"' if section.phase else ""
        heading = f"h{min(level, 6)}"
        return (
            f'<section id="{anchor}" aria-labelledby="{anchor}-title"{phase}>\n'
            f'<{heading} id="{anchor}-title">{title}</{heading}>\n{self.blocks(section.blocks, level + 1)}\n</section>'
        )

    def _block(self, block: Block, level: int) -> str:
        match block:
            case content.Paragraph():
                return f"<p>{html(block.text)}</p>"
            case content.Bullets():
                return f"<ul>{''.join(f'<li>{html(item)}</li>' for item in block.items)}</ul>"
            case content.Code():
                return f'<pre tabindex="0"><code>{_escaped(block.text)}</code></pre>'
            case Table():
                return self._table(block)
            case content.Fold():
                inside = self.blocks(block.blocks, level)
                return f"<details><summary>{html(block.summary)}</summary>\n{inside}\n</details>"
            case Picture():
                return self._picture(block, level)
            case Section():
                return self.section(block, level)

    def _picture(self, picture: Picture, level: int) -> str:
        heading = f"h{min(level, 6)}"
        canvas, live = f"<p>Not drawn: {html(DRAWN_BY)}.</p>", ""
        if self._drawing:
            canvas = '<div class="canvas"></div>'
            live = (
                '<details class="figures"><summary>The figures as a table</summary></details>\n'
                f'<script type="application/json" class="spec">{_no_tags(picture.spec)}</script>\n'
            )
        return (
            f'<figure class="plot" id="{unique(picture.name, self._anchors)}">\n'
            f"<{heading}>{html(picture.title)}</{heading}>\n"
            f"{canvas}\n<figcaption>{html(picture.alt)}</figcaption>\n{live}</figure>"
        )

    def _table(self, table: Table) -> str:
        right = [_RIGHT if place in table.numeric else "" for place in range(len(table.headings))]
        about = f' data-numeric="{",".join(map(str, sorted(table.numeric)))}"' if table.numeric else ""
        about += f' data-shared="{_escaped(_json(dict(table.shared)))}"' if table.shared else ""
        names = zip(table.headings, right, strict=True)
        headings = "".join(f'<th scope="col"{side}>{html(name)}</th>' for name, side in names)
        head = f"<thead><tr>{headings}</tr></thead>" if any(table.headings) else ""

        def row(cells: tuple[str, ...]) -> str:
            texts = [f"<td{side}>{html(cell)}</td>" for cell, side in zip(cells, right, strict=True)]
            if not head:  # without headings above, the first cell is the row's
                texts[0] = f'<th scope="row">{html(cells[0])}</th>'
            return f"<tr>{''.join(texts)}</tr>"

        kept = table.rows[: self._rows_each]
        body = "\n".join(map(row, kept[:FIRST_ROWS]))
        later = missing = ""
        if len(kept) > FIRST_ROWS:
            rest = [tuple(map(printable, cells)) for cells in kept[FIRST_ROWS:]]
            later = f'<script type="application/json" class="later">{_json(rest)}</script>'
        if len(table.rows) > len(kept):
            missing = (
                f'<p class="note">The first {len(kept):,} of {len(table.rows):,} rows are in this page, '
                "so that it opens on every machine.</p>"
            )
        whole = f"<table{about}>{head}<tbody>\n{body}\n</tbody></table>"
        label = f'aria-label="Table: {_escaped(self._label)}"'
        scroll = f'<div class="scroll" role="region" tabindex="0" {label}>{whole}</div>'
        return f'<div class="table">{scroll}{later}{missing}</div>'


def _rows_each(report: Report) -> int:
    """Rows that each table may have, so that all long ones together have no more than `MOST_ROWS`."""

    left = MOST_ROWS
    sizes = sorted(len(table.rows) for table in every(Table, report.blocks))
    for place, size in enumerate(sizes):  # what short tables do not use, long ones may
        share = left // (len(sizes) - place)
        if size > share:
            return share
        left -= size
    return MOST_ROWS


@cache
def _own(name: str) -> str:
    return (files("archbench.rendering") / "page" / name).read_text(encoding="utf-8")


@cache
def load_scripts() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script; empty where the plotting library is missing.

    To put it together takes two seconds: it is kept for each version of the library in the user's folder of caches.
    """
    try:
        vl_convert = library()
    except ImportError:
        return ""
    with suppress(OSError, ValueError):  # ValueError: what is there has not two parts
        digest, script = _kept_at(vl_convert).read_bytes().split(b"\n", 1)
        if hashlib.sha256(script).hexdigest().encode() == digest:
            return script.decode()
    # In a string or a regular expression this is the same; as it stands, it would end the script.
    made: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    made = made.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    with suppress(OSError, UnfitError):  # another process puts it together again
        kept = _kept_at(vl_convert)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(kept, hashlib.sha256(made.encode()).hexdigest().encode() + b"\n" + made.encode())
    return made


def _kept_at(vl_convert: Any) -> Path:
    """Raises `OSError` for a user without a home: what anybody could have written is no script for a report."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not folder.is_absolute():
        raise FileNotFoundError(str(folder))
    vega = vl_convert.get_vega_version(), vl_convert.get_vega_embed_version()
    return folder / "archbench" / f"vega-{'-'.join((vl_convert.__version__, *vega))}.js"


def _json(value: object) -> str:
    return _no_tags(msgspec.json.encode(value).decode())


def _no_tags(json: str) -> str:
    """JSON that holds no character which could end the element around it."""
    return json.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _escaped(text: str) -> str:
    """Text of several lines, or for an attribute, as it stands."""
    return escape(
        "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
    )
