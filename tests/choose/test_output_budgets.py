"""Budgets on outputs: what breaks one loses with that reason; the reference, whose own error is nothing, does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from decision_cells import candidates_of, row

from archbench.choose.candidates import Candidates
from archbench.choose.cell_summary import cell_summaries
from archbench.choose.pick import Goal, Picked, Question, pick
from archbench.choose.toggles import alike, best_setting, break_evens, rank_flips, steps
from archbench.model.errors import UsageError
from archbench.query.parsing import parse

LATENCY = Goal(column="latency_median_s")
IS_REFERENCE = tuple(f"{column}:is_reference" for column in ("output_rel_error", "output_top1_agreement"))
LATER_BATCH = tuple(f"{column}:first_batch_only" for column in ("output_rel_error", "output_top1_agreement"))


def plain(name: str, latency: float, **columns: Any) -> Any:
    return row(name, latency, reasons=IS_REFERENCE, quantize="off", runtime="torch", **columns)


def int8(name: str, latency: float, error: float | None, **columns: Any) -> Any:
    return row(name, latency, output_rel_error=error, runtime="openvino", quantize="int8-static", **columns)


def ask(found: Candidates, *where: str, across: tuple[str, ...] = ("quantize",)) -> Picked:
    return pick(found, Question(conditions=tuple(map(parse, where)), goals=(LATENCY,), across=across))


def test_a_row_beyond_the_budget_loses_to_the_reference_and_is_told_why(tmp_path: Path) -> None:
    found = candidates_of(
        tmp_path,
        plain("resnet50", 0.020),
        int8("resnet50", 0.005, 0.30),
        int8("vgg16", 0.004, 0.30),
        plain("resnet18", 0.010),
        int8("resnet18", 0.003, 0.015),
    )
    (ranking,) = ask(found, "output_rel_error <= 2%").rankings
    assert [(one.network, one.quantize) for one in ranking.choices] == [
        ("resnet18", "int8-static"),
        ("resnet50", "off"),
    ]
    (setting,) = ranking.outside
    assert (setting.network, setting.setting) == ("resnet50", "fp32, openvino, int8-static"), "faster, and too far off"
    assert setting.misses[0].actual == (("output_rel_error", 0.30),)
    (loser,) = ranking.left_out
    assert loser.network == "vgg16"
    assert loser.misses[0].condition == "output_rel_error <= 0.02"
    assert loser.misses[0].actual == (("output_rel_error", 0.30),)


def test_formats_are_ranked_apart_unless_asked(tmp_path: Path) -> None:
    found = candidates_of(tmp_path, plain("resnet50", 0.020), int8("resnet18", 0.005, 0.01))
    assert len(ask(found, across=()).rankings) == 2, "published accuracies are those of fp32"
    assert len(ask(found).rankings) == 1


def test_a_larger_batch_is_judged_by_the_one_that_was(tmp_path: Path) -> None:
    found = candidates_of(
        tmp_path,
        int8("resnet50", 0.02, 0.30),
        int8("resnet50", 0.02, None, batch_size=8, reasons=LATER_BATCH),
        int8("resnet18", 0.02, 0.01),
        int8("resnet18", 0.02, None, batch_size=8, reasons=LATER_BATCH),
    )
    (ranking,) = ask(found, "output_rel_error <= 2%", "batch_size == 8").rankings
    assert [one.network for one in ranking.choices] == ["resnet18"]


def test_a_broken_output_is_never_recommended(tmp_path: Path) -> None:
    broken = row(
        "vgg16", 0.001, quantize="int8-static", verdict="invalid", reasons=("broken_output",), output_finite=False
    )
    half_broken = row(
        "resnet50", 0.001, runtime="openvino", verdict="invalid", reasons=("wrong_output",), output_rel_error=0.3
    )
    found = candidates_of(tmp_path, plain("resnet50", 0.02), half_broken, broken)
    picked = ask(found)
    assert [one.failure for ranking in picked.rankings for one in ranking.outside] == ["invalid: wrong_output"]
    assert [one.network for ranking in picked.rankings for one in ranking.choices] == ["resnet50"]
    assert [one.failure for ranking in picked.rankings for one in ranking.left_out] == ["invalid: broken_output"]


def test_a_drop_of_accuracy_is_written_in_points_and_may_be_a_gain(tmp_path: Path) -> None:
    found = candidates_of(
        tmp_path, int8("resnet50", 0.02, 0.01, top1_drop=0.4), int8("resnet18", 0.01, 0.01, top1_drop=0.6),
        int8("vgg16", 0.03, 0.01, top1_drop=-0.1),
    )  # fmt: skip
    (ranking,) = ask(found, "top1_drop <= 0.5").rankings
    assert [one.network for one in ranking.choices] == ["resnet50", "vgg16"]
    with pytest.raises(UsageError, match="percentage points"):
        parse("top1_drop <= 5ms")


def test_toggles_best_settings_flips_and_break_even_know_runtimes_and_formats(tmp_path: Path) -> None:
    def cells(name: str, eager: float, other: float) -> list[Any]:
        rate = {"throughput_img_s": 1 / eager}
        return [
            plain(name, eager, **rate, throughput_ci_low_img_s=0.99 / eager, throughput_ci_high_img_s=1.01 / eager),
            row(name, other, runtime="openvino", throughput_img_s=1 / other, compile_cold_s=3.0),
            row(name, other / 2, runtime="openvino", quantize="int8-static", throughput_img_s=2 / other),
        ]

    found = candidates_of(tmp_path, *cells("resnet50", 0.02, 0.01), *cells("mobilenet_v2", 0.01, 0.018))
    summaries = cell_summaries(found.frame)
    groups = alike(summaries)
    gains = {(one.before.variant, one.toggle): one.gain.ratio for one in steps(groups)}
    assert gains["resnet50", "openvino"] == pytest.approx(2)
    assert gains["resnet50", "int8-static"] == pytest.approx(2)
    best = {one.cell.variant: one.cell.toggles.label for group in groups if (one := best_setting(group))}
    assert best == {"resnet50": "fp32, openvino, int8-static", "mobilenet_v2": "fp32, openvino, int8-static"}
    (flips,) = rank_flips(summaries, [("fp32", "fp32, openvino")])
    assert (flips.flipped, flips.pairs) == (1, 1)
    images = {(one.compiled.variant, one.compiled.quantize): one.cold for one in break_evens(groups)}
    assert images["resnet50", "off"] is not None
    assert images["resnet50", "off"].value == pytest.approx(3.0 / 0.01)
    assert images["resnet50", "int8-static"] is None, "its conversion was not timed"
