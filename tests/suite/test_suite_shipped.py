"""The shipped suites: each can be planned everywhere, asks something, and together they cover the catalogue."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from archbench.catalog import entries, facts
from archbench.device.kind import kind_named
from archbench.model.suite import Suite
from archbench.session import expected
from archbench.suite import load_suite
from archbench.suite.duration import predict
from archbench.suite.plan import make_plan

SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.yaml"))

by_path = pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)


def test_the_suites_are_there() -> None:
    wanted = "smoke imagenet_backbones imagenet_all quick_decision compile_modes train_memory cifar_depth history "
    wanted += "keras_2017 inception_blocks resolution"
    assert set(wanted.split()) <= {path.stem for path in SUITES}


def test_together_they_name_every_network_of_the_catalogue() -> None:
    named = {network.name for path in SUITES for network in load_suite(path).architectures}
    assert set(entries()) - named == set()


@by_path
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_suite_can_be_planned(path: Path, device: str) -> None:
    suite = load_suite(path)
    plan = make_plan(suite, device)  # type: ignore[arg-type]
    # A shipped suite asks only for what its device can do, and every network of it is measured somewhere.
    assert plan.skipped == ()
    assert {cell.network.name for cell in plan.cells} <= {network.name for network in suite.architectures}
    if device == "cuda":
        assert {cell.network.name for cell in plan.cells} == {network.name for network in suite.architectures}


@by_path
def test_suite_has_its_file_s_name_a_question_and_a_cpu_section(path: Path) -> None:
    suite = load_suite(path)
    assert suite.suite == path.stem
    assert len(suite.description) > 40
    assert "cpu" in suite.devices


@by_path
def test_a_stored_suite_is_the_same_suite(path: Path, tmp_path: Path) -> None:
    suite = load_suite(path)
    (tmp_path / "s.yaml").write_bytes(msgspec.json.encode(suite))
    assert load_suite(tmp_path / "s.yaml") == suite
    assert msgspec.json.decode(msgspec.json.encode(suite), type=Suite) == suite


@by_path
def test_folklore_can_be_judged(path: Path) -> None:
    """What the usual advice names is measured by the suite, and has the accuracy that the decision asks for."""
    suite = load_suite(path)
    names = {network.name: network for network in suite.architectures}
    for decision in suite.decisions:
        assert decision.usual_choice
        assert set(decision.usual_choice) <= set(names), decision.situation


def test_the_main_suite_has_the_points_that_it_promises() -> None:
    suite = load_suite(next(path for path in SUITES if path.stem == "imagenet_backbones"))
    assert len(suite.architectures) == 32
    assert len(suite.decisions) >= 11
    cuda = make_plan(suite, "cuda").cells
    assert len(cuda) == 379
    assert {cell.batch_size for cell in cuda} == {1, 8, 32, 128, 256}
    everything = {network.name for network in suite.architectures}
    for setting in ("fp32", "tf32", "amp", "amp-nhwc", "compiled"):  # the ladder, where the decisions are judged
        at_256 = {c.network.name for c in cuda if (c.setting, c.phase, c.batch_size) == (setting, "inference", 256)}
        assert at_256 == everything, setting
    # Rankings take each network's fastest mode: at one batch all of those that are ranked have it, or none.
    for batch in (1, 8, 32, 128, 256):
        ranked = {c.network.name for c in cuda if (c.phase, c.batch_size) == ("inference", batch)}
        for mode in ("default", "reduce-overhead"):
            cells = [c for c in cuda if (c.phase, c.batch_size, c.compile_mode) == ("inference", batch, mode)]
            assert {c.network.name for c in cells} in (set(), ranked), (batch, mode)
    assert {"fp32", "tf32", "amp", "amp-nhwc", "compiled", "graphs"} <= {cell.setting for cell in cuda}
    assert {network.name for network in suite.architectures} == {c.network.name for c in cuda if c.phase == "training"}

    cpu = make_plan(suite, "cpu").cells
    plain = {(c.network.name, c.batch_size) for c in cpu if (c.setting, c.phase) == ("fp32", "inference")}
    assert plain == {(network.name, batch) for network in suite.architectures for batch in (1, 4)}
    for part in (
        {c.network.name for c in cpu if c.precision == "amp-bf16"},
        {c.network.name for c in cpu if c.memory_format == "channels_last"},
        {c.network.name for c in cpu if c.compile_mode != "off"},
        {c.network.name for c in cpu if c.phase == "training"},
    ):
        assert len(part) >= 3
    assert {"resnet50", "densenet121", "efficientnet_b0"} <= {c.network.name for c in cpu if c.phase == "training"}


def test_bounds_on_accuracy_leave_a_choice() -> None:
    """At least three networks of the suite reach what a decision asks for, by the accuracy that is published."""
    suite = load_suite(next(path for path in SUITES if path.stem == "imagenet_backbones"))
    top1 = [facts(network).top1 or 0.0 for network in suite.architectures]
    for decision in suite.decisions:
        assert sum(accuracy >= decision.at_least.get("top1", 0.0) for accuracy in top1) >= 3, decision.situation


MINUTES = {  # on two cores of a CPU, and on one H100; by constants, so the same everywhere
    "cifar_depth": (3, 14),
    "claims": (2, 2),
    "compile_modes": (1, 48),
    "gpu_reference": (0, 2),
    "history": (3, 2),
    "imagenet_all": (9, 20),
    "imagenet_backbones": (13, 27),
    "inception_blocks": (2, 1),
    "keras_2017": (1, 2),
    "quick_decision": (2, 5),
    "resolution": (2, 6),
    "runtimes": (13, 8),
    "smoke": (1, 4),
    "teaching_blocks": (1, 2),
    "train_memory": (3, 4),
}
"""What each shipped suite is expected to take: whoever makes one longer has to say so here."""


@by_path
def test_the_expected_minutes_of_each_suite(path: Path) -> None:
    suite = load_suite(path)
    two_cores = predict(make_plan(suite, "cpu"), suite, kind_named("cpu").rates(2))
    one_h100 = expected(make_plan(suite, "cuda"), suite, None)
    assert tuple(round(one.total / 60) for one in (two_cores, one_h100)) == MINUTES[path.stem]


def test_the_main_suite_takes_at_most_30_minutes_on_one_h100() -> None:
    suite = load_suite(next(path for path in SUITES if path.stem == "imagenet_backbones"))
    plan = make_plan(suite, "cuda")
    prediction = expected(plan, suite, None)
    assert len(prediction.visits) == len(plan.cells) + 4  # the twin's two, twice more
    assert prediction.total <= 30 * 60
