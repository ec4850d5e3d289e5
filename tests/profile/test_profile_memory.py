"""The memory of a step, accounted for: against closed forms, against the real allocator, against the prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from archbench.analyze.memory import predict_cell
from archbench.catalog.build import build, input_shape
from archbench.measure.workload import Workload
from archbench.model.axes import CompileMode, Phase, Precision
from archbench.model.cell import Cell, Network
from archbench.model.errors import UnfitError
from archbench.model.profile import CATEGORIES, MemoryPoint, MemoryTimeline
from archbench.profiler import memory_timeline as timeline_of
from archbench.profiler.memory_timeline import MOST_POINTS, memory_timeline, write_snapshot
from archbench.profiler.rows import stage_of

CPU = torch.device("cpu")


def watch(
    module: nn.Module,
    shape: tuple[int, ...],
    batch: int = 4,
    phase: Phase = "training",
    compile_mode: CompileMode = "off",
) -> MemoryTimeline:
    cell = Cell(network=Network(name="lenet5"), batch_size=batch, phase=phase, compile_mode=compile_mode)
    workload = Workload(cell, module, shape, CPU, ring=1, seed=0)
    workload.step()
    return memory_timeline(workload, [name for name, _ in module.named_children()])


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(100, 300)
        self.second = nn.Linear(300, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def test_what_two_layers_keep_by_hand() -> None:
    """The image is input; the ReLU's result is kept by it and by the second layer; its operand by nobody."""
    found = watch(TwoLayers(), (100,), batch=4)
    kept = {(saved.made_by, saved.needed_by): saved.bytes for saved in found.saved_by_operator}
    assert kept[("relu", ("linear", "relu"))] == 4 * 300 * 4
    assert kept[("log_softmax", ("cross_entropy",))] == 4 * 10 * 4
    assert set(kept) <= {
        ("relu", ("linear", "relu")),
        ("log_softmax", ("cross_entropy",)),
        ("nll_loss_forward", ("cross_entropy",)),  # the number of labels averaged over
    }
    assert found.saved_bytes == sum(kept.values()) == 4 * (4 * 300 + 4 * 10 + 1)


def test_weights_momentum_gradients_and_inputs_by_hand() -> None:
    weights = 4 * (100 * 300 + 300 + 300 * 10 + 10)
    found = watch(TwoLayers(), (100,), batch=4)
    last = found.points[-1]
    assert last.section == "update"
    assert last.weights == last.optimizer == last.gradients == weights, "momentum and gradients are as large as weights"
    assert last.inputs == 4 * 100 * 4 + 4 * 8, "a batch and its labels"
    assert last.activations == 0, "the backward pass has let go of all of them"
    first = found.points[0]
    assert (first.section, first.module, first.gradients) == ("forward", "first", 0)


def test_categories_add_up_to_the_allocators_peak() -> None:
    found = watch(TwoLayers(), (100,), batch=64)
    assert found.peak.total == sum(getattr(found.peak, category) for category in CATEGORIES)
    assert found.peak.total == found.measured_peak_bytes
    assert sum(stage.peak_bytes for stage in found.stages) == found.peak.total - found.peak.workspace
    assert sum(stage.saved_bytes for stage in found.stages) == found.saved_bytes
    assert {stage.stage for stage in found.stages} == {"first", "second", ""}


def test_inference_keeps_nothing() -> None:
    found = watch(TwoLayers(), (100,), phase="inference")
    assert (found.saved_bytes, found.saved_by_operator) == (0, ())
    assert found.peak.optimizer == found.peak.gradients == found.peak.activations == 0
    assert {point.section for point in found.points} == {"forward"}


