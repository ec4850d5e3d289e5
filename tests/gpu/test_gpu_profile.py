"""Profiles on a real GPU: device events, kernels, tensor cores, gaps. Run with `-m gpu`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from archbench.device import collect_environment
from archbench.model.cell import Cell, Network
from archbench.model.messages import ProfileRequest
from archbench.model.profile import Profile

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def needs_a_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def profile(trace: Path | None = None, **cell: Any) -> Profile:
    from archbench.profiler.run import profile_cell

    request = ProfileRequest(
        cell=Cell(network=Network(name="resnet18"), batch_size=32, phase="training", device="cuda", **cell),
        environment=collect_environment("cuda:0"),
        timing_s=2.0,
        gradients=False,
        trace=None if trace is None else str(trace),
    )
    return profile_cell(request)


def test_modules_add_up_on_the_devices_own_clock() -> None:
    found = profile()
    assert found.attributed_s == pytest.approx(found.observed_step_s)
    assert found.attributed_s == pytest.approx(found.step_s, rel=0.15)
    assert found.roofline is not None
    assert found.roofline.device_busy_s is not None
    assert 0 < found.roofline.device_busy_s <= found.step_s * 1.01
    assert found.kernels


def test_mixed_precision_runs_on_tensor_cores_and_plain_fp32_does_not() -> None:
    def share(found: Profile) -> float:
        return sum(kernel.share for kernel in found.kernels if kernel.tensor_core)

    assert share(profile(precision="amp-bf16")) > 0.2
    assert share(profile(precision="fp32")) < 0.05


def test_generated_kernels_are_mapped_to_modules() -> None:
    found = profile(compile_mode="default", precision="amp-bf16")
    assert found.compiled is not None, found.missing
    assert any("layer1" in path for kernel in found.compiled.kernels for path in kernel.modules)


def test_the_trace_has_module_ranges_and_kernels(tmp_path: Path) -> None:
    profile(trace=tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any(event.get("cat") == "kernel" for event in events)
    assert any(str(event.get("name")).endswith("layer4.1.conv2 backward") for event in events)
