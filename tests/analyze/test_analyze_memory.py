"""Predicted memory against closed forms, against direct probes, and against the real CPU allocator."""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor, nn

from archbench.analyze import memory
from archbench.analyze.memory import FakeStep, measured_peak, predict_cell, predict_module, upper_envelope
from archbench.catalog.build import build, input_shape
from archbench.measure.workload import Workload
from archbench.model.axes import MemoryFormat, Phase, Precision
from archbench.model.cell import Cell, Network
from archbench.model.counts import MemoryLine, MemoryModel, largest_batch
from archbench.model.errors import UnfitError

INFERENCE = Cell(network=Network(name="resnet18"), batch_size=1)
TRAINING = replace(INFERENCE, phase="training")
lines = st.builds(
    MemoryLine, base_bytes=st.integers(-1000, 100_000), bytes_per_image=st.integers(0, 2_000)
)  # fmt: skip


def model_of(found: list[MemoryLine]) -> MemoryModel:
    return MemoryModel(lines=upper_envelope(found), weight_bytes=0, input_bytes_per_image=10)


@given(st.lists(lines, min_size=1), st.integers(1, 2000))
def test_the_envelope_loses_no_peak(found: list[MemoryLine], batch_size: int) -> None:
    peak = max(line.base_bytes + line.bytes_per_image * batch_size for line in found)
    assert model_of(found).peak_bytes(batch_size) == peak


@given(st.lists(lines, min_size=1), st.integers(0, 200_000))
@example([MemoryLine(base_bytes=0, bytes_per_image=1), MemoryLine(base_bytes=2, bytes_per_image=0)], 2)
def test_the_largest_batch_fits_and_the_next_does_not(found: list[MemoryLine], limit: int) -> None:
    model = model_of(found)
    largest = largest_batch(model.lines, limit)
    assert largest == 0 or model.peak_bytes(largest) <= limit
    growing = any(line.bytes_per_image for line in model.lines)
    assert model.peak_bytes(largest + 1) > limit or not growing


def test_batches_that_lie_ready_are_added() -> None:
    model = model_of([MemoryLine(base_bytes=100, bytes_per_image=7)])
    assert model.peak_bytes(3, batches_held=4) == 100 + 21 + 3 * 3 * 10


def test_one_linear_layer_by_hand() -> None:
    """Inference: weight, bias, input, output. Training: also labels, log-probabilities, and what they give rise to."""
    layer = nn.Linear(1000, 500)
    weights = 4 * (500 * 1000 + 500)
    inference = predict_module(layer, (1000,), INFERENCE)
    assert (inference.weight_bytes, inference.input_bytes_per_image) == (weights, 4000)
    assert inference.peak_bytes(16) == weights + 16 * (4000 + 2000)
    half = predict_module(layer, (1000,), replace(INFERENCE, precision="bf16"))
    assert half.peak_bytes(16) == inference.peak_bytes(16) // 2
    training = predict_module(layer, (1000,), TRAINING)
    # Small batch: weights, momentum and gradients are alive at the end of the backward pass, with input, label, the
    # output's gradient, the loss, and the number of labels that it was averaged over.
    assert training.peak_bytes(1) == 3 * weights + (4000 + 8 + 2000) + 4 + 4


def test_sizes_round_up_to_the_allocators_granule() -> None:
    layer = nn.Linear(10, 10)
    cpu, cuda = (predict_module(layer, (10,), replace(INFERENCE, device=device)) for device in ("cpu", "cuda"))
    assert cpu.peak_bytes(1) == 4 * (100 + 10 + 10 + 10)
    assert cuda.lines[-1].base_bytes == 2 * 512


