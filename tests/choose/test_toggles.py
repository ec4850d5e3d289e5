"""What toggles contribute: exact gains of made rows come back, ladders and products are told apart."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from builders import GAIN, SETTINGS, make_environment, make_record, make_rows, make_run, make_suite

import archbench
from archbench.choose.cell_summary import CellSummary, cell_summaries
from archbench.choose.summary import summarise
from archbench.choose.toggles import Best, Gain, Measure, alike, best_setting, costs, gain, steps
from archbench.model.record import Record

LADDER = tuple(SETTINGS)


def outcomes_of(root: Path, *rows: Record) -> tuple[CellSummary, ...]:
    return cell_summaries(summarise(archbench.load(make_run(root, rows))))


def bests(cells: tuple[CellSummary, ...], measure: Measure = "latency") -> list[Best]:
    return [best for group in alike(cells) if (best := best_setting(group, measure))]


def row(setting: str, **fields: Any) -> Record:
    bundle = SETTINGS[setting]
    toggles = {name: getattr(bundle, name) for name in ("precision", "memory_format", "compile_mode")}
    return make_record(**{"cell_id": f"{setting}{fields}", "setting": setting, **toggles, **fields})


def timed(step: float, spread: float = 1.01) -> dict[str, Any]:
    return {"latency_median_s": step, "latency_ci_low_s": step / spread, "latency_ci_high_s": step * spread}


def test_every_toggle_of_a_made_run_contributes_what_it_was_given(tmp_path: Path) -> None:
    rows = list(make_rows(noise=0.0, drift=0.0))
    found = steps(alike(outcomes_of(tmp_path, *rows)), LADDER)
    expected = {
        "amp": ("amp-bf16", "fp32", GAIN["amp"]),
        "amp-nhwc": ("channels_last", "amp", GAIN["amp-nhwc"] / GAIN["amp"]),
        "compiled": ("compile=default", "amp-nhwc", GAIN["compiled"] / GAIN["amp-nhwc"]),
    }
    # 5 networks, 2 batches, 2 phases; vgg16 has no batch 8 in training, and nothing compiles there.
    assert len(found) == 3 * 10 + 2 * 9
    for step in found:
        toggle, before, ratio = expected[step.after.setting_label]
        assert (step.toggle, step.before.setting_label) == (toggle, before)
        assert step.gain.ratio == pytest.approx(ratio)
        assert step.alone == (before == "fp32")
        assert (step.before.variant, step.before.batch_size) == (step.after.variant, step.after.batch_size)


def test_noise_between_processes_stays_within_the_interval(tmp_path: Path) -> None:
    found = steps(alike(outcomes_of(tmp_path, *make_rows(noise=0.01))), LADDER)
    within = [step.gain.low <= GAIN["amp"] <= step.gain.high for step in found if step.alone]  # type: ignore[operator]
    assert sum(within) >= 0.9 * len(within)


def test_on_a_ladder_a_toggle_that_replaces_another_is_held_against_it(tmp_path: Path) -> None:
    cells = outcomes_of(
        tmp_path,
        make_record(cell_id="a", setting="fp32", **timed(0.012)),
        make_record(cell_id="b", setting="tf32", precision="tf32", **timed(0.010)),
        make_record(cell_id="c", setting="amp", precision="amp-bf16", **timed(0.005)),
    )
    found = {
        (one.toggle, one.before.setting_label): one.gain.ratio for one in steps(alike(cells), ["fp32", "tf32", "amp"])
    }
    assert found == {
        ("tf32", "fp32"): pytest.approx(1.2),
        ("amp-bf16", "fp32"): pytest.approx(2.4),
        ("amp-bf16", "tf32"): pytest.approx(2.0),
    }
    assert ("amp-bf16", "tf32") not in {(one.toggle, one.before.setting_label) for one in steps(alike(cells))}


def test_in_a_full_product_each_toggle_stands_alone_and_on_top_of_the_other(tmp_path: Path) -> None:
    times: dict[tuple[str, str], float] = {
        ("fp32", "contiguous"): 8,
        ("fp32", "channels_last"): 4,
        ("amp-bf16", "contiguous"): 2,
    }
    times["amp-bf16", "channels_last"] = 0.5
    cells = outcomes_of(
        tmp_path,
        *(
            make_record(cell_id=f"{pair}", setting=None, precision=pair[0], memory_format=pair[1], **timed(step))
            for pair, step in times.items()
        ),
    )
    found = {(one.toggle, one.before.setting_label): one.gain.ratio for one in steps(alike(cells))}
    assert found == {
        ("channels_last", "fp32"): pytest.approx(2),
        ("amp-bf16", "fp32"): pytest.approx(4),
        ("amp-bf16", "fp32, channels_last"): pytest.approx(8),
        ("channels_last", "amp-bf16"): pytest.approx(4),
    }


def test_what_is_not_alike_or_not_fit_is_not_compared(tmp_path: Path) -> None:
    cells = outcomes_of(
        tmp_path,
        row("fp32", **timed(0.02)),
        row("amp", batch_size=8, **timed(0.01)),
        row("amp", variant="other", **timed(0.01)),
        row("amp", input_size=320, **timed(0.01)),
        row("amp", phase="training", **timed(0.01)),
        row("amp-nhwc", verdict="invalid", **timed(0.01)),
        row("compiled", status="oom"),
    )
    assert steps(alike(cells), LADDER) == []
    assert bests(cells) == []


def test_the_best_setting_is_named_with_those_it_cannot_be_told_from(tmp_path: Path) -> None:
    cells = outcomes_of(
        tmp_path,
        row("fp32", **timed(0.020, 1.001)),
        row("amp", **timed(0.0101, 1.001)),
        row("amp-nhwc", **timed(0.0100, 1.001)),
        row("compiled", **timed(0.0099, 1.03)),
    )
    (best,) = bests(cells)
    assert best.cell.setting_label == "compiled"
    assert best.gain is not None
    assert best.gain.ratio == pytest.approx(0.020 / 0.0099)
    # Told from neither: its own interval is wide.
    assert [one.setting_label for one in best.tied] == ["amp-nhwc", "amp"]


def test_throughput_has_a_best_of_its_own(tmp_path: Path) -> None:
    def rate(value: float) -> dict[str, Any]:
        ends = {"throughput_ci_low_img_s": value * 0.99, "throughput_ci_high_img_s": value * 1.01}
        return {"throughput_img_s": value, **ends}

    cells = outcomes_of(tmp_path, row("fp32", **timed(0.01), **rate(100)), row("amp", **timed(0.02), **rate(250)))
    (fastest,), (most) = bests(cells), bests(cells, "throughput")
    assert fastest.cell.setting_label == "fp32"
    assert fastest.gain is None
    ((setting, ratio),) = ((one.cell.setting_label, one.gain.ratio) for one in most if one.gain)
    assert setting == "amp"
    assert ratio == pytest.approx(2.5)


def test_gains_are_ratios_of_times_with_intervals_of_independent_logs() -> None:
    def cell(**fields: Any) -> CellSummary:
        return CellSummary(**{**dict.fromkeys(CellSummary.__struct_fields__), **fields})

    base = cell(rank_latency_s=0.02, rank_latency_low_s=0.02 / 1.03, rank_latency_high_s=0.02 * 1.03)
    head = cell(rank_latency_s=0.01, rank_latency_low_s=0.01 / 1.04, rank_latency_high_s=0.01 * 1.04)
    found = gain(base, head)
    assert found is not None
    half = math.hypot(math.log(1.03), math.log(1.04))
    assert found.ratio == pytest.approx(2.0)
    assert found.low == pytest.approx(2 * math.exp(-half))
    assert found.high == pytest.approx(2 * math.exp(half))
    bare = gain(base, cell(rank_latency_s=0.01))
    assert bare is not None
    assert (bare.low, bare.high) == (None, None)
    assert gain(base, cell()) is None


def test_a_gain_is_told_from_one_only_beyond_its_interval() -> None:
    assert Gain(ratio=1.2, low=1.1, high=1.3).told
    assert Gain(ratio=0.8, low=0.75, high=0.85).told
    assert not Gain(ratio=1.2, low=0.9, high=1.5).told
    assert not Gain(ratio=1.2).told


def test_gains_beyond_any_float_stay_numbers() -> None:
    found = gain(cell("fp32", 1e300, 1e300, 1e300), cell("bf16", 1e-300, 1e-300, 1e-300))
    assert found is not None
    assert math.isfinite(found.ratio)


def test_numerics_stand_beside_the_gain(tmp_path: Path) -> None:
    cells = outcomes_of(
        tmp_path,
        row("fp32", **timed(0.02)),
        row("amp", **timed(0.01), output_rel_error=0.01, output_cosine=0.999, output_finite=True),
        row("compiled", verdict="invalid", output_finite=False),
    )
    found = {one.cell.setting_label: one for one in costs(alike(cells))}
    assert set(found) == {"amp", "compiled"}
    assert found["amp"].gain is not None
    assert found["amp"].gain.ratio == pytest.approx(2.0)
    assert found["compiled"].gain is None


def test_a_run_on_a_gpu(tmp_path: Path) -> None:
    suite, gpu = make_suite(), make_environment("cuda:0")
    run = archbench.load(make_run(tmp_path, list(make_rows(suite, gpu)), suite=suite, environment=gpu))
    found = bests(cell_summaries(summarise(run)))
    compiled = [one for one in found if one.cell.phase == "inference" and one.cell.setting_label == "compiled"]
    assert len(compiled) > 5
    # Where the fastest is suspect and cannot be told from the best that is `ok`, it is tied with that one.
    for one in found:
        if one.cell.phase == "inference" and one not in compiled:
            assert ("compiled", "suspect") in [(other.setting_label, other.verdict) for other in one.tied]


def cell(setting: str, time: float, low: float, high: float, verdict: str = "ok") -> CellSummary:
    """A cell of resnet50 under a precision or mode of compilation, with its interval in seconds."""
    blank: dict[str, Any] = dict.fromkeys(CellSummary.__struct_fields__)
    toggles = {
        "precision": "fp32",
        "memory_format": "contiguous",
        "compile_mode": "off",
        "runtime": "torch",
        "quantize": "off",
    }
    toggles |= {"compile_mode": setting} if setting == "default" else {"precision": setting}
    figures = {"rank_latency_s": time, "rank_latency_low_s": low, "rank_latency_high_s": high}
    known = {"variant": "resnet50", "phase": "inference", "batch_size": 1, "status": "ok", "verdict": verdict}
    return CellSummary(**{**blank, **toggles, **figures, **known})


@pytest.mark.parametrize(
    ("suspect", "best"),
    [
        ((0.039, 0.038, 0.270), "fp32"),  # the reference run's resnet50: no evidence at all
        ((0.039, 0.032, 0.047), "fp32"),  # cannot be told from 40.2 ms
        ((0.020, 0.019, 0.021), "default"),
    ],
)
def test_a_suspect_setting_is_best_only_where_it_is_told_from_the_others(
    suspect: tuple[float, float, float], best: str
) -> None:
    cells = (
        cell("fp32", 0.0402, 0.0396, 0.0408),
        cell("bf16", 0.06, 0.059, 0.061),
        cell("default", *suspect, "suspect"),
    )
    (found,) = bests(cells)
    assert best in (found.cell.precision, found.cell.compile_mode)
    assert (best == "fp32") == found.cell.is_plain


def test_an_interval_wider_than_twofold_is_no_evidence_of_a_gain() -> None:
    plain = cell("fp32", 0.04, 0.039, 0.041)
    assert gain(plain, cell("bf16", 0.02, 0.0101, 0.02)) is not None
    assert gain(plain, cell("bf16", 0.02, 0.0099, 0.02)) is None
    assert steps(alike([plain, cell("bf16", 0.02, 0.01, 0.0201)])) == []
