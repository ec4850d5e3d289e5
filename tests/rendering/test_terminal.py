"""A report on a terminal: what fits stays, numbers are never cut, and nothing moves the cursor."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from archbench.rendering.content import Bullets, Fold, Paragraph, Report, Section, table
from archbench.rendering.text import render_terminal

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


def report(*blocks: object) -> Report:
    return Report(title="Title", parts=blocks)  # type: ignore[arg-type]


@given(
    names=st.lists(st.text("abcdefgh", min_size=1, max_size=50), min_size=1, max_size=5),
    columns=st.integers(1, 12),
    width=st.integers(40, 120),
)
def test_a_line_fits_the_screen_and_every_number_that_is_shown_is_whole(
    names: list[str], columns: int, width: int
) -> None:
    numbers = [str(10**8 + column) for column in range(columns)]
    headings = ("network", *(f">c{column} ms" for column in range(columns)))
    lines = render_terminal(report(table(headings, [(name, *numbers) for name in names])), width).splitlines()
    assert max(map(len, lines)) <= width
    shown = re.findall(r"\d{3,}", " ".join(lines))
    assert set(shown) <= set(numbers)
    assert len(shown) % len(names) == 0
    kept = len(shown) // len(names)
    assert kept == columns or f"c{columns - 1} ms" in " ".join(lines).partition("(no room for: ")[2]


def test_without_a_screen_nothing_is_left_out() -> None:
    wide = table(("a", ">b"), [("x" * 300, "1")])
    assert "x" * 300 in render_terminal(report(wide))


def test_texts_are_shortened_before_columns_go() -> None:
    found = table(("network", "setting", ">ms"), [("n" * 30, "s" * 60, "1.25")])
    line = render_terminal(report(found), 80).splitlines()[-1]
    assert line.startswith("n" * 30)
    assert line.endswith("1.25")
    assert "s…" in line


def test_headings_and_folds_stand_apart_and_lists_hang() -> None:
    text = render_terminal(
        report(
            Paragraph("`code` and words"),
            Section(title="First", blocks=(Bullets(("word " * 40,)),)),
            Fold(summary="Folded:", blocks=(table(("", ""), [("a", "one"), ("long", "two")]),)),
        )
    )
    lines = text.splitlines()
    assert lines[:4] == ["Title", "code and words", "", "First"]
    assert lines[4].startswith("  - word")
    assert lines[5].startswith("    word")
    assert lines[-4:] == ["", "Folded:", "  a     one", "  long  two"]


@given(first=words, second=words)
def test_no_control_character_reaches_the_terminal(first: str, second: str) -> None:
    blocks = (
        Paragraph(first),
        Bullets((second,)),
        table((second, ">n"), [(first, second)]),
        table(("", ""), [(first, second)]),
    )
    text = render_terminal(report(*blocks), 80)
    assert all(line.isprintable() for line in text.split("\n"))


def test_colours_are_asked_for() -> None:
    rows = table(("Verdict", "Cell"), [("slower", "a")])
    assert "\x1b[31mslower\x1b[0m" in render_terminal(report(rows), 80, colour=True)
    assert "\x1b" not in render_terminal(report(rows), 80)
