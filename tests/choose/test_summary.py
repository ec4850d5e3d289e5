"""A cell's processes together: medians, moderated intervals between processes, worst cases."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import GAIN, make_environment, make_record, make_rows, make_run, make_suite
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import archbench
from archbench.choose.summary import Spread, half_intervals, spreads_of, summarise
from archbench.model.derived import ADDED, DERIVED
from archbench.model.record import Record, columns
from archbench.stats.variance import Pool


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
    for name in ("latency_median_s", "throughput_img_s", "params"):
        assert cell[name] == pytest.approx(getattr(row, name))
    # Its own interval, in the middle of which the figure is put: the ± of a ratio has to be one number.
    assert row.latency_ci_low_s is not None
    assert row.latency_ci_high_s is not None
    assert cell["rank_latency_s"] / cell["rank_latency_low_s"] == pytest.approx(
        math.sqrt(row.latency_ci_high_s / row.latency_ci_low_s)
    )
    assert cell["rank_latency_s"] ** 2 == pytest.approx(cell["rank_latency_low_s"] * cell["rank_latency_high_s"])
    assert (cell["status"], cell["verdict"], cell["reasons"]) == ("ok", "ok", ())
    assert (cell["processes"], cell["processes_used"]) == (1, 1)


def test_alone_a_cell_has_students_interval_on_logs(tmp_path: Path) -> None:
    times = [0.010, 0.011, 0.0105]
    cell = one_cell(
        tmp_path,
        *({"latency_median_s": t, "latency_ci_low_s": t * 0.999, "latency_ci_high_s": t * 1.001} for t in times),
    )
    # t(0.975, 2), and the variance of a median of three; the figure is in the middle.
    half = 4.302653 * np.log(times).std(ddof=1) * math.sqrt(math.pi / 2 / (2 + math.pi / 2))
    assert cell["latency_median_s"] == pytest.approx(0.0105)
    assert cell["latency_ci_low_s"] == pytest.approx(0.0105 * math.exp(-half), rel=1e-5)
    assert cell["latency_ci_high_s"] == pytest.approx(0.0105 * math.exp(half), rel=1e-5)


def test_agreeing_processes_are_no_surer_than_their_own_intervals(tmp_path: Path) -> None:
    own = {"latency_median_s": 0.01, "latency_ci_low_s": 0.0098, "latency_ci_high_s": 0.0102}
    cell = one_cell(tmp_path, own, own, own, own)
    share = math.sqrt(math.pi / 2 / (3 + math.pi / 2))  # of the variance of one, that of a median of four
    assert cell["latency_ci_high_s"] / cell["latency_median_s"] == pytest.approx(1.02**share, rel=1e-3)


def test_an_interval_is_moderated_and_no_narrower_than_the_processes_own() -> None:
    pool = Pool(variance=4e-4, freedom=12.0, prior=6.0)
    count = np.array([2, 1, 0, 2])
    half = half_intervals(count, np.array([1e-4, 0.0, 0.0, 1e-4]), np.array([0.0, 0.0, 0.0, 0.5]), pool)
    moderated = (6 * 4e-4 + 1e-4) / 7
    assert half[0] == pytest.approx(stats.t.ppf(0.975, 7) * math.sqrt(moderated / 2))
    assert half[1] == pytest.approx(stats.t.ppf(0.975, 6) * 0.02)
    assert math.isnan(half[2])
    assert half[3] == pytest.approx(0.5 / math.sqrt(2))
    alone = half_intervals(np.array([1, 1]), np.zeros(2), np.array([0.01, 0.0]), None)
    assert alone[0] == 0.01
    assert math.isnan(alone[1])


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1e6), st.floats(0, 1e3)), min_size=1, max_size=9),
    st.floats(0, 1e6), st.floats(1, 1e6), st.floats(1e-2, 1e6),
)  # fmt: skip
def test_no_interval_leaves_the_positive_numbers(
    cells: list[tuple[int, float, float]], variance: float, freedom: float, prior: float
) -> None:
    count, variances, own = (np.array(column) for column in zip(*cells, strict=True))
    half = half_intervals(count, variances, own, Pool(variance=variance, freedom=freedom, prior=prior))
    assert (np.isnan(half) == (count == 0) & (own == 0)).all()
    for figure in (1e-12, 1e12):
        low, high = figure * np.exp(-half[count > 0]), figure * np.exp(half[count > 0])
        assert ((low > 0) & (low <= high) & np.isfinite(high) & np.isfinite(1 / low)).all()


def test_cells_that_share_a_process_count_once(tmp_path: Path) -> None:
    rows = [
        make_record(round=number, cell_id=f"{name}@batch_size={batch},{rest}", latency_median_s=0.01 * wide**number)
        for name, rest, wide in (("a", "precision=fp32,x", 1.01), ("a", "precision=amp-bf16,x", 1.02), ("b", "x", 1.03))
        for batch in (1, 8)
        for number in range(3)
    ]
    (spread,) = spreads_of(archbench.load(make_run(tmp_path, [*rows, make_record(cell_id="once")]))).values()
    assert spread.latency is not None
    assert spread.groups == 2
    assert spread.latency.freedom == 4


def test_only_rows_fit_to_be_compared_tell_how_processes_differ(tmp_path: Path) -> None:
    unfit = [
        make_record(round=1, latency_median_s=9.0, verdict="invalid"),
        make_record(cell_id="other", verdict="invalid"),
        make_record(cell_id="other", round=1, status="oom"),
    ]
    (spread,) = spreads_of(archbench.load(make_run(tmp_path / "some", [make_record(), *unfit]))).values()
    assert spread == Spread()
    (spread,) = spreads_of(archbench.load(make_run(tmp_path / "none", unfit))).values()
    assert spread == Spread()


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
    (spread,) = spreads_of(archbench.load(tmp_path / "example" / "20250102T030405Z-0123abcd")).values()
    assert spread.latency is not None
    assert math.sqrt(spread.latency.variance) == pytest.approx(0.01, rel=0.1)
    # Five networks, two phases, four settings of which training cannot be compiled under one; batches and eager
    # precisions share their processes: 5 x (3 + 2).
    assert spread.groups == 25
