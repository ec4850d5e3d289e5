"""What plots show: the right cells, the true front, and no more than a picture holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import vl_convert
from builders import NETWORKS, make_environment, make_record, make_rows, make_run, make_suite

from archbench.choose.cell_summary import CellSummary, cell_summaries
from archbench.model.suite import Axes
from archbench.rendering import charts
from archbench.rendering.content import Dataset
from archbench.rendering.drawing import DARK, LIGHT
from archbench.rendering.plots import _PLOTS, FAMILY_COLOURS, MOST_CELLS, NAME, OTHERS, Point, plots, plotted
from archbench.rendering.run_data import read_run


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory) -> tuple[CellSummary, ...]:
    """On a GPU: two batch sizes, both phases, four settings; no noise, so that the truth is exact."""
    suite, environment = make_suite(rounds=1, twin=None), make_environment("cuda:0")
    records = list(make_rows(suite, environment, noise=0.0, drift=0.0))
    run = make_run(tmp_path_factory.mktemp("plots"), records, suite=suite, environment=environment, timings=False)
    return read_run(run).cells


def cells(found: tuple[CellSummary, ...]) -> Dataset:
    data = plotted(found, make_suite().settings)
    assert data is not None
    return data


def points(found: tuple[CellSummary, ...]) -> list[Point]:
    data = cells(found)
    return [msgspec.convert(dict(zip(data.columns, row, strict=True)), Point) for row in data.rows]


def drawn(chart: charts.Chart, data: Dataset) -> list[dict[str, Any]]:
    """Everything in the scene of a chart, as Vega lays it out."""
    spec = chart.to_dict()
    spec["data"] = {"values": [dict(zip(data.columns, row, strict=True)) for row in data.rows]}
    spec["width"] = 600
    found = []

    def walk(item: dict[str, Any], mark: dict[str, Any] | None) -> None:
        found.append(
            {
                **item,
                "mark": mark and mark.get("marktype"),
                "role": mark and mark.get("role"),
                "set": mark and mark.get("name"),
            }
        )
        for inner in item.get("items", []):
            walk(inner, item if "marktype" in item else mark)

    walk(vl_convert.vegalite_to_scenegraph(spec)["scenegraph"], None)
    return found


def texts(chart: charts.Chart, data: Dataset) -> list[str]:
    return [
        item["text"]
        for item in drawn(chart, data)
        if item["mark"] == "text" and item["role"] == "mark" and "text" in item
    ]


def test_every_chart_is_valid_vega_lite(summaries: tuple[CellSummary, ...]) -> None:
    shown = points(summaries)
    for plot in _PLOTS:
        assert plot.drawable(shown)
        charts.CHARTS[plot.name](shown).to_dict(validate=True)  # raises where the schema forbids something
    section = plots(cells(summaries))
    assert section is not None
    names = [plot.name for plot in _PLOTS]
    assert sorted(names) == sorted(charts.CHARTS), "each is shown once"


def test_the_front_is_what_no_other_network_beats(summaries: tuple[CellSummary, ...]) -> None:
    same = [one for one in summaries if (one.phase, one.batch_size, one.setting) == ("inference", 1, "fp32")]
    front = {
        one.network
        for one in same
        if not any(
            other.rank_latency_s <= one.rank_latency_s and other.top1 > one.top1  # type: ignore[operator]
            for other in same
        )
    }
    assert front == {"mobilenet_v2", "densenet121", "resnet50"}
    named = texts(charts.accuracy_over_latency(points(summaries)), cells(summaries))
    assert front == {text for text in named if text in NETWORKS}
    assert "inference, batch size 1, NVIDIA H200" in named


def test_the_rate_is_compared_at_the_largest_batch_that_most_ran(summaries: tuple[CellSummary, ...]) -> None:
    few = tuple(
        msgspec.structs.replace(one, batch_size=512)
        for one in summaries
        if one.variant == "resnet18" and one.setting == "fp32" and one.batch_size == 8
    )
    named = texts(charts.accuracy_over_throughput(points((*summaries, *few))), cells((*summaries, *few)))
    assert "inference, batch size 8, NVIDIA H200" in named


def test_a_filtered_chart_chooses_anew(summaries: tuple[CellSummary, ...]) -> None:
    chart = charts.accuracy_over_latency(points(summaries))
    data = cells(summaries)
    phase, batch = data.columns.index("phase"), data.columns.index("batch")
    training = msgspec.structs.replace(
        data, rows=tuple(row for row in data.rows if row[phase] == "training" and row[batch] == 8)
    )
    assert "training, batch size 8, NVIDIA H200" in texts(chart, training)
    nothing = msgspec.structs.replace(data, rows=())
    assert not [text for text in texts(chart, nothing) if text in NETWORKS]


def test_gains_are_bars_from_one_in_the_order_of_their_best(summaries: tuple[CellSummary, ...]) -> None:
    gains = {
        (one.setting, one.network): one.gain for one in points(summaries) if one.phase == "inference" and one.batch == 1
    }
    assert gains["compiled", "resnet50"] == pytest.approx(2.1, rel=1e-4)
    assert gains["amp", "vgg16"] == pytest.approx(1.4, rel=1e-4)
    assert gains["fp32", "vgg16"] is None
    bars = [
        item
        for item in drawn(charts.gains(points(summaries)), cells(summaries))
        if item["set"] == "shown_marks" and item["mark"] == "rect"
    ]
    bars = [item for item in bars if "width" in item and "items" not in item]
    assert len(bars) == 3 * len(NETWORKS)


def test_training_memory_is_bars_where_there_is_one_batch_size(summaries: tuple[CellSummary, ...]) -> None:
    one_size = tuple(one for one in summaries if one.batch_size == 1)
    kinds = [layer["mark"]["type"] for layer in charts.training_memory(points(one_size)).to_dict()["layer"]]
    assert kinds == ["bar", "text"]
    kinds = [layer["mark"]["type"] for layer in charts.training_memory(points(summaries)).to_dict()["layer"]]
    assert kinds == ["line", "point", "text"]


def test_failed_and_invalid_cells_are_not_drawn_but_can_be_filtered_for() -> None:
    found = points_of(make_record(), make_record(cell_id="b", variant="other", family="else", verdict="invalid"))
    data = plotted(found, {})
    assert data is not None
    assert [row[0] for row in data.rows] == ["resnet50"]
    family = next(facet for facet in data.facets if facet.column == "family")
    assert family.options == ("else", "resnet")
    assert family.stands_for == {"resnet50": "resnet", "other": "else"}
    assert plotted(found[1:], {}) is None


def test_nothing_is_drawn_of_cells_without_figures() -> None:
    found = points_of(
        make_record(latency_median_s=None, throughput_img_s=None, top1=None, macs=None, peak_allocated_bytes=None)
    )
    assert plots(cells(found)) is None


def test_a_large_run_keeps_whole_networks_and_the_front() -> None:
    pattern = points_of(*make_rows(make_suite(rounds=1, twin=None), noise=0.0, drift=0.0))
    many = tuple(
        msgspec.structs.replace(
            one,
            variant=f"{one.variant}_{copy}",
            rank_latency_s=one.rank_latency_s and one.rank_latency_s * (1 + copy / 50),
        )
        for copy in range(200)
        for one in pattern
    )
    data = cells(many)
    usable = [one for one in many if one.is_usable]
    assert MOST_CELLS * 0.7 < len(data.rows) <= MOST_CELLS * 1.3
    assert data.left_out is not None
    assert f"{len(data.rows):,} of {len(usable):,}" in data.left_out
    names = {str(row[0]) for row in data.rows}
    assert {"mobilenet_v2_0", "densenet121_0", "resnet50_0"} <= names
    per_network = {name: sum(row[0] == name for row in data.rows) for name in names}
    assert per_network == {name: sum(one.variant == name for one in usable) for name in names}
    one_network = tuple(msgspec.structs.replace(pattern[0], batch_size=size) for size in range(1, 4 * MOST_CELLS))
    assert len(cells(one_network).rows) == 2 * MOST_CELLS


def points_of(*records: Any) -> tuple[CellSummary, ...]:
    """Outcomes of rows, by way of the summary and without a file."""
    import pandas as pd

    from archbench.choose.summary import summarise
    from archbench.model.record import columns

    table = pd.DataFrame([msgspec.structs.asdict(record) for record in records], columns=list(columns()))
    kinds = {"whole": "Int64", "flag": "boolean", "real": "float64"}
    table = table.astype({name: kinds[column.kind] for name, column in columns().items() if column.kind in kinds})
    speed = table["canary_s"] / table["canary_s"].median()
    derived = {
        "speed_index": speed,
        "latency_median_corrected_s": table["latency_median_s"] / speed,
        "throughput_corrected_img_s": table["throughput_img_s"] * speed,
    }
    return cell_summaries(summarise(pd.concat([table, pd.DataFrame(derived)], axis=1)))


def test_rare_families_share_a_colour() -> None:
    found = points_of(*(make_record(cell_id=str(n), variant=f"n{n}", family=f"f{n}") for n in range(9)))
    colours = {one.colour for one in points(found)}
    assert OTHERS in colours
    assert len(colours) == FAMILY_COLOURS + 1


@pytest.mark.parametrize(("palette", "ground"), [(LIGHT, "#ffffff"), (DARK, "#12161c")])
def test_colours_stand_out_from_their_ground(palette: tuple[str, ...], ground: str) -> None:
    """Contrast of at least 3:1, which WCAG 2.2 asks of graphics (criterion 1.4.11)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in palette:
        bright, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 3


