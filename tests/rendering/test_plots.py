"""What plots show: the right cells, the true front, and no more than a picture holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import pytest
import vl_convert
from builders import NETWORKS, make_environment, make_record, make_rows, make_run, make_suite

from archbench import pipeline
from archbench.choose.cell_summary import CellSummary, cell_summaries
from archbench.model.axes import Metric
from archbench.model.messages import PhaseStarted
from archbench.model.suite import Axes
from archbench.rendering import drawing, report
from archbench.rendering.charts import NAME, OTHERS, Point
from archbench.rendering.content import NAMES, Dataset, Report
from archbench.rendering.drawing import DARK, LIGHT, PLACED, draw, layer, log_axis, number
from archbench.rendering.plots import FAMILY_COLOURS, MOST_CELLS, PLOTS, plots, plotted
from archbench.rendering.report import GettingReady
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


def spec_of(name: str, points: list[Point]) -> dict[str, Any]:
    (plot,) = (one for one in PLOTS if one.name == name)
    spec = json.loads(plot.draw(points))
    assert isinstance(spec, dict)
    return spec


def scene(spec: dict[str, Any], data: Dataset, width: int = 600) -> list[dict[str, Any]]:
    """Everything in a chart as Vega lays it out, with names where they are placed."""
    values = {"values": [dict(zip(data.columns, row, strict=True)) for row in data.rows]}
    return scene_of({**spec, "data": values, "width": width})


def scene_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    vega = vl_convert.vegalite_to_vega(spec)
    for mark in vega["marks"]:
        if mark.get("name") == f"{NAMES}_marks":
            mark["transform"] = [PLACED]
    found = []

    def walk(item: dict[str, Any], mark: dict[str, Any] | None) -> None:
        about = (
            {} if mark is None else {"mark": mark.get("marktype"), "role": mark.get("role"), "set": mark.get("name")}
        )
        found.append({"mark": None, "role": None, "set": None, **item, **about})
        for inner in item.get("items", []):
            walk(inner, item if "marktype" in item else mark)

    walk(vl_convert.vega_to_scenegraph(vega)["scenegraph"], None)
    return found


def texts(spec: dict[str, Any], data: Dataset) -> list[str]:
    """Those that are seen, but for axes and legends; of several lines as one."""
    return [
        ", ".join(item["text"]) if isinstance(item["text"], list) else item["text"]
        for item in scene(spec, data)
        if item["mark"] == "text" and item["role"] == "mark" and "text" in item and item.get("opacity", 1)
    ]


def test_every_chart_is_valid_vega_lite(summaries: tuple[CellSummary, ...]) -> None:
    shown = points(summaries)
    altair = pytest.importorskip("altair")
    for plot in PLOTS:
        assert plot.drawable(shown)
        altair.LayerChart.from_json(plot.draw(shown), validate=True)  # raises where the schema forbids something
    section = plots(cells(summaries))
    assert section is not None
    assert len({plot.name for plot in PLOTS}) == len(PLOTS)


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
    spec = spec_of("accuracy-over-latency", points(summaries))
    (called,) = (step for step in spec["transform"] if step.get("as") == "called")
    called["calculate"] = "datum.on_front && datum.setting === 'fp32' ? datum.network : ''"
    named = texts(spec, cells(summaries))
    assert front == {text for text in named if text in NETWORKS}
    assert "inference, batch size 1, NVIDIA H200" in named


def test_the_rate_is_compared_at_the_largest_batch_that_most_ran(summaries: tuple[CellSummary, ...]) -> None:
    few = tuple(
        msgspec.structs.replace(one, batch_size=512)
        for one in summaries
        if one.variant == "resnet18" and one.setting == "fp32" and one.batch_size == 8
    )
    named = texts(spec_of("accuracy-over-throughput", points((*summaries, *few))), cells((*summaries, *few)))
    assert "inference, batch size 8, NVIDIA H200" in named


def test_a_filtered_chart_chooses_anew(summaries: tuple[CellSummary, ...]) -> None:
    chart = spec_of("accuracy-over-latency", points(summaries))
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
        for item in scene(spec_of("gains", points(summaries)), cells(summaries))
        if item["set"] == "shown_marks" and item["mark"] == "rect"
    ]
    bars = [item for item in bars if "width" in item and "items" not in item]
    assert len(bars) == 3 * len(NETWORKS)


def test_training_memory_is_bars_where_there_is_one_batch_size(summaries: tuple[CellSummary, ...]) -> None:
    one_size = tuple(one for one in summaries if one.batch_size == 1)
    kinds = [layer["mark"]["type"] for layer in spec_of("training-memory", points(one_size))["layer"]]
    assert kinds == ["bar", "text"]
    kinds = [layer["mark"]["type"] for layer in spec_of("training-memory", points(summaries))["layer"]]
    assert kinds == ["line", "point", "text", "text"]


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


def test_other_commands_do_not_import_the_plotting_library(tmp_path: Path) -> None:
    run = str(make_run(tmp_path, [make_record()]))
    commands = [["list"], ["show", "resnet50"], ["plan", "resnet50"], ["report", "--help"], ["pick", run]]
    code = (
        "import json, sys\nfrom archbench.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try:\n        main(words)\n    except SystemExit:\n        pass\n"
        "    print(words, sorted({'altair', 'vl_convert', 'narwhals'} & sys.modules.keys()), file=sys.stderr)\n"
    )
    words = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert [line for line in done.stderr.splitlines() if line.startswith("[")] == [f"{one} []" for one in commands]


def test_a_library_that_never_starts_costs_the_plots_alone(
    summaries: tuple[CellSummary, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Seen once: its engine did not come back from the first picture, in the thread that draws it ahead."""
    monkeypatch.setattr(drawing, "START_S", 0.05)
    hangs, enough = Event(), Event()

    def start() -> None:
        with drawing.STARTING:
            hangs.set()
            enough.wait()

    thread = Thread(target=start)
    thread.start()
    try:
        assert hangs.wait(10)
        section = plots(cells(summaries))
        assert section is not None
        assert not draw(Report(title="t", parts=(section,), dataset=cells(summaries)), tmp_path)
    finally:
        enough.set()
        thread.join()
    assert "the plotting library has not started in 0.05 s" in caplog.text
    assert not list(tmp_path.iterdir())


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
    drawable = {plot.name for plot in PLOTS if plot.drawable(shown)}
    assert "throughput-over-batch" not in drawable
    assert "accuracy-over-throughput" not in drawable
    assert "training-memory" not in drawable
    assert "accuracy-over-latency" in drawable


