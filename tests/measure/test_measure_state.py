"""Every axis value is really applied: what the worker reads back is what the cell asked for."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from archbench.catalog.inputs import Batch
from archbench.measure.metrics.correctness import compare
from archbench.measure.state import apply_state, default_threads, flushes_denormals, plain_fp32, restored_state
from archbench.measure.workload import Workload
from archbench.model.axes import MEMORY_FORMATS, PHASES, PRECISIONS
from archbench.model.cell import Cell, Network
from archbench.model.errors import UnsupportedError

CPU = torch.device("cpu")


KEPT = """
import resource, sys, torch
from archbench.measure.state import host_allocator, keep_freed_memory
for mode in sys.argv[1:]:
    if mode == "keep":
        keep_freed_memory()
    for step in range(30):
        if step == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.full((48 << 20,), 1, dtype=torch.uint8)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20, host_allocator(), sep=";")
"""
"""Takes and frees 48 MiB, above the 32 MiB from which glibc always maps; prints page faults a step."""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_what_is_freed_is_kept_and_costs_no_page_faults_again():
    def faults(*modes, **variables):
        ours = {name: value for name, value in os.environ.items() if "MALLOC" not in name and name != "GLIBC_TUNABLES"}
        command = [sys.executable, "-c", KEPT, *modes]
        told = subprocess.run(command, env=ours | variables, capture_output=True, text=True, check=True).stdout
        return [(float(each), allocator) for each, allocator in (line.split(";") for line in told.splitlines())]

    pages = (48 << 20) / (2 << 20)  # by the hugest pages that a kernel gives unasked
    (fresh, before), (kept, since) = faults("fresh", "keep")
    assert fresh >= pages
    assert before == "the system's"
    assert kept < 1
    assert since == "glibc, keeps what is freed"
    ((chosen, allocator),) = faults("keep", MALLOC_TRIM_THRESHOLD_="131072")
    assert chosen >= pages
    assert allocator == "as the environment sets it"


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, image):
        return self.fc(self.drop(self.norm(self.conv(image)).relu().mean((2, 3))))


@pytest.fixture(autouse=True)
def _restore():
    threads = torch.get_num_threads()
    yield
    apply_state("fp32", threads, 0)
    torch.set_flush_denormal(False)


def workload(module=None, **axes):
    cell = Cell(network=Network(name="small"), batch_size=2, **axes)
    apply_state(cell.precision, 1, 7)
    return Workload(cell, module or Small(), (3, 8, 8), CPU, ring=3, seed=7)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("phase", PHASES)
def test_precision_and_phase_are_applied(precision, phase):
    applied = workload(precision=precision, phase=phase).applied()
    assert applied.matmul_precision == ("high" if precision == "tf32" else "highest")
    assert applied.cudnn_tf32 is (precision == "tf32")
    assert applied.autocast_dtype == {"amp-bf16": "bfloat16", "amp-fp16": "float16"}.get(precision)
    assert applied.weight_dtype == {"bf16": "bfloat16", "fp16": "float16"}.get(precision, "float32")
    assert applied.grad_mode == ("grad" if phase == "training" else "inference")
    assert (applied.training_modules == 0) is (phase == "inference")


class Forces(Small):
    """Gives the gradient of what it computes by its input, as force fields do."""

    def forward(self, image):
        with torch.enable_grad():
            image = image.detach().requires_grad_()
            return torch.autograd.grad(super().forward(image).sum(), image)[0]


@pytest.mark.parametrize("precision", ["fp32", "amp-bf16"])
def test_a_network_that_takes_gradients_inside_infers_without_inference_mode(precision):
    module = Forces()
    under_test = workload(module, precision=precision)
    assert under_test.step().abs().sum() > 0
    assert under_test.applied().grad_mode == "no_grad"
    under_test.require(under_test.applied())
    found = compare(under_test, module, under_test.inputs, centred=False)
    assert found.rel_error is not None
    assert found.rel_error < (1e-6 if precision == "fp32" else 0.1)


def test_other_mistakes_with_gradients_are_the_networks_own():
    class Fails(Small):
        def forward(self, image):
            raise RuntimeError("no gradient today")

    with pytest.raises(RuntimeError, match="no gradient today"):
        workload(Fails()).step()


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
def test_memory_format_is_applied_to_model_and_input(memory_format):
    applied = workload(memory_format=memory_format).applied()
    assert (applied.model_format, applied.input_format) == (memory_format, memory_format)


def test_one_precision_does_not_inherit_from_the_one_before():
    workload(precision="tf32")
    assert workload(precision="fp32").applied().matmul_precision == "highest"


def test_state_that_no_axis_changes():
    applied = workload().applied()
    assert applied.cudnn_benchmark
    assert not applied.cudnn_deterministic
    assert applied.threads == 1
    assert applied.flush_denormals
    assert applied.seed == 7


def test_channels_last_without_a_convolution_is_unsupported():
    with pytest.raises(UnsupportedError, match="channels_last"):
        Workload(
            Cell(network=Network(name="mlp"), batch_size=2, memory_format="channels_last"),
            nn.Linear(8, 4),
            (8,),
            CPU,
            ring=1,
            seed=0,
        )


def test_inputs_are_seeded_and_never_zero():
    first, second = workload(), workload()
    assert len(first.input_tensors) == 3
    for one, other in zip(first.input_tensors, second.input_tensors, strict=True):
        assert torch.equal(one, other)
        assert one.std() > 0.5
    assert not torch.equal(*first.input_tensors[:2])


def test_inference_is_repeatable_and_keeps_no_graph():
    cell = workload()
    batch = cell.inputs[0]
    for one, again in zip(cell.output(batch), cell.output(batch), strict=True):
        assert torch.equal(one, again)
    assert not cell.step().requires_grad


@pytest.mark.parametrize("precision", ["fp32", "amp-bf16", "amp-fp16", "bf16"])
def test_training_moves_the_weights_and_drops_the_gradients(precision):
    module = Small()
    before = module.conv.weight.detach().clone()
    cell = workload(module, phase="training", precision=precision)
    for _ in range(3):
        cell.step()
    assert not torch.equal(before.to(module.conv.weight.dtype), module.conv.weight)
    assert all(weight.grad is None for weight in module.parameters())


def test_training_takes_networks_that_return_several_outputs():
    class TwoHeads(Small):
        def forward(self, image):
            logits = super().forward(image)
            return {"main": logits, "others": (logits * 2, image)}

    assert torch.isfinite(workload(TwoHeads(), phase="training").step())


def test_training_takes_classifiers_of_different_width():
    class Wide(Small):
        def forward(self, image):
            logits = super().forward(image)
            return logits, logits[:, :2]

    cell = workload(Wide(), phase="training")
    assert torch.isfinite(cell.step())
    assert {int(labels.max()) < 2 for name, labels in cell.ready() if name == "labels"} == {True, False}


def test_a_network_without_parameters_cannot_train():
    with pytest.raises(UnsupportedError, match="parameters"):
        workload(nn.Identity(), phase="training")


def test_threads_come_from_the_user_first(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads(8) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert default_threads(8) == 8
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert default_threads(8) == 8


def test_the_canary_and_the_reference_run_in_plain_fp32_whatever_is_set():
    apply_state("tf32", 1, 0)
    with plain_fp32():
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.allow_tf32


def test_a_network_that_ignores_eval_is_refused():
    class Stubborn(Small):
        def train(self, mode=True):
            return super().train(True)

    cell = workload(Stubborn())
    with pytest.raises(UnsupportedError, match="training mode"):
        cell.require(cell.applied())


def test_lent_state_is_given_back_also_after_an_exception():
    torch.set_float32_matmul_precision("highest")
    before = read_switches()
    drawn = torch.random.get_rng_state()
    with pytest.raises(ValueError, match="in the middle"):
        fail_in_lent_state()
    assert read_switches() == before
    assert torch.equal(torch.random.get_rng_state(), drawn)


def fail_in_lent_state():
    with restored_state("tf32", threads=1, seed=7):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_num_threads() == 1
        assert flushes_denormals()
        raise ValueError("in the middle")


def read_switches():
    cudnn = torch.backends.cudnn
    return (
        torch.get_float32_matmul_precision(),
        *(cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic),
        *(torch.get_num_threads(), torch.get_num_interop_threads(), flushes_denormals()),
    )


def test_given_inputs_are_used_as_they_are_but_placed():
    cell = Cell(network=Network(name="small"), batch_size=2, precision="bf16", memory_format="channels_last")
    images, indices = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    made = Workload(cell, Small(), (), CPU, ring=3, seed=7, inputs=[Batch((images,))])
    (placed,) = made.input_tensors
    assert placed.dtype == torch.bfloat16
    assert placed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed.float(), images.bfloat16().float())
    made.step()
    embedded = Workload(cell_of_vectors(), nn.Embedding(4, 3), (), CPU, ring=3, seed=7, inputs=[Batch((indices,))])
    assert embedded.input_tensors[0].dtype == torch.int64
    embedded.step()


def cell_of_vectors():
    return Cell(network=Network(name="embedding"), batch_size=2, precision="bf16")
