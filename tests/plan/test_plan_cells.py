"""From a suite to cells: products, settings, sections, exclusions, and what cannot run."""

from __future__ import annotations

import time

import pytest

from archbench.model.axes import DeviceKind
from archbench.model.cell import Cell, Network, without_threads
from archbench.model.errors import UsageError
from archbench.model.suite import Axes, Filter, Section, Setting, Suite
from archbench.suite.cells import MAX_CELLS
from archbench.suite.plan import make_plan

NETWORKS = (Network(name="resnet18"), Network(name="densenet121"))


def suite(**fields: object) -> Suite:
    return Suite(**({"suite": "s", "architectures": NETWORKS} | fields))  # type: ignore[arg-type]


def ids(one: Suite, device: DeviceKind = "cpu") -> set[str]:
    plan = make_plan(one, device)
    return {cell.cell_id for cell in plan.cells} | {skip.cell.cell_id for skip in plan.skipped}


def test_defaults() -> None:
    cells = make_plan(suite(), "cpu").cells
    assert sorted(cells, key=lambda cell: cell.cell_id) == [
        Cell(network=Network(name="densenet121"), batch_size=1),
        Cell(network=Network(name="resnet18"), batch_size=1),
    ]


def test_axes_are_crossed() -> None:
    axes = Axes(
        batch_size=(1, 8),
        phase=("inference", "training"),
        precision=("fp32", "amp-bf16", "bf16"),
        compile_mode=("off", "default"),
        memory_format=("contiguous", "channels_last"),
    )
    assert len(ids(suite(axes=axes))) == 2 * 2 * 2 * 3 * 2 * 2


def test_settings_are_bundles_in_place_of_a_product() -> None:
    settings = {
        "fp32": Setting(),
        "fast": Setting(precision="amp-bf16", memory_format="channels_last", only=Filter(batch_size=(8,))),
    }
    cells = make_plan(suite(settings=settings, axes=Axes(batch_size=(1, 8))), "cuda").cells
    assert {(cell.setting, cell.batch_size, cell.precision, cell.memory_format) for cell in cells} == {
        ("fp32", 1, "fp32", "contiguous"),
        ("fp32", 8, "fp32", "contiguous"),
        ("fast", 8, "amp-bf16", "channels_last"),
    }


def test_sections_are_united_and_a_cell_of_two_belongs_to_the_first() -> None:
    settings = {"a": Setting(), "b": Setting(only=Filter(batch_size=(1, 4)))}
    one = suite(
        settings=settings,
        axes=Axes(batch_size=(2,)),
        devices={"cpu": (Section(batch_size=(1, 4), settings=("b",)), Section(batch_size=(4, 8), settings=("a",)))},
    )
    cells = make_plan(one, "cpu", only=["resnet18"]).cells
    assert {(cell.batch_size, cell.setting) for cell in cells} == {(1, "b"), (4, "b"), (8, "a")}
    assert {cell.batch_size for cell in make_plan(one, "cuda", only=["resnet18"]).cells} == {2}


def test_a_section_takes_from_the_suite_what_it_does_not_say() -> None:
    one = suite(
        axes=Axes(batch_size=(2,), phase=("training",)),
        settings={"a": Setting(), "b": Setting(precision="bf16")},
        devices={"cpu": (Section(architectures=("dense*",)),), "cuda": (Section(precision=("tf32",)),)},
    )
    on_cpu = make_plan(one, "cpu").cells
    assert {(c.network.name, c.batch_size, c.phase, c.setting) for c in on_cpu} == {
        ("densenet121", 2, "training", "a"),
        ("densenet121", 2, "training", "b"),
    }
    # Toggles that a section crosses itself go before the suite's settings.
    assert {(c.precision, c.setting) for c in make_plan(one, "cuda").cells} == {("tf32", None)}


def test_families_select_networks() -> None:
    one = suite(devices={"cpu": (Section(family=("densenet",)),)}, axes=Axes(batch_size=(1, 2)))
    assert {cell.network.name for cell in make_plan(one, "cpu").cells} == {"densenet121"}
    one = suite(exclude=(Filter(family=("densenet",)),))
    assert {cell.network.name for cell in make_plan(one, "cpu").cells} == {"resnet18"}


def test_an_exclusion_needs_every_field_to_match() -> None:
    axes = Axes(batch_size=(1, 8), phase=("inference", "training"))
    one = suite(axes=axes, exclude=(Filter(phase=("training",), batch_size=(1,)), Filter(architecture=("dense*",))))
    cells = make_plan(one, "cpu").cells
    assert {(c.network.name, c.phase, c.batch_size) for c in cells} == {
        ("resnet18", "inference", 1),
        ("resnet18", "inference", 8),
        ("resnet18", "training", 8),
    }


