"""A metric is one object: named by a suite, owner of its columns, asked or explained."""

from __future__ import annotations

from typing import get_args

from msgspec import structs
from test_measure_group import measure, rows

from archbench.measure.metrics import METRICS, Metric
from archbench.model import axes
from archbench.model.record import columns


def test_each_name_that_a_suite_may_use_is_one_object() -> None:
    assert sorted(metric.name for metric in METRICS) == sorted(get_args(axes.Metric))


def test_every_column_belongs_to_one_metric_or_to_every_row() -> None:
    owned = [column for metric in METRICS for column in metric.columns]
    assert len(owned) == len(set(owned)) > 25
    assert set(owned) == {name for name, column in columns().items() if column.metric is not None}


def test_what_is_not_asked_for_is_null_and_says_so() -> None:
    (row,) = rows(measure(metrics=("static",), compile_mode="off"))
    for metric in METRICS:
        for column in metric.columns if metric.name not in ("static", "memory") else ():
            assert structs.asdict(row)[column] is None
            assert f"{column}:not_requested" in row.reasons


def test_a_metric_beside_the_timings_costs_no_more_than_its_columns(monkeypatch) -> None:
    def fail(run) -> None:
        raise OSError("no such counter")

    broken = tuple(structs.replace(metric, fill=fail) if metric.name == "energy" else metric for metric in METRICS)
    monkeypatch.setattr("archbench.measure.cell_run.METRICS", broken)
    (row,) = rows(measure(metrics=("latency", "energy")))
    assert row.status == "ok"
    assert row.latency_median_s > 0
    assert "energy_j_per_img:phase_failed" in row.reasons


def test_a_metric_that_cannot_says_why_in_each_of_its_columns(monkeypatch) -> None:
    (row,) = rows(measure(metrics=("compile",)))
    compile_metric = next(metric for metric in METRICS if metric.name == "compile")
    assert isinstance(compile_metric, Metric)
    assert {f"{column}:not_compiled" for column in compile_metric.columns} <= set(row.reasons)
