"""MACs of which some were not counted are marked in every table."""

from __future__ import annotations

from pathlib import Path

from builders import make_record, make_run

import archbench
from archbench.choose.summary import summarise
from archbench.comparison.findings import findings
from archbench.rendering.decisions import picked_report
from archbench.rendering.figures import results_report
from archbench.rendering.run_data import read_run
from archbench.rendering.text import render_terminal
from archbench.results import load_frame


def run_of(root: Path, *reasons: str) -> Path:
    return make_run(root, [make_record(reasons=reasons)])


def test_every_table_marks_a_lower_bound(tmp_path: Path) -> None:
    for reasons, mark in ((("macs_lower_bound",), "≥ 4.09"), ((), " 4.09")):
        run = run_of(tmp_path / str(len(reasons)), *reasons)
        picked = archbench.pick(run, minimize="macs")
        texts = [
            str(archbench.report(run)),
            render_terminal(results_report(read_run(run))),
            render_terminal(picked_report(picked, 10)),
            render_terminal(picked_report(archbench.pick(run, where="macs < 9G"), 10)),
        ]
        assert all(mark in text for text in texts)
        assert reasons or not any("≥" in text for text in texts)


def test_a_figure_that_becomes_a_lower_bound_is_told(tmp_path: Path) -> None:
    whole, bound = (
        summarise(load_frame(run_of(tmp_path / name, *reasons))).set_index("cell_id")
        for name, reasons in (("a", ()), ("b", ("macs_lower_bound",)))
    )
    (found,) = findings(whole, bound, may_lack=False)
    assert found.column == "macs"
    assert "lower bound in the head" in found.what
    assert not found.fails
    assert not findings(bound, bound, may_lack=False)