def many(count: int) -> tuple[CellSummary, ...]:
    """Networks under one setting, all but three in a cloud behind the front, some of them suspect."""
    found = []
    for place in range(count):
        ahead = place < 3
        found.append(
            make_record(
                cell_id=f"n{place}",
                variant=f"network_{place}",
                latency_median_s=0.01 * (1 + place if ahead else 3.3 + (place * 7 % count) / count),
                latency_ci_low_s=None,
                latency_ci_high_s=None,
                top1=75.0 + place if ahead else 74 + (place * 5 % count) / count,
                verdict="suspect" if place % 4 == 3 else "ok",
                reasons=("contended",) if place % 4 == 3 else (),
            )
        )
    return points_of(*found)


def named_boxes(marks: list[dict[str, Any]]) -> dict[str, tuple[float, float, float, float]]:
    """Where each name lies, by a width that its letters cannot be below (Helvetica's narrowest, digits and all)."""
    boxes = {}
    for item in marks:
        if item["set"] == f"{NAMES}_marks" and item.get("opacity", 1) and item.get("text"):
            width, x, y = 4.5 * len(item["text"]), item["x"], item["y"]
            left = {"left": x, "right": x - width}.get(item.get("align", "left"), x - width / 2)
            top = {"top": y, "bottom": y - 9}.get(item.get("baseline", "alphabetic"), y - 4.5)
            boxes[item["text"]] = (left, top, left + width, top + 9)
    return boxes


@pytest.mark.parametrize("width", [330, 680])
def test_names_lie_on_no_other_and_on_no_point_and_those_of_the_front_come_first(width: int) -> None:
    found = many(60)
    marks = scene(spec_of("accuracy-over-latency", points(found)), cells(found), width)
    boxes = named_boxes(marks)
    assert {"network_0", "network_1", "network_2"} <= boxes.keys()
    assert 10 < len(boxes) < 60, "not all have room, and many do"
    dots = [
        (item["x"], item["y"]) for item in marks if item["set"] == "shown_marks" and "x" in item and "items" not in item
    ]
    assert len(dots) == 60
    for name, (left, top, right, bottom) in boxes.items():
        assert not [
            other
            for other, box in boxes.items()
            if other != name and left < box[2] and box[0] < right and top < box[3] and box[1] < bottom
        ]
        assert not [dot for dot in dots if left < dot[0] < right and top < dot[1] < bottom]


