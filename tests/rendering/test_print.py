"""The page on paper: every plot is drawn, no table is cut, and what only a screen can use is gone."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from itertools import chain
from pathlib import Path

import pytest
from builders import make_environment, make_rows, make_run, make_suite

import archbench.rendering
from archbench.model.suite import Axes
from archbench.rendering.content import Picture, Table, every
from archbench.rendering.html import render_html
from archbench.rendering.report import build_report
from archbench.rendering.run_data import read_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-pdf-header-footer",
    "--virtual-time-budget=20000",  # of the page's clock: plots are drawn by then
]
WORD = re.compile(r'<word xMin="([\d.]+)" yMin="([\d.]+)" xMax="([\d.]+)" yMax="([\d.]+)">(.*?)</word>')


def print_rules() -> dict[str, dict[str, str]]:
    """By selector, what page.css says for paper alone; of several blocks for one selector the later counts."""
    css = (Path(archbench.rendering.__file__).parent / "page" / "page.css").read_text()
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.S)
    (block,) = re.findall(r"@media print \{\n(.*?)\n\}", css, flags=re.S)
    rules: dict[str, dict[str, str]] = {}
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", block):
        said = dict(re.findall(r"([\w-]+)\s*:\s*([^;]+);", body + ";"))
        for selector in selectors.split(","):
            rules.setdefault(selector.strip(), {}).update(said)
    return rules


def test_the_style_for_paper_cuts_nothing_and_hides_only_what_needs_a_screen() -> None:
    rules = print_rules()
    assert rules[".scroll"]["overflow"] == "visible", "a table that scrolls is cut at the margin"
    for cell in ("th", "td", "td.n", "thead th", "tbody th"):
        assert rules[cell]["white-space"] == "normal", "a cell that may not break makes its table wider than the paper"
    assert rules["table"]["width"] == "100%"
    assert rules["thead"]["display"] == "table-header-group", "headings stand on every page of a long table"
    for whole in ("tr", ".plot", "pre"):
        assert rules[whole]["break-inside"] == "avoid"
    assert rules["pre"]["white-space"] == "pre-wrap"
    assert rules[".canvas svg"]["height"].startswith("auto")
    hidden = {selector for selector, said in rules.items() if said.get("display", "").startswith("none")}
    assert hidden == {"nav", ".skip", "#filter", "#theme", ".more button", ".vega-embed details", ".plot .figures",
                      "noscript"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium in PATH (Debian: apt-get install chromium)")
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext (Debian: apt-get install poppler-utils)")
def test_on_paper_every_plot_is_drawn_and_no_table_is_cut(tmp_path: Path) -> None:
    suite = make_suite(rounds=1, twin=None, axes=Axes(batch_size=(1, 8, 32), phase=("inference", "training")))
    environment = make_environment("cuda:0")
    rows = list(make_rows(suite, environment))
    report = build_report(read_run(make_run(tmp_path, rows, suite=suite, environment=environment, timings=False)))
    page, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    page.write_text(render_html(report))
    profile = tmp_path / "chromium"
    words = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", f"--print-to-pdf={paper}", page.as_uri()]
    subprocess.run(words, capture_output=True, timeout=90, check=True)

    found = subprocess.run(
        ["pdftotext", "-raw", "-bbox", paper, "-"], capture_output=True, text=True, timeout=60, check=True
    )
    (width, *_), placed = map(float, re.findall(r'width="([\d.]+)"', found.stdout)), WORD.findall(found.stdout)
    assert placed
    margin = 12 / 25.4 * 72  # points: 12 mm
    for left, _, right, _, text in placed:
        assert margin - 1 <= float(left), text
        assert float(right) <= width - margin + 1, f"{text} is cut"
    printed = unescape("".join(text for *_, text in placed))

    tables = list(every(Table, report.blocks))
    assert len(tables) > 15
    for cell in set(chain.from_iterable(chain(table.headings, *table.rows) for table in tables)):
        assert "".join(cell.replace("`", "").split()) in printed, "in folds, too"
    pictures = list(every(Picture, report.blocks))
    assert len(pictures) >= 8
    text = subprocess.run(["pdftotext", "-layout", paper, "-"], capture_output=True, text=True, timeout=60, check=True)
    for picture in pictures:
        assert picture.title in text.stdout
    # Words that stand in plots alone: what each says at its top, once for every plot.
    assert printed.count("NVIDIAH200") >= len(pictures)
    assert printed.count("Latency,msperbatch") >= 3
    assert "Contents" not in text.stdout
    assert "Filter" not in text.stdout
