"""Tables for a paper: booktabs, nothing unescaped, long ones over pages, notes left out."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archbench.rendering.content import Block, Fold, Paragraph, Report, Section, Table
from archbench.rendering.text import ONE_PAGE, render_latex


def latex_of(*tables: Table) -> str:
    inside: tuple[Block, ...] = (
        Paragraph("a note"),
        tables[0],
        *(Fold(summary="more", blocks=(one,)) for one in tables[1:]),
    )
    return render_latex(Report(title="t", parts=(Section(title="S", blocks=inside),)))


def table(*rows: tuple[str, ...], caption: str = "Speed") -> Table:
    headings = ("Network", "Latency ms")
    return Table(headings=headings, rows=rows, numeric=frozenset({1}), caption=caption)


def test_a_table_is_one_to_copy() -> None:
    text = latex_of(table(("mobilenet_v2", "23 ±3"), ("alexnet", "-")))
    assert text.split("\n\n")[1] == "\n".join(
        (
            r"\begin{table}",
            r"\centering",
            r"\caption{Speed}\label{tab:speed}",
            r"\begin{tabular}{lr}",
            r"\toprule",
            r"Network & Latency ms \\",
            r"\midrule",
            r"mobilenet\_v2 & 23 $\pm$3 \\",
            r"alexnet & {--} \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}" + "\n",
        )
    )
    assert "a note" not in text


def test_only_tables_with_a_caption_and_labels_of_their_own() -> None:
    text = latex_of(table(("a", "1")), table(("b", "2")), table(("c", "3"), caption=""))
    assert re.findall(r"\\label\{(.*?)\}", text) == ["tab:speed", "tab:speed-2"]
    assert text.count(r"\begin{tabular}") == 2


def test_long_tables_go_over_pages_and_long_texts_over_lines() -> None:
    long = latex_of(table(*((f"n{number}", "1") for number in range(ONE_PAGE + 1))))
    assert r"\begin{longtable}{lr}" in long
    assert long.count("Network & Latency ms") == 2
    assert r"\begin{tabular}{p{0.24\linewidth}r}" in latex_of(table(("x" * 41, "1")))


hostile = st.text(
    st.one_of(st.sampled_from("\\{}$&#_%~^<>|\"'`-[]*/.ab1 "), st.characters(codec="latin-1")), max_size=30
)
COMMANDS = r"\\(?:textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|textquotedbl)\{\}"
COMMANDS += r"|\\(?:textasciigrave|textquotesingle|ldots)\{\}|\\[{}$&#_%]|\$\\(?:pm|times)\$|-\{\}|\\texttt|\{--\}"


@given(hostile)
def test_no_text_gets_out_of_its_cell(text: str) -> None:
    (row,) = re.findall(r"\\midrule\n(.*) & end \\\\\n\\bottomrule", latex_of(table((text, "end"))))
    bare = re.sub(COMMANDS, "", row)
    assert not re.search(r"[\\$&#_%~^<>|\"`']", bare)
    assert bare.count("{") == bare.count("}")
    assert not row.startswith(("[", "*"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_itself_accepts_it(tmp_path: Path) -> None:
    rows = [
        ("<script>alert(1)</script>", "23 ±3"),
        ("../../x", "-"),
        ("[a]", "∞"),
        ("* `b|c` ~^\\{}$&#_%\"'--", "ρ ↑ …"),
    ]
    rows += [(f"n{number}", "1,000 (9 to 2,000)") for number in range(60)]
    page = latex_of(table(*rows[:4]), table(*rows))
    preamble = re.findall(r"\\usepackage\S*?\{\w+\}", page)
    document = "\\documentclass{article}" + "".join(preamble) + "\\begin{document}\n" + page + "\\end{document}\n"
    (tmp_path / "t.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
