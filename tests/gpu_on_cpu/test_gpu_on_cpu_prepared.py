"""Cells on a card that are prepared before their first step: in waves, by TensorRT, in fp8, and judged by images."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tiny_networks
import torch
from PIL import Image
from quick import QUICK

import archbench as package
from archbench.catalog.weights import preprocessing
from archbench.labelled import labelled_images
from archbench.measure.metrics.correctness import pixels_of
from archbench.model.cell import Network

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TENSORRT = Path(__file__).with_name("tensorrt_on_cpu")
SUITE = """\
suite: prepared
architectures: [{network}]
axes: {{batch_size: [4]}}
settings: {{{settings}}}
devices: {{cuda: [{{phase: inference}}]}}
metrics: [{metrics}]
protocol: {protocol}
"""
CONVOLUTION = '{name: "tiny_networks:convolution", input_size: 32}'
ENGINES = ", ".join(f"{one}: {{runtime: tensorrt, precision: {one}}}" for one in ("fp32", "tf32", "fp16"))
COMPILED = ", ".join(
    f"{mode}-{form}: {{compile_mode: {mode}, memory_format: {form}}}"
    for mode in ("default", "reduce-overhead")
    for form in ("contiguous", "channels_last")
)
"""Of the first wave on two cores one cell calibrates, alone: only the second compiles side by side."""


@pytest.fixture
def run(archbench, card, tmp_path):
    """Runs one network on a card, with the stand-in for TensorRT at hand: its rows."""

    def rows(settings, metrics, *words, network=CONVOLUTION, status="ok", **script):
        suite = SUITE.format(network=network, settings=settings, metrics=metrics, protocol=QUICK)
        (tmp_path / "suite.yaml").write_text(suite)
        path = os.pathsep.join((card["PYTHONPATH"], str(TENSORRT)))
        words = ("run", "suite.yaml", "--device", "cuda", "--allow-code", "--out", "run", *words)
        done = archbench(*words, cwd=tmp_path, PYTHONPATH=path, **script)
        found = package.load(tmp_path / "run")
        assert set(found["status"]) == {status}, done.stdout + done.stderr + "".join(found["error_message"].dropna())
        return found

    return rows


def test_tensorrt_is_given_the_networks_own_types_and_its_engine_is_loaded_again(run):
    rows = run(ENGINES, "latency, memory, compile, numerics").set_index("precision")
    error = rows["output_rel_error"]
    assert error["fp32"] < 1e-5 < error["tf32"] < 1e-2, "TF32 is on unless it is told otherwise"
    assert 1e-5 < error["fp16"] < 1e-2
    for precision, row in rows.iterrows():
        told = json.loads(row["applied"])["runtime"]
        assert told == {"version": "10.99.0", "device": "NVIDIA H100 80GB HBM3", "precision": precision}
        assert row["compile_warm_s"] > 0, "in a process that found the engine"
        assert row["device_time_median_s"] > 0
        assert "peak_allocated_bytes:outside_torch" in row["reasons"]
    assert rows["artifact_bytes"]["fp16"] < rows["artifact_bytes"]["fp32"]


@pytest.mark.parametrize(
    ("network", "script", "why"),
    [
        (
            CONVOLUTION,
            {"STUB_TENSORRT_LOADS": "10.3.0"},
            "its engine cannot be loaded again: Error Code 1: the engine is of version 10.99.0",
        ),
        (CONVOLUTION, {"STUB_TENSORRT_STREAM": "1"}, "it could not issue the step"),
        ("lenet5", {}, "no importer for Mul"),
    ],
)
def test_what_tensorrt_cannot_take_is_unsupported_with_its_reason(run, network, script, why):
    (row,) = run("trt: {runtime: tensorrt}", "latency", network=network, status="unsupported", **script).itertuples()
    assert row.error_message == f"tensorrt cannot take this network: {why}"


def test_an_engine_that_finds_no_memory_is_out_of_memory(run):
    wanted = {"STUB_TENSORRT_WANTS": str(81 * 2**30)}
    (row,) = run("trt: {runtime: tensorrt}", "latency", status="oom", **wanted).itertuples()
    assert row.error_message.endswith("TensorRT: Error Code 2: OutOfMemory (no further information)")


def test_fp8_needs_a_card_that_multiplies_it(run):
    fp8 = "fp8: {precision: bf16, quantize: fp8}"
    (row,) = run(fp8, "latency", status="unsupported", GPU_CAPABILITY="8.0").itertuples()
    assert row.error_message.endswith("fp8 needs a GPU of compute capability 8.9 or newer")


def test_cells_compile_side_by_side_and_are_right_about_as_many_images_as_the_network_is(run, tmp_path):
    """A third of the images that the network knows lie in the folder of another class."""
    torch.manual_seed(0)
    network = tiny_networks.convolution().eval()
    generator = torch.Generator().manual_seed(1)
    pixels = [torch.randint(0, 256, (4, 4, 3), generator=generator, dtype=torch.uint8) for _ in range(40)]
    images = [Image.fromarray(one.numpy()).resize((40, 36)) for one in pixels]
    wanted = preprocessing(Network(name="tiny_networks:convolution", weights="own.pth"))

    def scores(files):
        with torch.no_grad():
            return network(torch.stack([pixels_of(file, (3, 32, 32), wanted) for file in files]))

    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{number}.png" for number in range(40)]
    with torch.no_grad():
        network[-1].bias -= scores(files).mean(0)  # or all images would be of one class
    torch.save(network.state_dict(), tmp_path / "own.pth")
    for number, (file, known) in enumerate(zip(files, scores(files).argmax(1).tolist(), strict=True)):
        label = number if number < 10 else (known + (number % 3 == 0)) % 10  # each class has one
        (tmp_path / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        file.rename(tmp_path / "images" / str(label) / file.name)
    found = labelled_images(tmp_path / "images")
    right = int((scores(found.files).argmax(1) == torch.tensor(found.labels)).sum())
    trained = CONVOLUTION.replace("}", ", weights: own.pth}")
    rows = run(COMPILED, "latency", "--images", "images", network=trained)
    assert max(rows["compile_neighbours"]) >= 1
    assert list(rows["accuracy_images"]) == [40] * 4
    assert 15 < right < 35
    assert list(rows["top1_measured"]) == pytest.approx([100 * right / 40] * 4)
    assert list(rows["top1_drop"]) == [0] * 4
