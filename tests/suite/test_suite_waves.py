"""Which groups compile side by side, and which do not."""

from __future__ import annotations

from typing import Any

from builders import make_environment

from archbench.model.cell import Cell, Group, Network
from archbench.suite.plan import Room, arranged


def group(name: str = "resnet18", **cell: Any) -> Group:
    return Group(cells=(Cell(network=Network(name=name), **{"batch_size": 1, "compile_mode": "default", **cell}),))


def numbers(
    groups: list[Group],
    *,
    kind: Any = "cpu",
    cores: int = 2,
    memory_gib: int = 64,
    metrics: tuple[Any, ...] = ("latency",),
):
    room = Room(kind=kind, cores=cores, memory_bytes=memory_gib << 30)
    return [(number, groups.index(one)) for number, one in arranged(groups, room, metrics)]


def test_the_room_is_the_machines():
    environment = make_environment(cpu_count=3, memory_bytes=5 << 30)
    assert Room.of(environment) == Room(kind="cpu", cores=3, memory_bytes=5 << 30)


def test_compiled_groups_are_drawn_together_up_to_the_cores_and_eager_ones_keep_their_order():
    eager = {"compile_mode": "off"}
    groups = [
        group("alexnet", **eager),
        group("resnet18"),
        group("vgg11", **eager),
        group("resnet34"),
        group("resnet50"),
    ]
    # Those that compile longest come first, each wave of such as take about as long.
    assert numbers(groups) == [(0, 0), (1, 4), (1, 3), (0, 1), (0, 2)]
    assert numbers(groups, cores=16) == [(0, 0), (1, 4), (1, 3), (1, 1), (0, 2)]


def test_eager_processes_start_together_where_that_takes_seconds_and_keep_their_order():
    eager = {"compile_mode": "off", "device": "cuda"}
    groups = [
        *(group(name, **eager) for name in ("alexnet", "vgg11", "resnet34")),
        group("resnet50", device="cuda"),
        group("resnet18", **eager),
    ]
    assert numbers(groups, kind="cuda", cores=16) == [(1, 0), (1, 1), (1, 2), (0, 3), (0, 4)]
    assert numbers(groups, kind="cuda", cores=2) == [(1, 0), (1, 1), (0, 2), (0, 3), (0, 4)]
    # Two of the three contexts and networks fit, beside one step.
    assert numbers(groups[:3], kind="cuda", cores=16, memory_gib=3) == [(1, 0), (1, 1), (0, 2)]


def test_who_times_kernels_or_goes_through_another_runtime_is_alone():
    groups = [
        group("resnet18", compile_mode="max-autotune"),
        group("resnet34", compile_mode="max-autotune-no-cudagraphs"),
        group("resnet50", compile_mode="off", runtime="onnxruntime"),
        group("resnet101"),
    ]
    assert [number for number, _ in numbers(groups, cores=8)] == [0, 0, 0, 0]


def test_where_compile_is_asked_for_the_first_of_each_network_and_phase_is_undisturbed():
    groups = [
        group("resnet18"),
        group("resnet34"),
        group("resnet18", precision="amp-bf16"),
        group("resnet34", precision="amp-bf16"),
        group("resnet18", phase="training"),
    ]
    asked = ("latency", "compile")
    assert numbers(groups, metrics=asked, cores=8) == [(0, 0), (0, 1), (1, 3), (1, 2), (0, 4)]


def test_a_wave_is_no_larger_than_memory():
    groups = [group(name, phase="training", batch_size=64) for name in ("vgg16", "vgg19", "vgg13", "vgg11")]
    # Each keeps 3.4 GB of activations and 1.6 of weights, gradients and momentum.
    assert [number for number, _ in numbers(groups, cores=8, memory_gib=4)] == [0, 0, 0, 0]
