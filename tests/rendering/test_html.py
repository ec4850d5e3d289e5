"""The page as text: whatever a name holds is shown as it is, scripts are those that belong there, nothing is loaded."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from builders import make_record, make_run
from hypothesis import given
from hypothesis import strategies as st

from archbench.rendering import html
from archbench.rendering.content import Bullets, Code, Dataset, Facet, Fold, Paragraph, Picture, Report, Section, Table
from archbench.rendering.html import FIRST_ROWS, render_html
from archbench.rendering.report import build_report, write_report
from archbench.rendering.run_data import read_run

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "../../x",
    "é" * 300,
    "网络",
    "a&b\"c'd",
)
hostile = st.text(
    st.one_of(st.sampled_from("<>&\"'/!-=; ab"), st.characters(exclude_categories=["C", "Z"], exclude_characters="`")),
    max_size=40,
)


class Page(HTMLParser):
    """What a browser makes of a page: elements with their attributes, the text of some, and every script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br", "img", "link"):
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def scripts(self) -> list[tuple[dict[str, str | None], str]]:
        attributes = [attrs for tag, attrs in self.elements if tag == "script"]
        return list(zip(attributes, self.texts.get("script", []), strict=True))


def page_of(*blocks: object, dataset: Dataset | None = None) -> Page:
    return Page(render_html(Report(title="t", parts=tuple(blocks), dataset=dataset)))  # type: ignore[arg-type]


def normal(text: str) -> str:
    return " ".join(text.split())


@given(hostile)
def test_text_is_shown_as_it_is_wherever_it_stands(text: str) -> None:
    table = Table(headings=("a", text), rows=((text, "end"),))
    page = page_of(
        Paragraph(text), Bullets((text,)), table, Fold(summary=text, blocks=()), Section(title=text, blocks=())
    )
    for tag in ("p", "li", "summary"):
        assert normal(text) in page.texts[tag]
    assert page.texts["td"] == [normal(text), "end"]
    assert page.texts["th"][1] == normal(text)
    assert page.texts["h2"] == ["Contents", normal(text)]


@given(hostile)
def test_names_in_data_cannot_end_their_script(text: str) -> None:
    facet = Facet(column="network", label=text, options=(text,), heading="Network", stands_for={text: text})
    data = Dataset(name="cells", columns=("network",), rows=((text,),), facets=(facet,))
    long = Table(headings=("a",), rows=((text,),) * (FIRST_ROWS + 1))
    page = page_of(long, dataset=data)
    shared = next(json.loads(body) for attributes, body in page.scripts() if attributes.get("id") == "shared")
    later = next(json.loads(body) for attributes, body in page.scripts() if attributes.get("class") == "later")
    assert shared["dataset"]["rows"] == [[text]]
    assert shared["dataset"]["facets"][0]["stands_for"] == {text: text}
    assert later == [[normal(text)]], "as the rows that stand in the page"
    assert len(page.scripts()) == 3  # the rows, the data, the page's own


def test_every_kind_of_block_and_their_nesting() -> None:
    inner = Section(title="Inner", phase="training", blocks=(Code("a <b>\n  c", "sh"), Paragraph("run `x <y>`")))
    report = Report(title="T", parts=(Section(title="Outer", blocks=(Fold(summary="open", blocks=(inner,)),)),))
    page = Page(render_html(report))
    assert page.texts["h1"] == ["T"]
    assert "Outer" in page.texts["h2"]
    assert page.texts["h3"] == ["Inner"]
    assert page.texts["code"] == ["a <b>\n  c", "x <y>"]
    assert ("section", {"id": "inner", "aria-labelledby": "inner-title", "data-phase": "training"}) in page.elements


def test_equal_headings_are_different_places() -> None:
    page = page_of(*(Section(title=title, blocks=()) for title in ("A b", "a-b", "<>", "%")))
    places = [attrs["id"] for tag, attrs in page.elements if tag == "section"]
    assert places == ["a-b", "a-b-2", "part", "part-2"]


def test_numbers_stand_to_the_right_and_headless_tables_have_row_headings() -> None:
    table = Table(headings=("n", "ms"), rows=(("x", "1"),), numeric=frozenset({1}))
    page = page_of(table, Table(headings=("", ""), rows=(("CPU", "one"),)))
    assert ("td", {"class": "n"}) in page.elements
    assert ("th", {"scope": "col", "class": "n"}) in page.elements
    assert ("th", {"scope": "row"}) in page.elements