@pytest.mark.parametrize(
    ("name", "phase", "precision"),
    [
        ("lenet5", "training", "fp32"),
        ("lenet5", "inference", "amp-bf16"),
        ("resnet20_cifar", "inference", "fp32"),
        pytest.param("resnet20_cifar", "training", "fp32", marks=pytest.mark.slow),
        pytest.param("resnet18", "training", "fp32", marks=pytest.mark.slow),
        pytest.param("resnet18", "training", "amp-bf16", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", "training", "fp32", marks=pytest.mark.slow),
        pytest.param("torchvision:squeezenet1_1", "inference", "fp32", marks=pytest.mark.slow),
        pytest.param("densenetBC100_k12_cifar", "training", "fp32", marks=pytest.mark.slow),
    ],
)
def test_watched_unwatched_and_predicted_agree(name: str, phase: Phase, precision: Precision) -> None:
    network = Network(name=name)
    cell = Cell(network=network, batch_size=4, phase=phase, precision=precision)
    workload = Workload(cell, build(network), input_shape(network), CPU, ring=1, seed=0)
    workload.step()
    found = memory_timeline(workload, predicted_peak_bytes=predict_cell(cell).peak_bytes(4))
    assert found.peak.total == pytest.approx(found.measured_peak_bytes, rel=0.01)
    assert found.predicted_peak_bytes == pytest.approx(found.measured_peak_bytes, rel=0.10)
    assert len(found.points) <= MOST_POINTS


class Dense(nn.Module):
    """One dense layer: normalise, activate in place, convolve, and put the result beside what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 4, 3, padding=1, bias=False)
        self.head = nn.Linear(12 * 8 * 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        grown = self.conv(torch.relu_(self.norm(x)))
        return self.head(torch.cat([x, grown], 1).flatten(1))


def test_a_concatenation_and_a_norm_are_both_kept() -> None:
    found = watch(Dense(), (8, 8, 8), batch=2)
    kept = {saved.made_by: saved for saved in found.saved_by_operator if saved.bytes > 100}
    image = 2 * 8 * 8 * 8 * 4
    assert kept["batch_norm"].bytes == image, "the ReLU works in place on it"
    assert kept["batch_norm"].needed_by == ("conv", "relu")
    assert kept["cat"].bytes == image * 12 // 8
    assert kept["cat"].needed_by == ("linear",)
    assert "conv" not in kept, "copied into the concatenation and not needed afterwards"


def test_backward_operators_belong_to_the_module_whose_gradient_they_compute() -> None:
    points = [point for point in watch(Dense(), (8, 8, 8), batch=2).points if point.section == "backward"]
    modules = {point.operator: point.module for point in points}
    assert modules["conv_backward"] == "conv"
    assert modules["batch_norm_backward"] == "norm"


class Many(nn.Module):
    """Returns a dictionary of tuples, and calls one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(50, 50)
        self.inner = Pair()

    def forward(self, x: Tensor) -> dict[str, object]:
        x = torch.sigmoid(self.shared(torch.sigmoid(self.shared(x))))
        return {"out": self.inner(x), "again": [x.sum(1)]}


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x.exp()


def test_dictionaries_tuples_and_a_module_called_twice() -> None:
    found = watch(Many(), (50,), batch=8)
    one = 8 * 50 * 4
    sigmoids = [saved for saved in found.saved_by_operator if saved.made_by == "sigmoid"]
    assert sum(saved.bytes for saved in sigmoids) == 2 * one, "each call keeps its own"
    assert found.peak.weights == 4 * (50 * 50 + 50), "the shared layer's weight counts once"
    assert found.peak.total == found.measured_peak_bytes


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in range(4)))
        self.again = False

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.layers, x, use_reentrant=False) if self.again else self.layers(x)


def test_checkpointing_keeps_less_and_is_not_disturbed() -> None:
    plain, again = Checkpointed(), Checkpointed()
    again.again = True
    kept, recomputed = (watch(module, (64,), batch=32) for module in (plain, again))
    one = 32 * 64 * 4
    assert kept.saved_bytes - recomputed.saved_bytes == 4 * one, "no layer's result is kept"
    assert recomputed.peak.total == recomputed.measured_peak_bytes


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_compiled_step_stays_compiled() -> None:
    found = watch(TwoLayers(), (100,), batch=64, compile_mode="default")
    assert "compiled step does not say" in found.note
    assert {point.section for point in found.points} == {"compiled"}
    assert found.peak.total == found.measured_peak_bytes
    assert found.peak.unattributed > 0


class NoRoom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 1 TiB")
        return self.layer(x)


def test_no_room_is_told_and_leaves_no_hooks() -> None:
    module = NoRoom()
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        watch(module, (4,))
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_no_room_while_watched_leaves_no_hooks() -> None:
    module = NoRoom()
    module.calls = -2  # the warm-up and the two unwatched steps succeed
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        watch(module, (4,))
    assert not module._forward_hooks
    assert not module.layer._forward_pre_hooks


def test_a_long_step_keeps_its_peak_when_thinned() -> None:
    blank = dict.fromkeys(CATEGORIES, 0)
    points = [
        MemoryPoint(section="forward", module="", operator="", **{**blank, "weights": number * 37 % 5003})
        for number in range(5003)
    ]
    thinned = timeline_of._thinned(points)
    assert len(thinned) <= MOST_POINTS
    assert max(point.total for point in thinned) == 5002


@pytest.mark.parametrize(
    ("path", "stage"),
    [("layer1.0.conv1", "layer1"), ("layer1", "layer1"), ("layer10.0", ""), ("", ""), ("features.3.x", "features.3")],
)
def test_the_stage_of_a_path(path: str, stage: str) -> None:
    assert stage_of(path, ["layer1", "features", "features.3"]) == stage


def test_a_snapshot_needs_cuda(tmp_path: Path) -> None:
    module = TwoLayers()
    workload = Workload(Cell(network=Network(name="lenet5"), batch_size=1), module, (100,), CPU, ring=1, seed=0)
    with pytest.raises(UnfitError, match="CUDA"):
        write_snapshot(workload, tmp_path / "memory.pickle")