def test_only_the_networks_that_are_asked_for_are_named() -> None:
    found = many(20)
    data = plotted(found, {}, label=("network_1*", "network_5"))
    assert data is not None
    place = data.columns.index("named")
    wanted = {str(row[0]) for row in data.rows if row[place]}
    assert wanted == {"network_1", "network_5", *(f"network_{number}" for number in range(10, 20))}
    boxes = named_boxes(scene(spec_of("latency-over-macs", points(found)), data))
    assert boxes.keys() <= wanted
    assert "network_5" in boxes


def test_suspect_points_are_hollow_and_the_plot_says_so() -> None:
    found = many(20)
    spec = spec_of("accuracy-over-latency", points(found))
    marks = [item for item in scene(spec, cells(found)) if item["set"] == "shown_marks" and "shape" in item]
    opacities = [item.get("fillOpacity", 1) for item in marks]
    assert (opacities.count(0), len(opacities)) == (5, 20)
    assert all(opacity > 0.5 for opacity in opacities if opacity)
    assert any("(hollow: suspect)" in text for text in texts(spec, cells(found)))
    fine = tuple(one for one in found if one.verdict == "ok")
    assert not any("hollow" in text for text in texts(spec, cells(fine)))


@pytest.mark.parametrize(
    ("low", "high"), [(1, 1.9), (0.75, 1.9), (21, 49), (22, 90), (7, 120), (0.3, 300), (1, 10_000), (0.01, 50_000)]
)
def test_a_logarithmic_axis_has_readable_figures(low: float, high: float) -> None:
    rows = {"values": [{"x": low}, {"x": high}]}
    spec = {"data": rows, "width": 600, **layer("point", {"x": number("x", **log_axis("x"))})}
    labels = [
        item["text"]
        for item in scene_of(spec)
        if item["role"] == "axis-label" and item.get("text") and item.get("opacity", 1)
    ]
    values = [float(text.replace(",", "")) for text in labels]
    assert 3 <= len(values) <= 12
    assert values == sorted(values)
    assert values[0] < low * 5.1
    assert values[-1] > high / 5.1
    assert not any("^" in text or "e" in text for text in labels)


def test_pictures_are_stored_as_they_are_asked_for(summaries: tuple[CellSummary, ...], tmp_path: Path) -> None:
    data = cells(summaries)
    section = plots(data)
    assert section is not None
    report = Report(title="", parts=section.blocks[1:2], dataset=data)
    assert draw(report, tmp_path, ("svg", "png", "pdf"))
    content = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    begins = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}
    assert content.keys() == {f"accuracy-over-latency.{kind}" for kind in begins}
    assert all(content[f"accuracy-over-latency.{kind}"].startswith(start) for kind, start in begins.items())
    assert b"resnet50" in content["accuracy-over-latency.svg"]


def test_what_a_report_needs_is_loaded_only_while_it_is_allowed() -> None:
    begun, go_on, loaded = Event(), Event(), Event()

    def first() -> None:
        begun.set()
        go_on.wait()

    ready = GettingReady((first, loaded.set))
    ready.allow()
    assert begun.wait(10)
    ready.allow(False)  # nothing else begins, though what has begun goes on
    go_on.set()
    assert not loaded.wait(0.2)
    ready.finish()
    assert loaded.is_set()


def test_what_is_left_of_it_is_given_up_with_the_run() -> None:
    loaded: list[str] = []
    ready = GettingReady((lambda: loaded.append("too late"),))
    ready.give_up()
    ready.finish()
    assert not loaded


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        (("latency", "memory"), [False, True, False, True]),
        (("latency",), ["finish", False, True, False, True]),
        (("latency", "memory", "profile"), ["finish", False, True, False, True]),
    ],
)
def test_a_run_lets_it_be_loaded_while_nothing_is_timed(
    metrics: tuple[Metric, ...], told: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    class Told:
        allow = staticmethod(seen.append)
        finish = staticmethod(lambda: seen.append("finish"))
        give_up = staticmethod(lambda: seen.append("given up"))

    monkeypatch.setattr(report, "GettingReady", Told)
    monkeypatch.delenv(pipeline.NO_REPORT, raising=False)
    with pipeline._getting_ready(make_suite(metrics=metrics)) as heard:
        for phase in ("latency", "memory", "warmup, beside other work", "numerics"):
            heard(PhaseStarted(cell_id="c", phase=phase))
    assert seen == [*told, "given up"]
