"""What `archbench run` ends with: one table of results, the line on which network comes first, on any screen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import SETTINGS, make_environment, make_record, make_rows, make_run, make_suite

from archbench.choose.cell_summary import shared_options, without_options
from archbench.choose.pick import asked, pick
from archbench.model.cell import Network
from archbench.model.record import Record
from archbench.rendering.content import Report, Table, every
from archbench.rendering.decisions import picked_report
from archbench.rendering.figures import results_report
from archbench.rendering.report import build_report
from archbench.rendering.run_data import read_run
from archbench.rendering.text import render_terminal

NUMBER = re.compile(r"\d[\d.,]*")


def timed(name: str, latency: float, **fields: Any) -> Record:
    low, high = latency * 0.99, latency * 1.01
    return make_record(
        **{
            "architecture": name,
            "variant": name,
            "cell_id": f"{name}@batch_size={fields.get('batch_size', 1)}",
            "latency_median_s": latency,
            "latency_ci_low_s": low,
            "latency_ci_high_s": high,
            "throughput_img_s": 1 / latency,
            "throughput_ci_low_img_s": 1 / high,
            "throughput_ci_high_img_s": 1 / low,
            **fields,
        }
    )


def results(root: Path, rows: Sequence[Record], names: Sequence[str]) -> Report:
    suite = make_suite(architectures=tuple(Network(name=name) for name in names), settings={"fp32": SETTINGS["fp32"]})
    return results_report(read_run(make_run(root, rows, suite=suite)))


def test_a_quick_look_ends_with_its_figures_and_says_which_one(tmp_path: Path) -> None:
    rows = [timed("resnet50", 0.02, top1=76.1), timed("densenet121", 0.04, top1=74.4, params=7_978_856)]
    text = render_terminal(results(tmp_path, rows, ["resnet50", "densenet121"]), 100)
    lines = text.splitlines()
    assert lines[1].startswith("Inference, fp32, batch 1, images of 224 px.")
    head = next(line for line in lines if line.startswith("Network"))
    assert head.split() == [
        "Network",
        "Latency",
        "ms",
        "img/s",
        "Verdict",
        "Top-1",
        "%",
        "Params",
        "M",
        "GMACs",
        "Peak",
        "MiB",
    ]
    (fast,) = (line for line in lines if line.startswith("resnet50"))
    assert fast.split()[1:8] == ["20.0", "±0.2", "50.0", "ok", "76.1", "25.56", "4.09"]
    (slow,) = (line for line in lines if line.startswith("densenet121"))
    assert "7.98" in slow
    assert lines.index(fast) < lines.index(slow)
    said = " ".join(lines[lines.index(slow) + 1 :])
    assert "Which one (inference, batch 1): resnet50 is the fastest, densenet121 takes 2.00x ±0.03 as long." in said
    assert "The most accurate is resnet50 (top-1 76.1 %, published)." in said


def test_two_that_cannot_be_told_apart_get_the_duel_that_would(tmp_path: Path) -> None:
    rows = [timed("resnet50", 0.0200), timed("vgg16", 0.0201)]
    text = " ".join(render_terminal(results(tmp_path, rows, ["resnet50", "vgg16"]), 100).split())
    assert "resnet50 is not told apart from vgg16 in latency; archbench duel resnet50@batch_size=1" in text


def test_of_many_cells_those_of_the_main_point_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    names = [f"net{number}" for number in range(20)]
    rows = [timed(name, 0.01 * (1 + place)) for place, name in enumerate(names)]
    rows += [timed(name, 0.5, batch_size=8) for name in names[:9]]
    report = results(tmp_path, rows, names)
    (table,) = every(Table, report.blocks)
    assert len(table.rows) == 20
    assert "Batch" not in table.headings
    assert "9 more cells in the report." in render_terminal(report)


def test_an_option_that_all_networks_have_is_said_once(tmp_path: Path) -> None:
    rows = []
    for name, time in (("resnet50", 0.02), ("vgg16", 0.03)):
        variant = f"{name}[input_size=192]"
        rows.append(timed(name, time, variant=variant, cell_id=f"{variant}@batch_size=1", input_size=192))
    run = read_run(make_run(tmp_path, rows))
    text = render_terminal(results_report(run))
    assert text.count("192") == 1
    assert "images of 192 px" in text
    whole = build_report(run)
    assert {row[0] for table in every(Table, whole.blocks) if table.headings[0] == "Network" for row in table.rows} == {
        "resnet50",
        "vgg16",
    }


def test_shared_options_are_those_of_every_variant() -> None:
    both = ["a[width=2,input_size=192]", "b[input_size=192,head=features]"]
    assert shared_options(both) == "input_size=192"
    assert [without_options(one, "input_size=192") for one in both] == ["a[width=2]", "b[head=features]"]
    assert shared_options([*both, "c"]) == ""
    lists = ["a[layers=[1,2]]", "b[layers=[1,2]]"]
    assert [without_options(one, shared_options(lists)) for one in lists] == lists


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Report, set[str]]]:
    """Tables of many kinds, each with the numbers in it."""
    root = tmp_path_factory.mktemp("reports")
    names = ["resnet18", "densenet121", "vgg16"]
    suite = make_suite(architectures=tuple(Network(name=name) for name in names), rounds=2)
    run = read_run(make_run(root, list(make_rows(suite, make_environment(), networks=names)), suite=suite))
    picked = pick(run.candidates, asked(where=["batch_size == 8"], across=["precision"]))
    wide = timed("mobilenet_v3_large", 0.076, latency_ci_low_s=0.026, latency_ci_high_s=0.249)
    lopsided = results(root / "wide", [wide, timed("resnet50", 12.3456)], ["mobilenet_v3_large", "resnet50"])
    found = (results_report(run), build_report(run), picked_report(picked, 10), lopsided)
    return [(report, set(NUMBER.findall(render_terminal(report)))) for report in found]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_every_number_on_a_screen_stands_whole(reports: list[tuple[Report, set[str]]], width: int) -> None:
    for report, whole in reports:
        shown = render_terminal(report, width)
        assert set(NUMBER.findall(shown)) <= whole
        tables = [table for table in every(Table, report.blocks) if any(table.headings)]
        assert shown.count("no room for") <= len(tables)
        if "no room for" in shown:
            assert "shows all)" in shown
