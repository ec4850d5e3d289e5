"""`summary.parquet` and `summary.csv`: what the report prints, for readers that are not archbench."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import median

import pandas as pd
import pyarrow.parquet as pq
import pytest
from builders import make_record, make_run

import archbench
from archbench.rendering.report import write_report
from archbench.rendering.run_data import summary_columns

SPEEDS = {"resnet50": (1.0, 1.0, 1.2), "vgg16": (1.0, 1.0, 1.0)}


def a_run(root: Path) -> Path:
    """Two networks, three rounds; in the last the machine is a fifth slower while the first is measured."""
    rows = [
        make_record(
            architecture=name,
            variant=name,
            cell_id=f"{name}@{mode}",
            compile_mode=mode,
            setting=None,
            round=number,
            canary_s=0.001 * speed,
            latency_median_s=base * speed,
            latency_ci_low_s=base * speed / 1.01,
            latency_ci_high_s=base * speed * 1.01,
            throughput_img_s=1 / (base * speed),
        )
        for name, mode, base in (("resnet50", "off", 0.020), ("resnet50", "default", 0.010), ("vgg16", "off", 0.040))
        for number, speed in enumerate(SPEEDS[name])
    ]
    failed = make_record(architecture="alexnet", variant="alexnet", cell_id="alexnet@off", status="oom", setting=None)
    return make_run(root, [*rows, failed])


def test_the_summary_holds_the_reports_figures_and_not_the_rows(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    found = archbench.summary(run).set_index("cell_id")
    assert found["latency_s"].to_dict() == pytest.approx(
        {"resnet50@off": 0.020, "resnet50@default": 0.010, "vgg16@off": 0.040, "alexnet@off": float("nan")}, nan_ok=True
    )
    rows = archbench.load(run).query("cell_id == 'resnet50@off'")
    assert rows["latency_median_s"].mean() == pytest.approx(0.020 * 3.2 / 3), "what an average of the rows would say"
    assert found.loc["resnet50@off", ["verdict", "reasons"]].tolist() == ["suspect", "drift"]
    assert found.loc["vgg16@off", "verdict"] == "ok"
    assert found["reasons"].isna().tolist() == [False, False, True, True]
    assert found["best_setting"].tolist()[:2] == ["fp32, compile=default"] * 2
    assert found["best_setting"][2:].isna().all(), "measured under one setting"
    assert found["processes"].tolist() == [3, 3, 3, 1]
    assert (found["latency_low_s"] < found["latency_s"])[:3].all()
    assert found["throughput_img_s"].iloc[2] == pytest.approx(25.0)
    assert found["peak_bytes"].iloc[0] == median(archbench.load(run)["peak_allocated_bytes"].dropna())
    assert found.loc["alexnet@off", "status"] == "oom"


def test_what_is_written_with_each_report_reads_back_equal(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    write_report(run, out=tmp_path / "elsewhere.md")
    assert not (run / "summary.parquet").exists(), "a report for elsewhere leaves the run as it is"
    write_report(run)
    frame = archbench.summary(run)
    pd.testing.assert_frame_equal(pd.read_parquet(run / "summary.parquet"), frame)
    table = pq.read_table(run / "summary.parquet")
    assert table.column_names == [one.name for one in summary_columns()] == list(frame)
    assert table.schema.field("latency_s").metadata[b"unit"] == b"s"
    assert table["latency_s"].to_pylist()[:3] == frame["latency_s"].tolist()[:3]
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    pd.testing.assert_frame_equal(pd.read_csv(run / "summary.csv", dtype=kinds), frame)
    with (run / "summary.csv").open(newline="") as file:
        written = [line["latency_s"] for line in csv.DictReader(file)]
    assert written[3] == "", "null, and never 0"
    assert list(map(float, written[:3])) == frame["latency_s"].tolist()[:3], "to the last bit"
    assert not list(run.glob(".summary*"))
    assert archbench.load(run)["cell_id"].nunique() == 4, "the run is still one that reads back"
