"""A cell's processes together: medians, intervals between processes, worst cases, and the run's noise floor."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import GAIN, make_environment, make_record, make_rows, make_run, make_suite

import archbench
from archbench.choose.summary import noise_floor, process_interval, summarise
from archbench.model.derived import ADDED, DERIVED
from archbench.model.record import Record, columns


def summary_of(root: Path, *rows: Record) -> pd.DataFrame:
    return summarise(archbench.load(make_run(root, rows)))


def one_cell(root: Path, *rows: dict[str, Any]) -> pd.Series:
    summary = summary_of(root, *(make_record(round=number, **row) for number, row in enumerate(rows)))
    assert len(summary) == 1
    return summary.iloc[0]


def test_columns_are_the_rows_and_the_added_ones(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, make_record())
    assert set(summary) == set(columns()) - {"round", "visit"} | set(DERIVED) | set(ADDED)


def test_a_single_process_keeps_its_own_figures(tmp_path: Path) -> None:
    cell = one_cell(tmp_path, {})
    row = make_record()
    for name in ("latency_median_s", "latency_ci_low_s", "latency_ci_high_s", "throughput_ci_high_img_s", "params"):
        assert cell[name] == pytest.approx(getattr(row, name))
    assert cell["rank_latency_low_s"] == pytest.approx(row.latency_ci_low_s)
    assert (cell["status"], cell["verdict"], cell["reasons"]) == ("ok", "ok", ())
    assert (cell["processes"], cell["processes_used"]) == (1, 1)


def test_three_processes_give_students_interval_on_logs(tmp_path: Path) -> None:
    times = [0.010, 0.011, 0.0105]
    cell = one_cell(
        tmp_path,
        *({"latency_median_s": t, "latency_ci_low_s": t * 0.999, "latency_ci_high_s": t * 1.001} for t in times),
    )
    logs = np.log(times)
    half = 4.302653 * logs.std(ddof=1) / math.sqrt(3)  # t(0.975, 2)
    assert cell["latency_median_s"] == pytest.approx(0.0105)
    assert cell["latency_ci_low_s"] == pytest.approx(math.exp(logs.mean() - half), rel=1e-6)
    assert cell["latency_ci_high_s"] == pytest.approx(math.exp(logs.mean() + half), rel=1e-6)


def test_agreeing_processes_are_no_surer_than_their_own_intervals(tmp_path: Path) -> None:
    own = {"latency_median_s": 0.01, "latency_ci_low_s": 0.0098, "latency_ci_high_s": 0.0102}
    cell = one_cell(tmp_path, own, own, own, own)
    assert cell["latency_ci_high_s"] / cell["latency_median_s"] == pytest.approx(1.02 ** (1 / 2), rel=1e-3)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    groups, processes = 4000, 3
    value = rng.normal(0, 0.05, groups * processes)
    group = np.repeat(np.arange(groups), processes)
    nothing = np.full(value.size, np.nan)
    middle = np.median(value.reshape(groups, processes), axis=1)
    low, high = process_interval(value, nothing, nothing, group, middle)
    assert (low <= np.exp(middle)).all()
    assert (high >= np.exp(middle)).all()
    assert 0.94 < np.mean((low < 1) & (high > 1)) < 0.965


def test_interval_leaves_out_processes_without_a_figure() -> None:
    value = np.array([np.nan, 0.0, np.nan, -np.inf])
    below, above = np.array([np.nan, -0.1, np.nan, np.nan]), np.array([np.nan, 0.2, np.nan, np.nan])
    low, high = process_interval(value, below, above, np.array([0, 0, 1, 1]), np.array([0.0, np.nan]))
    np.testing.assert_allclose(low, [math.exp(-0.1), np.nan])
    np.testing.assert_allclose(high, [math.exp(0.2), np.nan])


def test_one_slow_process_does_not_move_the_figure(tmp_path: Path) -> None:
    cell = one_cell(tmp_path, {"latency_median_s": 0.01}, {"latency_median_s": 0.01}, {"latency_median_s": 0.1})
    assert cell["latency_median_s"] == 0.01
    assert cell["latency_ci_high_s"] > 0.1


def test_memory_is_the_largest_and_host_bound_holds_if_any(tmp_path: Path) -> None:
    cell = one_cell(
        tmp_path,
        {"peak_allocated_bytes": 5, "host_bound": None, "output_finite": True},
        {"peak_allocated_bytes": 7, "host_bound": True, "output_finite": False},
        {"peak_allocated_bytes": None, "host_bound": False, "output_finite": True},
    )
    assert cell["peak_allocated_bytes"] == 7
    assert cell["host_bound"] is np.True_ or cell["host_bound"] is True
    assert not cell["output_finite"]


def test_an_invalid_process_is_left_out_and_leaves_a_mark(tmp_path: Path) -> None:
    cell = one_cell(
        tmp_path,
        {"latency_median_s": 0.01},
        {"latency_median_s": 0.09, "verdict": "invalid", "reasons": ("throttled",)},
        {"latency_median_s": 0.01, "reasons": ("host_bound",)},
    )
    assert cell["latency_median_s"] == pytest.approx(0.01)
    assert cell["verdict"] == "suspect"
    assert cell["reasons"] == ("throttled", "host_bound")
    assert (cell["processes"], cell["processes_used"]) == (3, 2)


def test_only_invalid_processes_make_an_invalid_cell(tmp_path: Path) -> None:
    cell = one_cell(tmp_path, {"verdict": "invalid", "latency_median_s": 0.03}, {"status": "timeout"})
    assert (cell["verdict"], cell["status"], cell["latency_median_s"]) == ("invalid", "ok", 0.03)


def test_a_failed_process_beside_measured_ones_makes_it_suspect(tmp_path: Path) -> None:
    failure = {"status": "crashed", "error_phase": "latency", "error_message": "signal 11"}
    cell = one_cell(tmp_path, {}, failure, {})
    assert (cell["status"], cell["verdict"]) == ("ok", "suspect")
    assert (cell["error_phase"], cell["error_message"]) == ("latency", "signal 11")
    assert (cell["processes"], cell["processes_used"]) == (3, 2)


def test_a_failed_cell_has_its_worst_status_and_only_what_needs_no_measuring(tmp_path: Path) -> None:
    cell = one_cell(
        tmp_path,
        {"status": "oom", "latency_median_s": 0.5, "error_message": "out of memory"},
        {"status": "crashed", "params": 7, "error_message": "signal 9"},
    )
    assert (cell["status"], cell["error_message"], cell["params"]) == ("crashed", "out of memory", 7)
    assert cell["top1"] == 80.858
    assert cell[["verdict", "latency_median_s", "rank_latency_s", "rank_latency_low_s"]].isna().all()


def test_cells_are_ranked_by_corrected_figures_on_the_cpu_alone(tmp_path: Path) -> None:
    rows = [
        make_record(round=number, latency_median_s=0.02 * speed, throughput_img_s=50 / speed, canary_s=0.001 * speed)
        for number, speed in enumerate([0.95, 1.0, 1.08])
    ]
    cpu = summary_of(tmp_path / "cpu", *rows).iloc[0]
    assert cpu["drift_corrected"]
    assert cpu["rank_latency_s"] == pytest.approx(0.02)
    assert cpu["rank_throughput_img_s"] == pytest.approx(50)
    assert cpu["rank_latency_high_s"] / 0.02 < 1.02 < cpu["latency_ci_high_s"] / 0.02

    gpu = summarise(archbench.load(make_run(tmp_path / "gpu", rows)).assign(device="cuda")).iloc[0]
    assert not gpu["drift_corrected"]
    assert gpu["rank_latency_high_s"] == gpu["latency_ci_high_s"]

    rows[1] = make_record(round=1, canary_s=None)
    partly = summary_of(tmp_path / "partly", *rows).iloc[0]
    assert not partly["drift_corrected"]
    assert partly["rank_latency_s"] == partly["latency_median_s"]


def test_cells_and_runs_stay_apart_whatever_the_frames_index(tmp_path: Path) -> None:
    first = archbench.load(make_run(tmp_path / "a", [make_record(), make_record(cell_id="other")]))
    second = archbench.load(make_run(tmp_path / "b", [make_record(run_id="later")]))
    summary = summarise(pd.concat([first, second]))
    assert list(summary["run_id"]) == ["20250102T030405Z-0123abcd"] * 2 + ["later"]
    assert list(summary["processes"]) == [1, 1, 1]


def test_the_twins_spread_is_the_noise_floor(tmp_path: Path) -> None:
    times = {0: (0.0100, 0.0102, 0.0101), 1: (0.0200, 0.0200, 0.0200)}  # rounds differ, visits hardly
    rows = [
        make_record(round=number, visit=visit, latency_median_s=time, canary_s=None)
        for number, visits in times.items()
        for visit, time in enumerate(visits)
    ]
    floor = noise_floor(archbench.load(make_run(tmp_path, [*rows, make_record(cell_id="other")])))
    assert floor is not None
    # Steps of 1 %: a variance of 1e-4 in one round and 0 in the other; t of four degrees of freedom is 2.776.
    assert floor.spread == pytest.approx(2.776 * math.sqrt(2 * 0.5e-4), rel=0.03)
    assert (floor.variant, floor.visits, floor.drift_corrected) == ("resnet50", 6, False)
    assert noise_floor(archbench.load(make_run(tmp_path / "none", [make_record(), make_record(round=1)]))) is None


def test_a_whole_run_comes_out_as_it_was_made(tmp_path: Path) -> None:
    suite = make_suite(rounds=5)
    rows = list(make_rows(suite, make_environment(), noise=0.01, drift=0.05))
    summary = summarise(archbench.load(make_run(tmp_path, rows, suite=suite)))
    assert len(summary) == 5 * 2 * 4 * 2
    counts = summary["status"].value_counts().to_dict()
    assert counts == {"ok": 67, "unsupported": 10, "oom": 3}
    fast = summary[summary["phase"] == "inference"].set_index(["variant", "batch_size", "setting"])["rank_latency_s"]
    for setting, gain in GAIN.items():
        ratio = fast.xs("fp32", level="setting") / fast.xs(setting, level="setting")
        np.testing.assert_allclose(ratio, gain, rtol=0.05)
    floor = noise_floor(archbench.load(tmp_path / "example" / "20250102T030405Z-0123abcd"))
    assert floor is not None
    assert 0.02 < floor.spread < 0.045  # 95 % of |differences| of two processes with an sd of 1 %: 2.8 %
