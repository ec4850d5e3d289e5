"""The decision matrix: verdicts on the usual advice, each from figures that leave no doubt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import make_suite
from decision_cells import candidates_of, row
from reference_runs import reference_runs

from archbench.choose.candidates import read_candidates
from archbench.choose.matrix import IN_PART_WITHIN, Row, decision_matrix
from archbench.model.cell import Network
from archbench.model.record import Record
from archbench.model.suite import Decision
from archbench.suite import load_suite

ROOT = Path(__file__).parents[2]

NAMES = ("resnet50", "resnet101", "vgg16", "alexnet", "densenet121")


def judge(root: Path, *rows: Record, **decision: Any) -> Row:
    goal = {} if decision.keys() & {"minimize", "maximize"} else {"minimize": "latency_median"}
    asked = Decision(**{"situation": "X", "usual_choice": ("resnet50",), **goal, **decision})
    suite = make_suite(architectures=tuple(Network(name=name) for name in NAMES), decisions=(asked,))
    (found,) = decision_matrix(suite, candidates_of(root, *rows, suite=suite))
    return found


def verdict(found: Row) -> tuple[str, str]:
    return found.standing.holds, found.standing.reason


def test_the_advised_network_comes_first(tmp_path: Path) -> None:
    found = judge(tmp_path, row("resnet50", 0.01), row("vgg16", 0.02))
    assert verdict(found) == ("holds", "first")
    assert (found.recommended.network, found.runner_up.network) == ("resnet50", "vgg16")
    assert found.runner_up.behind.ratio == pytest.approx(2.0)
    assert found.loading == "model = torchvision.models.get_model('resnet50', weights='IMAGENET1K_V1')"


def test_a_tie_with_the_first_holds(tmp_path: Path) -> None:
    found = judge(tmp_path, row("resnet50", 0.0101), row("vgg16", 0.0100))
    assert verdict(found) == ("holds", "tie")


def test_behind_by_a_quarter_holds_in_part_and_by_more_not(tmp_path: Path) -> None:
    near = judge(tmp_path / "a", row("resnet50", 0.01 * IN_PART_WITHIN * 0.99), row("vgg16", 0.01))
    far = judge(tmp_path / "b", row("resnet50", 0.01 * IN_PART_WITHIN * 1.01), row("vgg16", 0.01))
    assert verdict(near) == ("holds in part", "close")
    assert verdict(far) == ("does not hold", "behind")


def test_another_advised_network_that_falls_short_makes_it_hold_in_part(tmp_path: Path) -> None:
    found = judge(
        tmp_path,
        row("resnet50", 0.01),
        row("resnet101", 0.02, top1=70.0),
        row("vgg16", 0.03),
        at_least={"top1": 75},
        usual_choice=("resnet50", "resnet101"),
    )
    assert verdict(found) == ("holds in part", "some fail")
    assert [(one.name, one.choice is None) for one in found.usual] == [("resnet50", False), ("resnet101", True)]
    assert [one.network for one in found.beside] == ["resnet50", "vgg16", "resnet101"]


def test_none_that_satisfies_the_bounds_does_not_hold(tmp_path: Path) -> None:
    found = judge(tmp_path, row("resnet50", 0.01, top1=70.0), row("vgg16", 0.02), at_least={"top1": 75})
    assert verdict(found) == ("does not hold", "none satisfies")


def test_nothing_measured_cannot_be_judged_and_says_what_to_run(tmp_path: Path) -> None:
    found = judge(
        tmp_path,
        row("resnet50", 0.01),  # at inference, and the question is about training
        row("vgg16", 0.02, phase="training", batch_size=8),
        row("alexnet", 0.03, phase="training", batch_size=8),
        where=("phase == training",),
    )
    assert verdict(found) == ("cannot be judged", "none measured")
    assert found.recommended.network == "vgg16"
    assert found.evidence == "archbench run resnet50 --phase training --batch-size 8"
    assert [one.network for one in found.beside] == ["vgg16", "alexnet"]


def test_alone_it_cannot_be_judged(tmp_path: Path) -> None:
    assert verdict(judge(tmp_path, row("resnet50", 0.01))) == ("cannot be judged", "no rival")


def test_what_no_measurement_tells_is_shown_without_verdict_and_without_recommendation(tmp_path: Path) -> None:
    found = judge(tmp_path, row("resnet50", 0.01), row("vgg16", 0.02), not_measurable="needs the data")
    assert verdict(found) == ("cannot be judged", "not measurable")
    assert (found.recommended, found.runner_up) == (None, None)
    assert len(found.beside) == 2
    assert "resnet50" in found.loading


def test_no_row_at_all_has_no_recommendation(tmp_path: Path) -> None:
    found = judge(tmp_path, row("resnet50"), row("vgg16"), where=("phase == training",))
    assert (found.recommended, found.loading, found.batch_size) == (None, None, None)
    assert verdict(found) == ("cannot be judged", "none measured")


def test_judged_at_the_largest_batch_that_all_candidates_have(tmp_path: Path) -> None:
    found = judge(
        tmp_path,
        *(row("resnet50", 0.01 * size, batch_size=size) for size in (1, 8, 32)),
        *(row("vgg16", 0.005 * size, batch_size=size) for size in (1, 8)),
    )
    assert found.batch_size == 8
    assert found.recommended.network == "vgg16"
    assert [(one.batch_size, one.network) for one in found.other_batches] == [(1, "vgg16"), (32, "resnet50")]


def test_the_setting_is_free_precision_included_with_a_footnote(tmp_path: Path) -> None:
    found = judge(tmp_path, row("resnet50", 0.02), row("resnet50", 0.01, precision="amp-bf16"), row("vgg16", 0.015))
    assert (found.recommended.network, found.recommended.precision) == ("resnet50", "amp-bf16")
    assert [note.column for note in found.ranking.footnotes] == ["precision", "setting"]
    assert found.ranking.footnotes[1].text.startswith("vgg16 was not measured under amp-bf16, as resnet50 was")
    fixed = judge(
        tmp_path / "fixed",
        row("resnet50", 0.02),
        row("resnet50", 0.01, precision="amp-bf16"),
        row("vgg16", 0.015),
        where=("precision == fp32",),
    )
    assert fixed.recommended.network == "vgg16"


def test_bounds_relative_to_the_baseline(tmp_path: Path) -> None:
    rows = [row("resnet50", 0.010, top1=76.0), row("resnet101", 0.0104, top1=78.0), row("vgg16", 0.02, top1=79.0)]
    found = judge(
        tmp_path,
        *rows,
        maximize="top1",
        baseline="resnet50",
        at_most_of_baseline={"latency_median": 1.05},
        usual_choice=("resnet101",),
    )
    assert verdict(found) == ("holds", "first")
    assert found.baseline.network == "resnet50"
    assert {one.network: one.misses[0].bound for one in found.ranking.left_out} == pytest.approx({"vgg16": 0.0105})


def test_the_baselines_bound_on_time_is_no_tighter_than_the_noise(tmp_path: Path) -> None:
    twin = [row("alexnet", time, visit=visit, top1=50.0) for visit, time in enumerate((0.010, 0.012))]
    rows = [row("resnet50", 0.010, top1=76.0), row("resnet101", 0.0115, top1=78.0), *twin]
    found = judge(
        tmp_path,
        *rows,
        maximize="top1",
        baseline="resnet50",
        at_most_of_baseline={"latency_median": 1.05},
        usual_choice=("resnet101",),
    )
    assert found.recommended.network == "resnet101"


def test_the_baseline_stands_beside_with_its_figures_though_it_falls_short(tmp_path: Path) -> None:
    found = judge(
        tmp_path,
        row("resnet50", 0.01, top1=76.0),
        row("resnet101", 0.02, top1=78.0),
        row("vgg16", 0.03, top1=77.0),
        at_least={"top1": 77},
        baseline="resnet50",
        usual_choice=("resnet101",),
    )
    assert found.baseline.estimate("top1").value == 76.0
    assert [one.network for one in found.beside] == ["resnet101", "vgg16", "resnet50"]


def test_the_baseline_is_held_against_the_others_at_their_batch(tmp_path: Path) -> None:
    found = judge(
        tmp_path,
        row("resnet50", 0.001, top1=70.0),
        row("resnet50", 0.030, top1=70.0, batch_size=8),
        row("resnet101", 0.040, top1=78.0, batch_size=8),
        row("resnet101", 0.050, top1=78.0, batch_size=8, device="cuda"),
        baseline="resnet50",
        at_least={"top1": 75},
    )
    assert found.ranking.circumstances, "two devices are ranked apart"
    assert found.baseline.batch_size == found.batch_size == 8


def test_bounds_may_have_units(tmp_path: Path) -> None:
    found = judge(tmp_path, row("resnet50", 0.02), row("vgg16", 0.01), at_most={"latency_median": "15 ms"})
    assert verdict(found) == ("does not hold", "none satisfies")
    assert found.conditions[0].value == pytest.approx(0.015)


def test_every_setting_of_what_satisfies_the_conditions(tmp_path: Path) -> None:
    found = judge(
        tmp_path,
        row("resnet50", 0.02),
        row("resnet50", 0.01, compile_mode="default"),
        row("vgg16", 0.03),
        row("vgg16", 0.30, batch_size=8),
        every_setting=True,
    )
    assert [(one.network, one.compile_mode) for one in found.every_setting] == [
        ("resnet50", "default"),
        ("resnet50", "off"),
        ("vgg16", "off"),
    ]


def test_of_several_variants_the_best_stands_for_the_advice(tmp_path: Path) -> None:
    lean = {"options": {"memory_efficient": True}}
    found = judge(
        tmp_path,
        row("densenet121", 0.03),
        row("densenet121", 0.01, network=lean),
        row("vgg16", 0.02),
        usual_choice=("densenet121",),
    )
    assert verdict(found) == ("holds", "first")
    assert found.loading.endswith("weights='IMAGENET1K_V1')")


def test_the_reference_run_judges_the_shipped_decisions() -> None:
    """Every row of the main suite has an answer from the run that is committed, and at least six a verdict."""
    suite = load_suite(ROOT / "suites" / "imagenet_backbones.yaml")
    newest = reference_runs("imagenet_backbones")[-1]
    rows = {row.decision.situation: row for row in decision_matrix(suite, read_candidates([newest]))}
    judged = [row for row in rows.values() if row.standing.holds != "cannot be judged"]
    assert len(judged) >= 6
    assert all(row.loading for row in rows.values())
    start = rows["Where to start"]
    assert {one.architecture for one in start.every_setting} == {"resnet50", "densenet121", "efficientnet_b0"}
    assert {one.architecture for one in start.beside} == {"resnet50", "densenet121", "efficientnet_b0"}
    transfer = rows["ImageNet-based transfer learning"]
    assert transfer in judged
    for one in transfer.beside:
        assert one.estimate("feature_width").value in (1024.0, 1280.0, 2048.0)
        assert one.estimate("throughput_img_s").value is not None
    medical = rows["Small data, medical imaging"]
    assert medical.standing.reason == "not measurable"
