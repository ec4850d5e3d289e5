"""Runtimes beside eager PyTorch: same network, same figures; what was applied is read back, refusals say why."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import time

import msgspec
import pytest
import torch
from torch import nn

import archbench
from archbench.catalog.inputs import Batch
from archbench.catalog.weights import Preprocessing
from archbench.device.cpu import Cpu
from archbench.measure.metrics.correctness import compare, drawn_images
from archbench.measure.runtimes import Engine, Prepared, load, making_of, module_of
from archbench.measure.workload import Workload, first_tensor
from archbench.model import axes as facts
from archbench.model.axes import FORMATS, PLAIN, RUNTIMES, Toggles, refusal
from archbench.model.cell import Cell, Network
from archbench.model.errors import UnsupportedError, UsageError
from archbench.suite.cells import parse_cell

# They leave threads and settings of their libraries in the process: away from the quick tests, which share theirs.
ON_CPU = tuple(name for name, known in RUNTIMES.items() if known.device == "cpu")
ALL = tuple(pytest.param(name, marks=pytest.mark.slow) for name in ON_CPU)
QUANTIZED = tuple(
    pytest.param(runtime, quantize, marks=pytest.mark.slow, id=f"{runtime}-{quantize}")
    for runtime, known in FORMATS.items()
    for quantize, form in known.items()
    if form.device != "cuda"
)


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


class Deep(nn.Module):
    """Convolutions and linear layers wide enough for every quantiser."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


def cell_of(runtime, precision="fp32", quantize="off"):
    return Cell(network=Network(name="lenet5"), batch_size=4, runtime=runtime, precision=precision, quantize=quantize)


def prepared(name, module, folder, precision="fp32", quantize="off", threads=1):
    def images():
        return list(torch.split(drawn_images((3, 32, 32), 8, 1, Preprocessing()), 4))

    cell = cell_of(name, precision, quantize)
    return Prepared(cell, module.eval(), threads=threads, artifacts=folder, calibration=images)


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


@pytest.mark.parametrize(("runtime", "quantize"), QUANTIZED)
def test_a_quantised_network_computes_much_the_same_in_eight_bits(runtime, quantize, tmp_path):
    module, images = Deep().eval(), drawn_images((3, 32, 32), 4, 0, Preprocessing())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    call = prepared(runtime, module, tmp_path, quantize=quantize)
    with torch.inference_mode():
        expected = module(images)
        found = first_tensor(call(images)).clone()
        other = first_tensor(call(images.flip(0)))
    error = (found - expected).norm() / expected.norm()
    assert 1e-4 < error < 5e-2, "rounded to eight bits, and not to fewer"
    torch.testing.assert_close(other, found.flip(0), rtol=0.1, atol=0.1 * float(expected.abs().max()))
    assert call.engine is not None
    taken, layers = call.engine.quantized
    assert layers == 4
    assert taken == (2 if runtime == "torch" and quantize != "int8-static" else 4), "torchao's recipes: linear layers"
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), "the network is the reference, and stays as it is"


@pytest.mark.slow
def test_int8_convolutions_may_be_flattened(tmp_path):
    """oneDNN's give channels_last, which AlexNet's `view` before its classifier could not take."""
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(3, 16, 3, stride=4), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    module, images = nn.Sequential(convolutions, nn.Flatten(), nn.Linear(576, 10)).eval(), torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        found = first_tensor(prepared("torch", module, tmp_path, quantize="int8-static")(images))
        assert (found - module(images)).norm() < 0.1 * module(images).norm()


@pytest.mark.slow
def test_what_fails_in_its_first_step_is_unsupported_and_out_of_memory_is_not(tmp_path, monkeypatch):
    def engine_that(error):
        def call(images):
            raise error

        return lambda module, example, wanted: Engine(call=call, told={})

    for error, raised in ((RuntimeError("no such kernel"), UnsupportedError), (torch.OutOfMemoryError("full"), None)):
        monkeypatch.setattr("archbench.measure.runtimes.load", lambda cell, error=error: engine_that(error))
        with pytest.raises(raised or torch.OutOfMemoryError, match=str(error)):
            prepared("onnxruntime", Deep(), tmp_path)(torch.ones(4, 3, 32, 32))