def test_long_tables_keep_their_later_rows_as_data_and_very_long_ones_say_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(html, "MOST_ROWS", 300)
    rows = tuple((str(number),) for number in range(1000))
    page = page_of(Table(headings=("a",), rows=(("only",),)), Table(headings=("a",), rows=rows))
    later = [json.loads(body) for attributes, body in page.scripts() if attributes.get("class") == "later"]
    assert page.texts["td"] == ["only", *(str(number) for number in range(FIRST_ROWS))]
    assert later == [[[str(number)] for number in range(FIRST_ROWS, 299)]]
    assert any(text.startswith("The first 299 of 1,000 rows") for text in page.texts["p"])


def test_only_the_pages_own_scripts_may_run_and_nothing_may_be_loaded(tmp_path: Path) -> None:
    text = render_html(build_report(read_run(make_run(tmp_path))))
    page = Page(text)
    policy = next(attrs["content"] or "" for tag, attrs in page.elements if attrs.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    own = [body for attributes, body in page.scripts() if attributes.get("type") != "application/json"]
    assert len(own) == 2
    for body in own:
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules["script-src"]
    for _, attributes in page.elements:
        assert not (attributes.keys() & {"src", "srcset", "action", "style"})
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"url\(|@import", "".join(page.texts["style"]))


def test_hostile_networks_pass_through_a_whole_report(tmp_path: Path) -> None:
    rows = [
        make_record(architecture=name, variant=name, family=name[:60], cell_id=f"{place}", top1=70.0 + place)
        for place, name in enumerate(HOSTILE)
    ]
    run = make_run(tmp_path, rows)
    page = Page(write_report(run, "html").read_text())
    shown = set(page.texts["td"])
    for row in read_run(run).cells:
        assert row.network in shown
    assert {tag for tag, _ in page.elements} & {"img", "iframe", "object", "link"} == set()
    write_report(run)
    assert {place.name for place in run.iterdir()} >= {"report.md", "report.html", "plots"}
    assert all(re.fullmatch(r"[a-z-]+\.svg", place.name) for place in (run / "plots").iterdir())
    assert not (tmp_path.parent / "x").exists()


def test_without_what_draws_plots_they_are_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    html.load_scripts.cache_clear()
    try:
        page = Page(write_report(run, "html").read_text())
        text = write_report(run).read_text()
    finally:
        html.load_scripts.cache_clear()
    assert "not drawn" in caplog.text
    assert "*Top-1 accuracy over latency.* Each point is a network" in text
    assert any("Each point is a network" in caption for caption in page.texts["figcaption"])
    assert "pip install 'archbench[plots]'" in caplog.text
    assert len(page.texts["table"]) > 3
    assert not (run / "plots").exists()


def test_a_picture_with_its_own_data_needs_no_dataset() -> None:
    spec = '{"data": {"values": [{"a": "</script>"}]}, "mark": "bar", "encoding": {"x": {"field": "a"}}}'
    page = page_of(Picture(name="one", title="One", alt="A bar.", spec=spec))
    assert [json.loads(body) for attributes, body in page.scripts() if attributes.get("class") == "spec"] == [
        json.loads(spec)
    ]
    assert page.texts["figcaption"] == ["A bar."]


@pytest.fixture
def fresh_scripts():
    html.load_scripts.cache_clear()
    yield
    html.load_scripts.cache_clear()


def test_the_script_is_put_together_once_for_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_scripts: None
) -> None:
    vl_convert = pytest.importorskip("vl_convert")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = html.load_scripts()
    assert "</script" not in made
    (kept,) = (tmp_path / "archbench").iterdir()
    for damaged in (b"", b"\xff", kept.read_bytes().replace(b"vega", b"VEGA", 1), kept.read_bytes()[:-1]):
        kept.write_bytes(damaged)
        html.load_scripts.cache_clear()
        assert html.load_scripts() == made
    html.load_scripts.cache_clear()
    monkeypatch.setattr(vl_convert, "javascript_bundle", None)
    assert html.load_scripts() == made


@pytest.mark.parametrize("place", ["a file", "no home"])
def test_where_it_cannot_be_kept_it_is_made_all_the_same(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_scripts: None
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file") if place == "a file" else "relative")
    assert len(html.load_scripts()) > 500_000
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