@pytest.mark.parametrize(
    ("name", "phase", "precision"),
    [
        ("lenet5", "inference", "fp32"),
        ("lenet5", "training", "amp-bf16"),
        ("lenet5", "training", "fp16"),
        ("capsnet", "inference", "amp-bf16"),
        pytest.param("capsnet", "training", "fp32", marks=pytest.mark.slow),
        pytest.param("resnet20_cifar", "training", "amp-bf16", marks=pytest.mark.slow),
        pytest.param("densenetBC100_k12_cifar", "inference", "fp32", marks=pytest.mark.slow),
        pytest.param("swin_t", "training", "fp32", marks=pytest.mark.slow),
        pytest.param("resnet50", "training", "amp-bf16", marks=pytest.mark.slow),
    ],
)
def test_one_probe_equals_a_probe_of_every_batch_size(name: str, phase: Phase, precision: Precision) -> None:
    network = Network(name=name)
    cell = Cell(network=network, batch_size=1, phase=phase, precision=precision)
    with torch.device("meta"):
        module = build(network)
    predicted = predict_module(module, input_shape(network), cell)
    step = FakeStep(module, input_shape(network), cell)
    for batch_size in (2, 64):
        everything_is_constant = 2**62
        direct = max(constant for constant, _ in step.timeline(batch_size, everything_is_constant))
        assert predicted.peak_bytes(batch_size) == direct


def test_the_module_is_copied_and_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    predict_module(module, (1, 8, 8), replace(TRAINING, precision="bf16"))
    assert not module.training
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert all(parameter.grad is None for parameter in module.parameters())


class LooksAtValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


def test_a_step_that_needs_data_cannot_be_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "build", lambda network, allow_code: LooksAtValues())
    with pytest.raises(UnfitError, match="resnet18: memory cannot be predicted, its inference step needs data"):
        predict_cell(INFERENCE)


# The measuring side


def test_measured_peak_of_known_allocations() -> None:
    held = torch.zeros(1000)

    def step() -> Tensor:
        first = held + 1  # 4000
        second = torch.cat([first, first])  # + 8000
        del first
        return second[:10] * 2  # - 4000 + 40

    def nothing() -> None:
        pass

    assert measured_peak(step) - measured_peak(nothing) == 4000 + 8000


def test_measured_peak_counts_what_stands() -> None:
    def nothing() -> None:
        pass

    before = measured_peak(nothing)
    weight = nn.Parameter(torch.zeros(5000))
    view = weight[:10]
    weight.grad = torch.zeros(5000)
    assert measured_peak(nothing) - before == 2 * 20_000, "weight and gradient, the view not again"
    del view


def test_measured_peak_sees_what_an_earlier_step_left_being_freed() -> None:
    """Gradients dropped at the start of a step were allocated before it: they must not be counted twice."""
    weight = nn.Parameter(torch.zeros(50_000))

    def step() -> None:
        weight.grad = None
        (weight * 1).sum().backward()  # type: ignore[no-untyped-call]

    step()

    def nothing() -> None:
        pass

    # Weight and gradient stand; the step frees the gradient, and makes the product and then the gradient anew.
    assert measured_peak(step) - measured_peak(nothing) <= 200_000 + 64


def measure(cell: Cell) -> int:
    """Peak of a real step, less whatever other tensors the test process holds."""
    gc.collect()
    others = measured_peak(lambda: None)
    workload = Workload(cell, build(cell.network), input_shape(cell.network), torch.device("cpu"), ring=1, seed=0)
    workload.step()
    return measured_peak(workload.step) - others


def check(name: str, phase: Phase, precision: Precision = "fp32", layout: MemoryFormat = "contiguous") -> None:
    cell = Cell(network=Network(name=name), batch_size=1, phase=phase, precision=precision, memory_format=layout)
    predicted = predict_cell(cell)
    for batch_size in (2, 8):
        measured = measure(replace(cell, batch_size=batch_size))
        assert predicted.peak_bytes(batch_size) == pytest.approx(measured, rel=0.10)


@pytest.mark.parametrize("phase", ["inference", "training"])
def test_prediction_holds_against_the_allocator(phase: Phase) -> None:
    check("lenet5", phase)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet18", "mobilenet_v2", "torchvision:vit_b_32"])
def test_prediction_holds_for_larger_networks(name: str, phase: Phase) -> None:
    check(name, phase)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", ["amp-bf16", "bf16"])
def test_prediction_holds_for_other_toggles(precision: Precision, layout: MemoryFormat) -> None:
    check("resnet18", "training", precision, layout)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_compiled_step_is_measured_too() -> None:
    """A dispatch mode would see nothing of it, or make torch run it eagerly."""
    module = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    compiled = torch.compile(module)
    image = torch.zeros(64, 256)
    with torch.inference_mode():
        compiled(image)
        eager, fused = measured_peak(lambda: module(image)), measured_peak(lambda: compiled(image))
    assert 0 < fused <= eager