def test_a_runtime_that_takes_other_threads_than_it_was_given_is_unsupported(tmp_path, monkeypatch):
    engine = Engine(call=lambda images: images, told={"threads": "3"})
    monkeypatch.setattr("archbench.measure.runtimes.load", lambda cell: lambda module, example, wanted: engine)
    with pytest.raises(UnsupportedError, match="openvino runs on 3 threads and not on 2"):
        prepared("openvino", Deep(), tmp_path, threads=2)(torch.ones(4, 3, 32, 32))
    assert prepared("openvino", Deep(), tmp_path, threads=3)(torch.ones(1)) == torch.ones(1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_threads_of_a_runtime_are_those_asked_for_and_have_rested_once_it_settled(name, tmp_path):
    """What spins on takes a core from whatever is timed next, the canary first."""
    call, images = prepared(name, Deep(), tmp_path, threads=2), torch.ones(4, 3, 32, 32)
    for _ in range(50):
        call(images)
    assert call.engine is not None
    assert call.engine.told["threads"] == "2"
    Cpu().settle()
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.01


@pytest.mark.slow
def test_a_network_without_anything_to_quantise_is_unsupported(tmp_path):
    call = prepared("torch", nn.Sequential(nn.Flatten(), nn.ReLU()), tmp_path, quantize="int8-dynamic")
    with pytest.raises(UnsupportedError, match="torch int8-dynamic cannot take this network: its quantiser took none"):
        call(torch.ones(4, 3, 32, 32))


def test_an_artifact_of_another_version_is_not_taken(monkeypatch):
    images = torch.ones(1, 3, 8, 8)
    names = {making_of(cell_of("openvino", quantize=one), images) for one in ("off", "int8-static", "int8-dynamic")}
    names |= {making_of(cell_of("openvino", "amp-bf16"), images), making_of(cell_of("openvino"), images[:, :1])}
    assert len(names) == 5
    before = making_of(cell_of("openvino"), images)
    version = importlib.metadata.version
    assert making_of(cell_of("openvino"), images + 1) == before
    for package in ("torch", "openvino", "archbench"):
        monkeypatch.setattr(
            "importlib.metadata.version", lambda name, changed=package: "0.1" if name == changed else version(name)
        )
        assert making_of(cell_of("openvino"), images) != before
        monkeypatch.setattr("importlib.metadata.version", version)


@pytest.mark.slow
def test_an_artifact_of_another_version_in_the_cache_is_left_alone(tmp_path, monkeypatch):
    images, version = torch.ones(4, 3, 32, 32), importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1" if name == "torch" else version(name))
    prepared("onnxruntime", Deep(), tmp_path)(images)
    (old,) = tmp_path.iterdir()
    (old / "model.onnx").write_bytes(b"what no version of today could read")
    monkeypatch.setattr("importlib.metadata.version", version)
    module = Deep().eval()
    with torch.inference_mode():
        found = first_tensor(prepared("onnxruntime", module, tmp_path)(images))
        torch.testing.assert_close(found, module(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_provider_that_falls_back_in_silence_is_unsupported(tmp_path, monkeypatch):
    from archbench.measure.runtimes import onnxruntime

    monkeypatch.setattr(onnxruntime, "PROVIDER", "CUDAExecutionProvider")  # of which this build has none
    with pytest.raises(UnsupportedError, match="it runs under CPUExecutionProvider and not under CUDAExecutionP"):
        prepared("onnxruntime", Deep(), tmp_path)(torch.ones(4, 3, 32, 32))


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


@pytest.mark.slow
def test_onnx_says_which_operator_it_lacks(tmp_path):
    class Eigenvalues(nn.Module):
        def forward(self, images):
            return torch.linalg.eigvals(images[:, 0] + torch.eye(4)).real

    with pytest.raises(UnsupportedError, match=r"No ONNX function found for .*linalg_eig"), torch.inference_mode():
        prepared("onnxruntime", Eigenvalues(), tmp_path)(torch.ones(1, 3, 4, 4))


def test_what_a_runtime_cannot_be_asked_for_is_known_before_anything_runs(monkeypatch):
    def why(**fields):
        cell = Cell(network=Network(name="lenet5"), batch_size=1, **fields)
        return refusal(cell, cell.phase, cell.device)

    assert why() is None
    assert why(runtime="onnxruntime") is None
    assert why(runtime="openvino", precision="amp-bf16") is None
    assert why(runtime="onnxruntime", precision="bf16") == (
        "onnxruntime is held to fp32 here, not to bf16: on a CPU it computes bf16 and fp16 by casting to fp32 and back"
    )
    assert why(quantize="int8-static") is None
    assert why(runtime="openvino", quantize="int8-dynamic") is None
    assert why(quantize="int8-dynamic", precision="bf16") is None
    assert why(quantize="fp8") == ("fp8 needs a GPU of compute capability 8.9 or newer: CPUs have no arithmetic for it")
    assert why(quantize="int8-static", precision="bf16") == "int8-static under torch goes with fp32, not with bf16"
    assert why(quantize="int8-static", phase="training") == "int8-static runs inference only"
    assert why(runtime="onnxruntime", quantize="int8-weight-only") == (
        "onnxruntime has no int8-weight-only here; it has int8-dynamic, int8-static"
    )
    assert "no quantised format" in why(runtime="tensorrt", quantize="int8-static", device="cuda") or (
        "not installed" in why(runtime="tensorrt", device="cuda")
    )
    assert "inference only" in why(runtime="openvino", phase="training")
    assert "compile_mode off" in why(runtime="aot-inductor", compile_mode="default")
    assert "memory_format contiguous" in why(runtime="aot-inductor", memory_format="channels_last")
    for name in ON_CPU:
        assert why(runtime=name, device="cuda") == f"{name} is measured on the CPU alone so far"
    assert why(runtime="tensorrt") == "tensorrt is measured on GPUs of NVIDIA alone", "to install it would not help"
    assert why(quantize="int8-static", device="cuda") == "int8-static under torch is lowered for CPUs alone"
    assert why(quantize="fp8", device="cuda") == "fp8 under torch goes with bf16, not with fp32"
    assert why(quantize="fp8", precision="bf16", device="cuda") is None, "how new the GPU is, only it can tell"
    monkeypatch.setattr(facts, "find_spec", lambda name: None)
    assert why(runtime="onnxruntime") == (
        "onnxruntime needs onnxruntime and onnxscript, not installed here: pip install 'archbench[onnx]'"
    )
    assert why(runtime="openvino") == "openvino needs openvino, not installed here: pip install 'archbench[openvino]'"
    assert why(runtime="aot-inductor") is None
    assert why(quantize="int8-static") == (
        "int8-static under torch needs torchao, not installed here: pip install 'archbench[quant]'"
    )
    assert why(runtime="openvino", quantize="int8-static").startswith("openvino needs openvino")
    assert why(runtime="tensorrt", device="cuda") == (
        "tensorrt needs tensorrt and onnxscript, not installed here: pip install 'archbench[tensorrt]'"
    )


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
    for name in ("torch", *ON_CPU):
        assert load(cell_of(name)) is importlib.import_module(module_of(name)).prepare


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_of_all_runtimes_stores_their_times_errors_and_sizes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where the device's lock lies
    metrics = ["static", "latency", "throughput", "memory", "compile", "numerics"]
    run = archbench.run(
        "resnet20_cifar",
        runtime=["torch", *ON_CPU],
        metrics=metrics,
        rounds=1,
        device="cpu",
        force=True,
        progress=False,
    )
    rows = run.frame.set_index("runtime")
    assert set(rows.index) == {"torch", *ON_CPU}
    assert (rows["status"] == "ok").all(), rows["error_message"].to_dict()
    others = rows.drop(index="torch")
    assert (others["latency_median_s"] > 0).all()
    assert (others["output_rel_error"] < 1e-4).all()
    assert (others["output_fp64_error"] < 1e-4).all()
    assert (others["output_top1_agreement"] == 1.0).all()
    assert (others["compile_cold_s"] > others["compile_warm_s"]).all()
    assert (others["artifact_bytes"] >= 4 * rows["params"].iloc[0]).all()
    assert others["peak_allocated_bytes"].isna().all()
    assert (others["process_bytes"] > 0).all()
    for reasons in others["reasons"]:
        assert "peak_allocated_bytes:outside_torch" in reasons
    for name, applied in others["applied"].items():
        told = msgspec.json.decode(applied)["runtime"]
        assert told["threads"] == str(msgspec.json.decode(applied)["threads"]), name


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_memory_of_a_runtime_is_that_of_serving_it(tmp_path, monkeypatch):
    """64 MiB of weights: a process that has converted them holds PyTorch's and the exporter's copies besides."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = archbench.run(
        {"name": nn.Sequential(nn.Flatten(), nn.Linear(3072, 5461)), "input_size": 32},
        runtime=["torch", *ON_CPU],
        metrics=["latency", "memory"],
        rounds=1,
        device="cpu",
        force=True,
        progress=False,
    )
    held = run.frame.set_index("runtime")["process_bytes"] / 2**20
    assert set(held.index) == {"torch", *ON_CPU}
    assert held.between(64, 190).all(), held.to_dict()  # OpenVINO maps the file, and packs the weights again
    assert held["onnxruntime"] < 64 + 60, "its own copy, and neither PyTorch's nor the exporter's"


def outputs_of(module, images, break_it=lambda scores: scores):
    """A workload of `module` whose output `break_it` changes, judged against `module`."""

    class Changed(nn.Module):
        def forward(self, images):
            return break_it(module(images))

    workload = Workload(cell_of("torch"), Changed(), (3, 32, 32), torch.device("cpu"), ring=1, seed=0)
    return compare(workload, module, [Batch((part,)) for part in torch.split(images, 4)], centred=True)


def test_agreement_of_top_classes_means_something_on_random_weights():
    """Drawn images differ enough for most to have a top class of their own, once what all share is taken away."""
    module, images = Deep().eval(), drawn_images((3, 32, 32), 32, 0, Preprocessing())
    same = outputs_of(module, images)
    assert same.rel_error == 0.0
    assert same.top1_agreement == 1.0
    assert same.finite
    assert 0 < same.fp64_error < 1e-5
    shifted = outputs_of(module, images, lambda scores: scores.roll(1, dims=1))
    assert shifted.top1_agreement < 0.3, "another class for each image"
    noise = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    fine, coarse = (
        outputs_of(module, images, lambda scores, size=size: scores + size * noise).top1_agreement
        for size in (1e-5, 1.0)
    )
    assert fine == 1.0
    assert coarse < 0.6
    dull = outputs_of(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10).requires_grad_(False)), images * 0)
    assert dull.top1_agreement is None, "the same class for all of them would prove nothing"
    maps = outputs_of(nn.Conv2d(3, 4, 3), images)
    assert maps.rel_error == 0.0
    assert maps.top1_agreement is None


def test_an_output_that_is_broken_has_no_errors_and_says_so():
    module, images = Deep().eval(), drawn_images((3, 32, 32), 8, 0, Preprocessing())
    broken = outputs_of(module, images, lambda scores: scores * float("nan"))
    assert (broken.finite, broken.reference_finite) == (False, True)
    assert broken.rel_error is broken.fp64_error is broken.top1_agreement is None


def test_drawn_images_are_the_same_for_a_seed_and_lie_within_what_pixels_can_be():
    wanted = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    images = drawn_images((3, 48, 64), 64, 3, wanted)
    assert images.shape == (64, 3, 48, 64)
    assert torch.equal(images, drawn_images((3, 48, 64), 64, 3, wanted))
    assert not torch.equal(images, drawn_images((3, 48, 64), 64, 4, wanted))
    pixels = images * torch.tensor(wanted.std).view(-1, 1, 1) + torch.tensor(wanted.mean).view(-1, 1, 1)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert pixels.std() > 0.15
    means = pixels.mean((2, 3))
    assert means.std(0).min() > 0.1, "as a whole, too, one is unlike another"
    assert drawn_images((1, 28, 28), 2, 0, wanted).shape == (2, 1, 28, 28)
    assert drawn_images((5,), 2, 0, wanted).shape == (2, 5)


class Logarithm(nn.Module):
    """Small values beside a large one: eight bits for all of them make the small ones zero, and their logs infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32, bias=False)
        self.linear.weight.data = torch.eye(32)

    def forward(self, images):
        level = images.abs().mean((1, 2, 3)).unsqueeze(1)
        return torch.log(self.linear(torch.cat([level * 1e4, (1.0 + level).expand(-1, 31)], 1)))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_format_that_breaks_the_output_is_invalid_and_never_the_best(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = archbench.run(
        {"name": Logarithm(), "input_size": 8},
        quantize=["off", "int8-dynamic"],
        metrics=["latency", "numerics"],
        rounds=1,
        device="cpu",
        force=True,
        progress=False,
    )
    plain, quantized = (run.frame.set_index("quantize").loc[name] for name in ("off", "int8-dynamic"))
    assert plain["status"] == quantized["status"] == "ok", quantized["error_message"]
    assert quantized["output_finite"] == False  # noqa: E712 - pandas' own flag
    assert quantized["verdict"] == "invalid"
    assert "broken_output" in quantized["reasons"]
    assert "output_rel_error:not_finite" in quantized["reasons"]
    assert "broken_output" not in plain["reasons"]
    picked = run.pick(across="quantize")
    assert [one.quantize for ranking in picked.rankings for one in ranking.choices] in ([], ["off"])


def test_a_profile_of_what_is_no_module_of_pytorchs_is_refused_in_a_line():
    with pytest.raises(UsageError, match=r"a profile looks into PyTorch's own modules, of which nothing is left; drop"):
        archbench.profile("lenet5", against="@quantize=int8-dynamic", device="cpu", progress=False)
