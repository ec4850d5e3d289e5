"""`archbench.load`: types, drift taken out, and rows that only the whole run can judge."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import make_record, make_run, make_suite
from msgspec import structs

import archbench
from archbench.model.derived import DERIVED
from archbench.model.errors import UsageError
from archbench.model.record import columns
from archbench.results import RunStore
from archbench.results.journal import RECORDS


def test_columns_and_types(tmp_path: Path) -> None:
    frame = archbench.load(make_run(tmp_path, [make_record(), make_record(round=1, status="oom")]))
    assert list(frame) == [*columns(), *DERIVED]
    kinds = {"whole": "Int64", "real": "float64", "flag": "boolean", "texts": "object"}
    for name, column in {**columns(), **DERIVED}.items():
        if column.kind != "text":
            assert str(frame[name].dtype) == kinds[column.kind], name
    assert frame.loc[1, ["verdict", "latency_median_s", "params", "host_bound"]].isna().all()
    assert list(frame["reasons"]) == [(), ()]
    assert list(frame["status"] == "oom") == [False, True]


def test_dividing_by_the_canary_takes_the_drift_out(tmp_path: Path) -> None:
    speeds = [0.95, 1.0, 1.0, 1.08, 1.0]
    rows = [
        make_record(round=number, latency_median_s=0.02 * speed, throughput_img_s=50 / speed, canary_s=0.003 * speed)
        for number, speed in enumerate(speeds)
    ]
    frame = archbench.load(make_run(tmp_path, rows))
    np.testing.assert_allclose(frame["speed_index"], speeds)
    np.testing.assert_allclose(frame["latency_median_corrected_s"], 0.02)
    np.testing.assert_allclose(frame["throughput_corrected_img_s"], 50)
    np.testing.assert_allclose(frame["latency_median_s"], np.multiply(speeds, 0.02))


def test_rates_are_corrected_by_the_canary_beside_their_own_bursts(tmp_path: Path) -> None:
    """The machine changed its speed between latency and throughput."""
    rows = [
        make_record(
            round=number,
            latency_median_s=0.02 * first,
            throughput_img_s=50 / then,
            canary_s=0.003 * first,
            throughput_canary_s=0.003 * then,
        )
        for number, (first, then) in enumerate([(1.0, 1.0), (1.0, 1.3), (0.9, 1.0), (1.05, 0.8), (1.0, 1.0)])
    ]
    run = make_run(tmp_path, rows)
    frame = archbench.load(run)
    np.testing.assert_allclose(frame["latency_median_corrected_s"], 0.02)
    np.testing.assert_allclose(frame["throughput_corrected_img_s"], 50)
    summary = archbench.summary(run)
    assert float(summary["latency_s"].iloc[0]) == pytest.approx(0.02)
    assert float(summary["throughput_img_s"].iloc[0]) == pytest.approx(50)


def test_a_canary_of_the_first_protocol_is_taken_for_none(tmp_path: Path) -> None:
    """It read 1.10 ms after itself and 1.70 after vgg16: raw times are the better ones, and the row says so."""
    old = [
        make_record(round=number, protocol_version=1, canary_s=canary, latency_median_s=0.02)
        for number, canary in enumerate([1.1e-3, 1.7e-3, 1.1e-3])
    ]
    run = make_run(tmp_path / "old", old)
    frame = archbench.load(run)
    assert frame[["canary_s", *DERIVED]].isna().all(axis=None)
    assert list(frame["verdict"]) == ["ok"] * 3
    assert set(frame["reasons"]) == {("old_canary",)}
    assert float(archbench.summary(run)["latency_s"].iloc[0]) == 0.02
    held = [*old, structs.replace(old[0], round=3, canary_s=20e-3)]  # no network makes that of it
    rows = archbench.load(make_run(tmp_path / "held", held))
    assert list(rows["verdict"]) == ["ok"] * 3 + ["invalid"]
    assert rows["reasons"].iloc[3] == ("old_canary", "disturbed")
    gpu = [structs.replace(row, device="cuda") for row in old]  # there it was read ten times, behind a backlog
    assert archbench.load(make_run(tmp_path / "gpu", gpu))["speed_index"].notna().all()
    new = [structs.replace(row, protocol_version=2) for row in old]
    assert archbench.load(make_run(tmp_path / "new", new))["speed_index"].notna().all()


def test_without_a_canary_nothing_is_corrected(tmp_path: Path) -> None:
    frame = archbench.load(make_run(tmp_path, [make_record(canary_s=None)]))
    assert frame[list(DERIVED)].isna().all(axis=None)
    assert list(frame["verdict"]) == ["ok"]


def test_a_row_off_the_runs_usual_speed_is_suspect(tmp_path: Path) -> None:
    canaries = [0.001, 0.001, 0.001, 0.00111, 0.00089, 0.00109, 0.0008, 0.0012]  # median 0.001
    verdicts = ["ok", "ok", "ok", "ok", "ok", "ok", "invalid", "suspect"]
    reasons = [(), (), (), (), (), (), ("throttled",), ("drift",)]
    rows = [
        make_record(round=number, canary_s=canary, verdict=verdict, reasons=codes)
        for number, (canary, verdict, codes) in enumerate(zip(canaries, verdicts, reasons, strict=True))
    ]
    frame = archbench.load(make_run(tmp_path, rows))
    assert list(frame["verdict"]) == ["ok", "ok", "ok", "suspect", "suspect", "ok", "invalid", "suspect"]
    assert list(frame["reasons"]) == [(), (), (), ("drift",), ("drift",), (), ("throttled", "drift"), ("drift",)]


def test_a_row_too_far_off_to_be_corrected_is_invalid(tmp_path: Path) -> None:
    canaries = [0.001, 0.001, 0.001, 0.00199, 0.00201, 0.0004]
    rows = [make_record(round=number, canary_s=canary) for number, canary in enumerate(canaries)]
    run = make_run(tmp_path, rows)
    frame = archbench.load(run)
    assert list(frame["verdict"]) == ["ok", "ok", "ok", "suspect", "invalid", "invalid"]
    assert list(frame["reasons"])[3:] == [("drift",), ("disturbed",), ("disturbed",)]
    again = RunStore.open(run).finished() - RunStore.open(run).finished(retry_failed=True)
    assert again == {(rows[0].cell_id, 4, 0), (rows[0].cell_id, 5, 0)}


def test_a_power_cap_that_the_clock_tells_of_is_no_drift(tmp_path: Path) -> None:
    capped = ("power_capped",)
    known = [  # canary in us, SM clock in MHz, what the monitor said
        *[(1000, 1980, ())] * 5,
        (1250, 1584, capped),  # 80 % of the clock, 125 % of the time
        (1250, 1980, capped),  # slow at the full clock: something else
        (1250, 1584, ()),  # a lower clock that no power cap explains
        (1250, None, capped),
    ]
    rows = [
        make_record(round=n, canary_s=us * 1e-6, sm_clock_mhz=clock, reasons=reasons)
        for n, (us, clock, reasons) in enumerate(known)
    ]
    frame = archbench.load(make_run(tmp_path / "one", rows))
    assert list(frame["verdict"][5:]) == ["ok", "suspect", "suspect", "suspect"]
    assert frame["reasons"][5] == capped
    # Most rows capped, so that the reference is: the fast one is as fast as its clock.
    rows = [make_record(round=n, canary_s=1.25e-3, sm_clock_mhz=1584, reasons=capped) for n in range(3)]
    rows += [make_record(round=n, canary_s=1e-3, sm_clock_mhz=clock) for n, clock in ((3, 1980), (4, 1584))]
    assert list(archbench.load(make_run(tmp_path / "two", rows))["verdict"][3:]) == ["ok", "suspect"]


def test_rows_and_frame_judge_alike(tmp_path: Path) -> None:
    canaries = [0.001, 0.001, 0.001, 0.00115, 0.00201, None, 0.0004]
    rows = [make_record(round=number, canary_s=canary) for number, canary in enumerate(canaries)]
    run = make_run(tmp_path, [*rows, make_record(round=7, status="oom", verdict=None)])
    frame, records = archbench.load(run), RunStore.open(run).judged_records()
    assert [(one.verdict, one.reasons) for one in records] == [
        (verdict if isinstance(verdict, str) else None, reasons)
        for verdict, reasons in zip(frame["verdict"], frame["reasons"], strict=True)
    ]
    assert [one.verdict for one in records][3:] == ["suspect", "invalid", "ok", "invalid", None]


def test_the_suites_own_drift_limit_counts(tmp_path: Path) -> None:
    rows = [make_record(round=number, canary_s=canary) for number, canary in enumerate([0.001, 0.001, 0.00106])]
    run = make_run(tmp_path, rows, suite=make_suite(protocol={"drift_limit": 0.05}))
    assert list(archbench.load(run)["verdict"]) == ["ok", "ok", "suspect"]
    assert list(archbench.load(run / "results.parquet")["verdict"]) == ["ok", "ok", "suspect"]
    (run / "results.parquet").rename(tmp_path / "alone.parquet")
    assert list(archbench.load(tmp_path / "alone.parquet")["verdict"]) == ["ok", "ok", "ok"]


def test_running_killed_and_finished_runs_read_alike(tmp_path: Path) -> None:
    rows = [make_record(round=number) for number in range(4)]
    run = make_run(tmp_path, rows[:2], merge=False)
    store = RunStore.open(run)
    running = archbench.load(run)
    store.merge()
    pd.testing.assert_frame_equal(archbench.load(str(run)), running)
    store.append(rows[2])
    assert list(archbench.load(run)["round"]) == [0, 1, 2]
    assert list(archbench.load(run / "results.parquet")["round"]) == [0, 1]


def test_an_empty_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no finished cell yet"):
        archbench.load(make_run(tmp_path, [], merge=False))


def hundred_thousand_rows(path: Path) -> None:
    rows = [
        make_record(cell_id=f"net{number % 400}@batch_size={number // 1200}", round=number % 3, canary_s=0.001)
        for number in range(100_000)
    ]
    plain = [msgspec.structs.asdict(row) for row in rows]
    pq.write_table(pa.Table.from_pylist(plain, schema=RECORDS), path, compression="zstd")


@pytest.mark.slow
def test_a_hundred_thousand_rows_load_in_a_second(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    hundred_thousand_rows(path)
    archbench.load(path)  # imports
    best = min(_timed(path) for _ in range(3))
    assert best < 1.0


def _timed(path: Path) -> float:
    start = time.perf_counter()
    assert len(archbench.load(path)) == 100_000
    return time.perf_counter() - start
