"""Cells on a card that are prepared before their first step: in waves, by TensorRT, in fp8, and judged by images."""

from __future__ import annotations

import json
import os

import pytest
from quick import QUICK

import archbench as package

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

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
ENGINES = "fp32: {runtime: tensorrt}, tf32: {runtime: tensorrt, precision: tf32}, fp16: {runtime: tensorrt, precision: fp16}"


@pytest.fixture
def run(archbench, card, tmp_path):
    """Runs one network on a card, beside the stand-in for TensorRT: its rows by setting of precision."""

    def rows(settings, metrics, *words, network=CONVOLUTION, status="ok", **script):
        suite = SUITE.format(network=network, settings=settings, metrics=metrics, protocol=QUICK)
        (tmp_path / "suite.yaml").write_text(suite)
        path = os.pathsep.join((card["PYTHONPATH"], os.path.join(os.path.dirname(__file__), "tensorrt_on_cpu")))
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
    assert (rows["artifact_bytes"] > rows["weight_bytes"] if "weight_bytes" in rows else True) is not False


@pytest.mark.parametrize(
    ("network", "script", "why"),
    [
        (CONVOLUTION, {"STUB_TENSORRT_LOADS": "10.3.0"}, "its engine cannot be loaded again"),
        ("lenet5", {}, "no importer for Tanh"),
    ],
)
def test_what_tensorrt_cannot_take_is_unsupported_with_its_reason(run, network, script, why):
    (row,) = run("trt: {runtime: tensorrt}", "latency", network=network, status="unsupported", **script).itertuples()
    assert row.error_message == f"tensorrt cannot take this network: {why}"