@pytest.mark.parametrize(
    "words", [("list",), ("show", "resnet50"), ("plan", "resnet50"), ("report", "--help"), ("pick", "{run}")]
)
def test_other_commands_do_not_import_the_plotting_library(tmp_path: Path, words: tuple[str, ...]) -> None:
    run = make_run(tmp_path, [make_record()])
    code = (
        "import sys\nfrom archbench.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'altair', 'vl_convert', 'narwhals'} & sys.modules.keys()), file=sys.stderr)"
    )
    arguments = [word.format(run=run) for word in words]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[]"


def test_specs_name_their_data_and_hold_none_of_it(summaries: tuple[CellSummary, ...]) -> None:
    section = plots(cells(summaries))
    assert section is not None
    found = [block for block in section.blocks if hasattr(block, "spec")]
    assert len(found) >= 5
    for picture in found:
        assert json.loads(picture.spec)["data"] == {"name": NAME}
        assert "resnet50" not in picture.spec


def test_axes_of_batch_sizes_need_two_of_them() -> None:
    rows = make_rows(make_suite(rounds=1, twin=None, axes=Axes(batch_size=(8,), phase=("inference",))))
    shown = points(points_of(*rows))
    drawable = {plot.name for plot in _PLOTS if plot.drawable(shown)}
    assert "throughput-over-batch" not in drawable
    assert "accuracy-over-throughput" not in drawable
    assert "training-memory" not in drawable
    assert "accuracy-over-latency" in drawable
