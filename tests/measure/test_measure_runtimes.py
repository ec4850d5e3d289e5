"""Runtimes beside eager PyTorch: same network, same figures; what was applied is read back, refusals say why."""

from __future__ import annotations

import logging

import msgspec
import pytest
import torch
from torch import nn

import archbench
from archbench.measure.runtimes import Prepared
from archbench.model import runtimes as facts
from archbench.model.axes import PLAIN, Toggles
from archbench.model.cell import Cell, Network
from archbench.model.errors import UnsupportedError
from archbench.model.runtimes import RUNTIMES, refusal
from archbench.suite.cells import parse_cell

# They leave threads and settings of their libraries in the process: away from the quick tests, which share theirs.
ALL = tuple(pytest.param(name, marks=pytest.mark.slow) for name in RUNTIMES)


class Branches(nn.Module):
    """Two outputs, so that their order shows; with a layer that is another in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout()
        self.second = nn.Linear(4, 5)

    def forward(self, images):
        features = self.drop(self.norm(self.first(images)).relu().mean((2, 3)))
        return self.second(features), features


class LooksAtValues(nn.Module):
    """What no exporter can follow: the way depends on the data, and by Python's own means."""

    def forward(self, images):
        return images * 2 if images.sum().item() > 0 else images + int(images.mean().item() * 10)


def prepared(name, module, folder, precision="fp32"):
    folder.mkdir(exist_ok=True)
    return Prepared(name, module.eval(), precision=precision, threads=1, folder=folder)


@pytest.mark.parametrize("name", ALL)
def test_a_runtime_gives_what_the_network_gives_and_says_what_it_runs_on(name, tmp_path):
    torch.manual_seed(0)
    module, images = Branches().eval(), torch.randn(2, 3, 8, 8)
    call = prepared(name, module, tmp_path)
    with torch.inference_mode():
        expected = module(images)
        found = list(call(images))
        again = list(call(images + 1.0))  # nothing of the first input may be baked in
        other = module(images + 1.0)
    for one, wanted in zip((*found, *again), (*expected, *other), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-4, atol=1e-5)
    engine = call.engine
    assert engine is not None
    assert engine.told["precision"] in ("fp32", "f32")
    assert engine.told["threads"] == "1"
    weights = sum(tensor.numel() for tensor in module.state_dict().values())
    assert engine.artifact_bytes > 4 * (weights - 1)  # all weights in fp32; batches seen are not exported


@pytest.mark.parametrize("name", ALL)
def test_a_second_process_takes_the_artifact_and_needs_no_network(name, tmp_path):
    images, first, second = torch.ones(1, 3, 8, 8), Branches(), nn.Identity()
    with torch.inference_mode():
        expected = list(prepared(name, first, tmp_path)(images))  # type: ignore[call-overload]
        found = list(prepared(name, second, tmp_path)(images))  # type: ignore[call-overload]
    for one, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(one, wanted)


@pytest.mark.slow
def test_bf16_is_read_back_and_rounds(tmp_path):
    module, images = Branches().eval(), torch.randn(2, 3, 8, 8)
    call = prepared("openvino", module, tmp_path, "amp-bf16")
    with torch.inference_mode():
        try:
            found = next(iter(call(images)))  # type: ignore[call-overload]
        except UnsupportedError as error:  # a CPU without the instructions keeps to fp32, and that is found out
            pytest.skip(str(error))
        expected = module(images)[0]
    assert call.engine is not None
    assert call.engine.told["precision"] == "bf16"
    assert 1e-6 < (found - expected).abs().max() / expected.abs().max() < 5e-2


