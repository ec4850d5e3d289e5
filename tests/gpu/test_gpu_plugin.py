"""The pytest plugin on a real GPU: event times, machine, extra information, suites as tests."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
import torch

pytest_plugins = ["pytester"]
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

INSTALLED = any(one.name == "archbench" for one in importlib.metadata.entry_points(group="pytest11"))
LOADED = () if INSTALLED else ("-p", "archbench.pytest_plugin")
SUITE = "suite: one\narchitectures: [resnet18]\nmetrics: [static, latency, memory]\nprotocol: {soak_s: 0}\n"


@pytest.fixture(autouse=True)
def _needs_it():
    pytest.importorskip("pytest_benchmark")


def test_events_time_the_work_and_not_the_launch(pytester):
    pytester.makepyfile("""
        import torch
        class Spins(torch.nn.Module):
            def forward(self, image):
                torch.cuda._sleep(5_000_000)
                return image + 1
        def test_spins(benchmark_network):
            benchmark_network(Spins(), torch.zeros(2, 3))
        def test_resnet(benchmark_network):
            benchmark_network("resnet18", batch_size=4, precision="amp-bf16", memory_format="channels_last")
    """)
    result = pytester.runpytest(*LOADED, "--archbench-device=cuda", "--benchmark-json=out.json")
    result.assert_outcomes(passed=2)
    document = json.loads((pytester.path / "out.json").read_text())
    spins, resnet = document["benchmarks"]
    assert spins["stats"]["median"] > 1e-3
    info = resnet["extra_info"]
    assert (info["device"], info["precision"]) == ("cuda", "amp-bf16")
    assert info["macs"] == 1_814_073_344
    assert info["peak_allocated_bytes"] > 4 * info["params"]
    assert document["machine_info"]["archbench"]["cuda"]["torch"] == torch.__version__


def test_a_suite_as_tests(pytester):
    pytester.makefile(".yaml", one=SUITE)
    result = pytester.runpytest(*LOADED, "one.yaml", "--archbench-device=cuda", "--benchmark-json=out.json")
    result.assert_outcomes(passed=1)
    (bench,) = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    assert bench["extra_info"]["latency_median_s"] == pytest.approx(bench["stats"]["median"], rel=0.2)
