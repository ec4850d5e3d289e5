"""When a compilation is repaid: closed forms, never, and what is missing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from builders import make_record, make_run

import archbench
from archbench.choose.cell_summary import cell_summaries
from archbench.choose.summary import summarise
from archbench.choose.toggles import NEVER, BreakEven, alike, break_evens
from archbench.model.record import Record


def cell(rate: float | None, **fields: Any) -> Record:
    ends = {"throughput_ci_low_img_s": None, "throughput_ci_high_img_s": None}
    return make_record(**{"cell_id": str(fields), "throughput_img_s": rate, **ends, **fields})


def of(root: Path, *rows: Record) -> list[BreakEven]:
    return break_evens(alike(cell_summaries(summarise(archbench.load(make_run(root, rows))))))


def test_seconds_over_the_time_saved_for_an_image(tmp_path: Path) -> None:
    compiled = cell(200.0, compile_mode="default", compile_cold_s=30.0, compile_warm_s=2.0)
    (found,) = of(tmp_path, cell(100.0), compiled)
    assert found.gain.ratio == pytest.approx(2.0)
    assert found.cold is not None
    assert found.warm is not None
    assert found.cold.value == pytest.approx(30 / (1 / 100 - 1 / 200))  # 6,000 images
    assert found.warm.value == pytest.approx(400)
    assert (found.cold.low, found.cold.high) == (None, None)


def test_its_interval_comes_from_both_rates(tmp_path: Path) -> None:
    eager = cell(100.0, throughput_ci_low_img_s=100 / 1.04, throughput_ci_high_img_s=100 * 1.04)
    compiled = cell(
        200.0,
        compile_mode="default",
        compile_cold_s=30.0,
        throughput_ci_low_img_s=200 / 1.06,
        throughput_ci_high_img_s=200 * 1.06,
    )
    (found,) = of(tmp_path, eager, compiled)
    assert found.cold is not None
    # Half of what lies between the ends of 10 and of 5 ms, of the 5 ms saved.
    half = math.hypot(0.010 * (1.04 - 1 / 1.04) / 2, 0.005 * (1.06 - 1 / 1.06) / 2)
    assert found.cold.low == pytest.approx(30 / (0.005 + half))
    assert found.cold.high == pytest.approx(30 / (0.005 - half))
    assert found.warm is None


def test_never_where_compiled_is_not_faster_and_perhaps_never_where_it_may_not_be(tmp_path: Path) -> None:
    (slower,) = of(tmp_path / "a", cell(100.0), cell(90.0, compile_mode="default", compile_cold_s=30.0))
    assert slower.cold is not None
    assert slower.cold.value == NEVER
    wide = {"throughput_ci_low_img_s": 90.0, "throughput_ci_high_img_s": 115.0}
    (unsure,) = of(
        tmp_path / "b", cell(100.0, **wide), cell(102.0, compile_mode="default", compile_cold_s=30.0, **wide)
    )
    assert unsure.cold is not None
    assert unsure.cold.value == pytest.approx(30 / (1 / 100 - 1 / 102))
    assert unsure.cold.high == NEVER
    assert unsure.cold.low is not None
    assert unsure.cold.low < unsure.cold.value


def test_only_the_same_other_toggles_are_its_eager_counterpart(tmp_path: Path) -> None:
    amp = {"precision": "amp-bf16", "memory_format": "channels_last"}
    rows = [
        cell(100.0),
        cell(200.0, **amp),
        cell(400.0, **amp, compile_mode="default", compile_cold_s=10.0),
        cell(500.0, **amp, compile_mode="reduce-overhead", compile_cold_s=10.0),
        cell(400.0, precision="amp-bf16", compile_mode="default", compile_cold_s=10.0),
        cell(400.0, batch_size=8, compile_mode="default", compile_cold_s=10.0),
    ]
    found = of(tmp_path, *rows)
    assert [(one.eager.precision, one.compiled.compile_mode) for one in found] == [
        ("amp-bf16", "default"),
        ("amp-bf16", "reduce-overhead"),
    ]
    assert found[0].cold is not None
    assert found[0].cold.value == pytest.approx(10 / (1 / 200 - 1 / 400))


def test_without_a_rate_or_a_compile_time_there_is_none(tmp_path: Path) -> None:
    assert of(tmp_path / "a", cell(None), cell(200.0, compile_mode="default", compile_cold_s=1.0)) == []
    (found,) = of(tmp_path / "b", cell(100.0), cell(200.0, compile_mode="default"))
    assert (found.cold, found.warm) == (None, None)
