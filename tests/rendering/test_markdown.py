"""Markdown that says what was meant: whatever a name holds, a renderer gives it back as text."""

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from archbench.rendering.content import Bullets, Code, Fold, Paragraph, Report, Section, Table
from archbench.rendering.text import render_markdown

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])

hostile = st.text(
    st.one_of(
        st.sampled_from("|\\*_~[]()<>&#+-=!$:/.@\"'1a b{}"),
        st.characters(exclude_categories=["C", "Z"], exclude_characters="`"),
    ),
    max_size=40,
)


def html_of(*blocks: object) -> str:
    markdown = render_markdown(Report(title="t", parts=tuple(blocks)))  # type: ignore[arg-type]
    return str(MARKDOWN.render(markdown)).removeprefix("<h1>t</h1>\n")


def normal(text: str) -> str:
    return " ".join(text.split())


@given(hostile)
def test_a_cell_is_shown_as_it_is(text: str) -> None:
    html = html_of(Table(headings=("a", "b"), rows=((text, "end"),)))
    cells = re.findall(r"<td>(.*?)</td>", html, re.S)
    assert len(cells) == 2
    assert cells[1] == "end"
    assert unescape(cells[0]) == normal(text)


@given(hostile)
def test_a_paragraph_is_shown_as_it_is(text: str) -> None:
    html = html_of(Paragraph(text)).strip()
    assert html == "" if not normal(text) else unescape(html.removeprefix("<p>").removesuffix("</p>")) == normal(text)


@given(hostile)
def test_a_bullet_and_a_summary_are_shown_as_they_are(text: str) -> None:
    html = html_of(Bullets(("x", f"y{text}")))
    assert unescape(re.findall(r"<li>(.*?)</li>", html, re.S)[1]) == normal(f"y{text}")
    folded = html_of(Fold(summary=text, blocks=(Paragraph("inside"),)))
    assert unescape(re.findall(r"<summary>(.*)</summary>", folded)[0]) == normal(text)
    assert "<p>inside</p>" in folded


def test_code_between_backticks_is_code_everywhere() -> None:
    table = html_of(Table(headings=("a",), rows=(("run `a|b <x>` now",),)))
    assert "<td>run <code>a|b &lt;x&gt;</code> now</td>" in table
    assert html_of(Paragraph("`a|b*`")) == "<p><code>a|b*</code></p>\n"
    assert html_of(Paragraph("a ` alone")) == "<p>a ` alone</p>\n"
    assert "<summary><code>x</code> &amp; y</summary>" in html_of(Fold(summary="`x` & y", blocks=()))


def test_a_fence_outlasts_the_code_in_it() -> None:
    html = html_of(Code("```\nrm\n````", "sh"))
    assert html == '<pre><code class="language-sh">```\nrm\n````\n</code></pre>\n'


@pytest.mark.parametrize("text", ["a\nb", "a\r\n\tb", "  a  b "])
def test_text_stays_on_one_line(text: str) -> None:
    assert "<td>a b</td>" in html_of(Table(headings=("h",), rows=((text,),)))


def test_marks_that_reorder_text_are_replaced() -> None:
    assert "resnet\N{REPLACEMENT CHARACTER}05" in html_of(Paragraph("resnet\N{RIGHT-TO-LEFT OVERRIDE}05"))


def test_sections_nest_and_numbers_stand_to_the_right() -> None:
    inner = Section(title="Inner", blocks=(Table(headings=("a", "b"), rows=(("1", "2"),), numeric=frozenset({1})),))
    report = Report(title="T", parts=(Paragraph("lead"), Section(title="Outer", blocks=(inner,))))
    assert render_markdown(report) == "# T\n\nlead\n\n## Outer\n\n### Inner\n\n| a | b |\n| --- | --: |\n| 1 | 2 |\n"


def test_names_with_underscores_stay_readable() -> None:
    assert "| mobilenet_v2 |" in render_markdown(Report(title="t", parts=(Table(headings=("mobilenet_v2",), rows=()),)))