def test_sizes_have_one_name_each() -> None:
    networks = (Network(name="resnet18"), Network(name="inception_v3"), Network(name="vit_b_16", input_size=384))
    one = suite(architectures=networks, axes=Axes(input_size=(224, 299)))
    assert {cell.network.label for cell in make_plan(one, "cpu").cells} == {
        "resnet18",  # 224 is its own
        "resnet18[input_size=299]",
        "inception_v3[input_size=224]",
        "inception_v3",
        "vit_b_16[input_size=384]",  # said at the network: goes before the axis
    }
    one = suite(architectures=networks, axes=Axes(input_size=(224, 299)), exclude=(Filter(input_size=(224,)),))
    assert {cell.network.label for cell in make_plan(one, "cpu").cells} == {
        "resnet18[input_size=299]",
        "inception_v3",
        "vit_b_16[input_size=384]",
    }


def test_what_cannot_be_what_it_says_is_skipped_with_the_reason() -> None:
    axes = Axes(
        precision=("fp32", "tf32", "amp-bf16", "amp-fp16", "bf16", "fp16"),
        compile_mode=("off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    )
    one = suite(architectures=NETWORKS[:1], axes=axes)
    plan = make_plan(one, "cpu")
    assert {cell.precision for cell in plan.cells} == {"fp32", "amp-bf16", "amp-fp16", "bf16", "fp16"}
    assert {cell.compile_mode for cell in plan.cells} == {"off", "default", "max-autotune-no-cudagraphs"}
    assert len(plan.cells) == 5 * 3
    assert len(plan.skipped) == 30 - 15
    assert {skip.reason.split(";")[0] for skip in plan.skipped} == {
        "TF32 is a number format of NVIDIA GPUs",
        "reduce-overhead means CUDA graphs",
        "max-autotune includes CUDA graphs",
    }
    assert make_plan(one, "cuda").skipped == ()


def test_threads_name_a_cell_only_where_they_are_given() -> None:
    (plain,) = make_plan(suite(architectures=NETWORKS[:1]), "cpu").cells
    assert plain.cell_id == (
        "resnet18@batch_size=1,phase=inference,precision=fp32,compile_mode=off,memory_format=contiguous,device=cpu"
    )
    one = suite(architectures=NETWORKS[:1], axes=Axes(batch_size=(1, 2), threads=(1, 2)))
    plan = make_plan(one, "cpu")
    assert {(cell.batch_size, cell.threads) for cell in plan.cells} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert {without_threads(cell.cell_id) for cell in plan.cells if cell.batch_size == 1} == {plain.cell_id}
    assert all({cell.threads for cell in group.cells} in ({1}, {2}) for group in plan.rounds[0])
    assert len(make_plan(one, "cpu", only=["@threads=2"]).cells) == 2
    assert {skip.reason.split(";")[0] for skip in make_plan(one, "cuda").skipped} == {"threads are those of the CPU"}


def test_vectors_have_no_size() -> None:
    plan = make_plan(suite(architectures=(Network(name="mlp_probe"),), axes=Axes(input_size=(224,))), "cpu")
    assert [skip.reason for skip in plan.skipped] == ["mlp_probe takes vectors, which have no input_size"]
    assert plan.cells == ()


def test_nothing_to_do_is_an_error() -> None:
    with pytest.raises(UsageError, match="has no cell for cpu; see its `devices:` and `exclude:`"):
        make_plan(suite(exclude=(Filter(architecture=("*",)),)), "cpu")
    for rounds in (0, -1, 101):
        with pytest.raises(UsageError, match=f"--rounds {rounds} is out of range; give 1 to 100"):
            make_plan(suite(), "cpu", rounds=rounds)


def test_a_product_gone_wild_is_refused_at_once() -> None:
    one = suite(axes=Axes(batch_size=tuple(range(1, MAX_CELLS + 1))))
    started = time.perf_counter()
    with pytest.raises(UsageError, match="asks for 400,000 cells in one section for cpu"):
        make_plan(one, "cpu")
    assert time.perf_counter() - started < 1.0


def test_ten_thousand_cells_plan_in_a_second() -> None:
    axes = Axes(batch_size=tuple(range(1, 85)), precision=("fp32", "bf16"), compile_mode=("off", "default"))
    networks = tuple(Network(name="resnet18", num_classes=count) for count in range(1, 31))
    one = suite(architectures=networks, axes=axes, exclude=(Filter(architecture=("dense*",)),))
    make_plan(suite(), "cpu")  # the catalogue's tables are read once, however large the suite
    started = time.process_time()
    plan = make_plan(one, "cpu")
    seconds = time.process_time() - started
    assert len(plan.cells) == 10_080
    assert seconds < 1.0