@pytest.mark.parametrize("name", ALL)
def test_a_network_that_cannot_be_exported_is_unsupported_in_one_line(name, tmp_path):
    call = prepared(name, LooksAtValues(), tmp_path)
    with pytest.raises(UnsupportedError, match=f"^{name} cannot take this network: .") as told, torch.inference_mode():
        call(torch.ones(1, 3, 4, 4))
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_openvino_says_which_operator_it_lacks(tmp_path):
    """Sums over windows: an average whose divisor is set, which its frontend does not know."""

    class Sums(nn.Module):
        def forward(self, images):
            return nn.functional.avg_pool2d(images, 2, divisor_override=1)

    level = logging.getLogger().level
    with pytest.raises(UnsupportedError, match="divisor_override"), torch.inference_mode():
        prepared("openvino", Sums(), tmp_path)(torch.ones(1, 3, 4, 4))
    assert logging.getLogger().level == level, "the converter leaves the root logger as it set it for itself"


def test_what_a_runtime_cannot_be_asked_for_is_known_before_anything_runs(monkeypatch):
    def why(**fields):
        return refusal(Cell(network=Network(name="lenet5"), batch_size=1, **fields))

    assert why() is None
    assert why(runtime="onnxruntime") is None
    assert why(runtime="openvino", precision="amp-bf16") is None
    assert why(runtime="onnxruntime", precision="bf16") == "onnxruntime is held to fp32 here, not to bf16"
    assert "inference only" in why(runtime="openvino", phase="training")
    assert "compile_mode off" in why(runtime="aot-inductor", compile_mode="default")
    assert "memory_format contiguous" in why(runtime="aot-inductor", memory_format="channels_last")
    assert "on the CPU alone" in why(runtime="aot-inductor", device="cuda")
    monkeypatch.setattr(facts, "find_spec", lambda name: None)
    assert why(runtime="onnxruntime") == (
        "onnxruntime needs onnxruntime and onnxscript, not installed here: pip install 'archbench[onnx]'"
    )
    assert why(runtime="openvino") == "openvino needs openvino, not installed here: pip install 'archbench[openvino]'"
    assert why(runtime="aot-inductor") is None


def test_cells_keep_the_ids_that_they_had_before_there_were_runtimes():
    plain = parse_cell("lenet5", "cpu")
    assert "runtime" not in plain.cell_id
    other = parse_cell("lenet5@runtime=openvino", "cpu")
    assert other.cell_id == plain.cell_id.replace(",device", ",runtime=openvino,device")
    assert parse_cell(other.cell_id, "cpu") == other
    assert Toggles(runtime="openvino").label == "fp32, openvino"
    assert Toggles(runtime="openvino").less_one() == [PLAIN]


@pytest.mark.slow
def test_every_runtime_has_a_file():
    for name in RUNTIMES:
        assert __import__("archbench.measure.runtimes", fromlist=["load"]).load(name).__name__ == "prepare"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_of_all_runtimes_stores_their_times_errors_and_sizes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where the device's lock lies
    metrics = ["static", "latency", "throughput", "memory", "compile", "numerics"]
    run = archbench.run(
        "resnet20_cifar",
        runtime=["torch", *RUNTIMES],
        metrics=metrics,
        rounds=1,
        device="cpu",
        force=True,
        progress=False,
    )
    rows = run.frame.set_index("runtime")
    assert set(rows.index) == {"torch", *RUNTIMES}
    assert (rows["status"] == "ok").all(), rows["error_message"].to_dict()
    others = rows.drop(index="torch")
    assert (others["latency_median_s"] > 0).all()
    assert (others["output_rel_error"] < 1e-4).all()
    assert (others["compile_cold_s"] > others["compile_warm_s"]).all()
    assert (others["artifact_bytes"] >= 4 * rows["params"].iloc[0]).all()
    assert others["peak_allocated_bytes"].isna().all()
    assert (others["process_bytes"] > 0).all()
    for reasons in others["reasons"]:
        assert "peak_allocated_bytes:outside_torch" in reasons
    for name, applied in others["applied"].items():
        told = msgspec.json.decode(applied)["runtime"]
        assert told["threads"] == str(msgspec.json.decode(applied)["threads"]), name
