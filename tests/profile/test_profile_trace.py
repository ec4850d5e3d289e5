"""Tracks of modules in a Chrome trace, and whose the kernels are that a session of the profiler saw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import record_function

from archbench.profiler.boundaries import Boundaries
from archbench.profiler.operators import RANGE, add_module_tracks, kernels_by_module, uses_tensor_cores


def event(name: str, ts: float, dur: float, cat: str = "cpu_op", args: Mapping[str, int] = {}) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 5, "ts": ts, "dur": dur, "args": dict(args)}


def engine(ts: float, dur: float, number: int) -> dict[str, Any]:
    return event(
        "autograd::engine::evaluate_function: X", ts, dur, args={"Sequence number": number, "Fwd thread id": 1}
    )


def forward(ts: float, number: int) -> dict[str, Any]:
    return event("aten::op", ts, 1, args={"Sequence number": number, "Fwd thread id": 0})


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
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128_32x3_tn_align8>(Params)", True),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32_128x2_nn_align8>(Params)", True),
        (
            "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw_tilesize128x64x16_g1_tensor16x8x8_kernel",
            True,
        ),
        ("cutlass3x_sm90_tensorop_s64x128x16gemm_f16_f16_f32_f16_f16_128x128x64_1x2x1_0_tnn_align8", True),
        ("volta_fp16_s884gemm_fp16_128x128_ldg8_f2f_tn", True),
        ("turing_h1688gemm_256x128_ldg8_nn", True),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64_8x5_nn_align1>(cutlass_80_simt_sgemm::Params)", False),
        ("cutlass3x_sm100_simt_sgemm_f32_f32_f32_f32_f32_64x64x16_1x1x1_3_tnn_align1_bias_f32_relu", False),
        (
            "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize32x32x8_stage3_warpsize1x2x1_ffma_aligna4_alignc4_kernel",
            False,
        ),
        ("ampere_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148t_nt_v1", False),
        ("cudnn_infer_ampere_scudnn_128x64_relu_xregs_large_nn_v1", False),
        ("void implicit_convolve_sgemm<float, float, 1024, 5, 5, 3, 3, 3, 1, true, false, true>(int, int)", False),
        ("ampere_sgemm_32x128_tn", False),
        ("volta_sgemm_128x64_nn", False),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>", False),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float, int, 512, true, 1, true>", False),
        ("triton_poi_fused_relu_3", None),
        ("void flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4>>", None),
    ],
)
def test_a_kernels_name_tells_of_tensor_cores(kernel: str, tensor_core: bool | None) -> None:
    assert uses_tensor_cores(kernel) is tensor_core


def test_kernels_belong_to_the_module_whose_operator_launched_them() -> None:
    """Every product launches a kernel of 10 us: forward one a layer, backward one a gradient that is asked for."""
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()))
    boundaries = Boundaries(net, lambda: None, ranges=lambda path: record_function(f"{RANGE}{path or '.'}"))
    steps = 2
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler, boundaries:
        for _ in range(steps):
            boundaries.start()
            torch.mm(torch.ones(2, 2), torch.ones(2, 2))  # in no module's range
            net(torch.ones(3, 4)).sum().backward()
    events = profiler.events()
    assert events is not None
    for event in events:
        if event.name in ("aten::mm", "aten::addmm"):
            event.append_kernel("gemm", 0, 10)
    # The first layer's input asks for no gradient.
    assert kernels_by_module(events, steps) == {"0": pytest.approx(20e-6), "1.0": pytest.approx(30e-6)}
