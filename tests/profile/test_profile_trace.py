"""Tracks of modules in a Chrome trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from archbench.profiler.operators import uses_tensor_cores
from archbench.profiler.trace_file import add_module_tracks


def event(name: str, ts: float, dur: float, cat: str = "cpu_op", **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 5, "ts": ts, "dur": dur, "args": args}


def engine(ts: float, dur: float, number: int) -> dict[str, Any]:
    return event("autograd::engine::evaluate_function: X", ts, dur, **{"Sequence number": number, "Fwd thread id": 1})


def forward(ts: float, number: int) -> dict[str, Any]:
    return event("aten::op", ts, 1, **{"Sequence number": number, "Fwd thread id": 0})


def test_backward_frames_become_ranges_of_the_modules_that_made_their_nodes(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    events = [
        event("module: .", 0, 100, "user_annotation"),
        event("module: a", 0, 40, "user_annotation"),
        forward(5, 7),
        forward(10, 8),
        event("module: b", 50, 40, "user_annotation"),
        forward(55, 9),
        forward(95, 10),
        engine(200, 5, 10),
        engine(205, 20, 9),
        engine(230, 10, 8),
        engine(240, 10, 7),
        engine(251, 1, 2**64 - 1),
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "python"}},
    ]
    path.write_text(json.dumps({"traceEvents": events, "schemaVersion": 1}))
    assert add_module_tracks(path) == 3
    document = json.loads(path.read_text())
    assert document["schemaVersion"] == 1
    added = [e for e in document["traceEvents"] if e.get("cat") == "module"]
    assert [(e["name"], e["ts"], e["dur"]) for e in added] == [
        ("module: . backward", 200, 5),
        ("module: b backward", 205, 20),
        ("module: a backward", 230, 20),
    ]
    assert {e["tid"] for e in added} != {5}
    assert any(e["ph"] == "M" and "backward" in e["args"]["name"] for e in document["traceEvents"] if "args" in e)


@pytest.mark.parametrize(
    ("kernel", "tensor_core"),
    [
        ("ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_stages_32x5_tn", True),
        (
            "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64_warpgroupsize1x1x1",
            True,
        ),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", True),
        ("void cutlass__5x_cudnn::Kernel<cutlass_tensorop_s1688fprop_optimized_tf32_128x128_32x3>", True),
        ("volta_sgemm_128x64_nn", False),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>", False),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float, int, 512, true, 1, true>", False),
        ("triton_poi_fused_relu_3", None),
        ("void flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4>>", None),
    ],
)
def test_a_kernels_name_tells_of_tensor_cores(kernel: str, tensor_core: bool | None) -> None:
    assert uses_tensor_cores(kernel) is tensor_core
