"""The rules behind a profile's findings: each speaks where its figure is large, with the figure, and else is silent."""

from __future__ import annotations

from typing import Any

from known_profiles import Leaf, make_profile
from msgspec.structs import replace

from archbench.model.counts import AcrossSeeds, GradientHealth
from archbench.model.profile import (
    Explanation,
    KernelMap,
    MemoryPoint,
    MemoryTimeline,
    OperatorProfile,
    Profile,
    Roofline,
    SavedBytes,
)
from archbench.rendering.profile_words import findings

CONV = Leaf(1.0, 2.0, macs=10**12, moved=10**9)


def said(profile: Profile) -> dict[str, Explanation]:
    return {finding.code: finding for finding in findings(profile)}


def operator(name: str, share: float, **fields: Any) -> OperatorProfile:
    known: dict[str, Any] = {"shapes": (), "calls": 1, "self_s": share, "tensor_core": None, "bound": None}
    return OperatorProfile(name=name, share=share, **(known | fields))


def test_a_network_without_faults_gets_no_remedies() -> None:
    quiet = make_profile({"body.conv": CONV}, ["body"])
    found = said(quiet)
    assert set(found) == {"largest_stage", "kinds", "roofline"}
    assert not any(finding.remedy for finding in found.values())
    assert "100 %" in found["largest_stage"].text


def test_the_largest_stage_and_the_one_that_is_expensive_for_its_macs() -> None:
    leaves = {"a.conv": Leaf(6.0, macs=900), "b.conv": Leaf(4.0, macs=100)}
    found = said(make_profile(leaves, ["a", "b"]))
    assert "`a`" in found["largest_stage"].text
    assert "60 %" in found["largest_stage"].text
    assert "90 % of the MACs" in found["largest_stage"].text
    assert "`b` is expensive for its arithmetic: 40 % of the step for 10 % of the MACs" in found["expensive_stage"].text


def test_memory_bound_time_is_told_with_its_kinds_and_what_touches_it() -> None:
    leaves = {"a.conv": CONV, "a.norm": Leaf(1.0, moved=5 * 10**9, kind="BatchNorm2d")}
    found = said(make_profile(leaves, ["a"]))["memory_bound"]
    assert "25 % of the step" in found.text
    assert "BatchNorm2d 25 %" in found.text
    assert found.remedy is not None
    assert "amp-bf16" in found.remedy
    assert "compile" in found.remedy
    compiled = make_profile(leaves, ["a"], cell={"compile_mode": "default", "precision": "bf16"})
    assert said(compiled)["memory_bound"].remedy is None


def test_the_optimizer_counts_from_a_tenth_of_the_step() -> None:
    assert "optimizer" not in said(make_profile({"a": CONV}, optimizer_s=0.1))
    assert "25 %" in said(make_profile({"a": CONV}, optimizer_s=1.0))["optimizer"].text


def test_waiting_for_the_host_on_a_gpu_and_in_python_on_a_cpu() -> None:
    profile = make_profile({"a": CONV})
    roofline = Roofline(peak_flops=1e12, bandwidth=1e10, points=(), device_busy_s=1.8, launch_gap_s=1.2, host_s=None)
    found = said(replace(profile, roofline=roofline))
    assert "40 %" in found["launch_bound"].text
    assert "reduce-overhead" in str(found["launch_bound"].remedy)
    found = said(replace(profile, roofline=replace(roofline, launch_gap_s=None, host_s=0.6)))
    assert "20 %" in found["host_bound"].text


def test_tensor_cores_are_told_by_share_and_a_remedy_only_where_fp32_leaves_them_idle() -> None:
    kernels = (operator("sgemm", 0.9, tensor_core=False), operator("s16816gemm", 0.05, tensor_core=True))
    profile = make_profile({"a": CONV}, kernels=kernels)
    found = said(profile)["tensor_cores"]
    assert "5.0 %" in found.text
    assert found.remedy
    other = make_profile({"a": CONV}, kernels=kernels, cell={"precision": "amp-bf16"})
    assert said(other)["tensor_cores"].remedy is None


def test_copies_count_together() -> None:
    operators = (operator("aten::cat", 0.08), operator("aten::copy_", 0.04), operator("aten::mm", 0.88))
    assert "12 %" in said(make_profile({"a": CONV}, operators=operators))["copies"].text


def test_compiled_against_eager() -> None:
    compiled = KernelMap(kernels=(), mapped_share=0.9, step_s=1.0, eager_step_s=2.0, compile_s=30.0)
    text = said(make_profile({"a": CONV}, compiled=compiled))["compiled"].text
    assert "2.00 times as fast" in text
    assert "90 %" in text


def timeline(**saved: int) -> MemoryTimeline:
    kept = sum(saved.values())
    sizes = {"optimizer": 0, "gradients": 0, "inputs": 0, "temporaries": 0, "workspace": 0}
    point = MemoryPoint(section="backward", module="a", operator="conv", weights=100, activations=kept, **sizes)
    return MemoryTimeline(
        points=(point,),
        operators=1,
        measured_peak_bytes=100 + kept,
        predicted_peak_bytes=2 * (100 + kept),
        holders=(),
        saved_bytes=kept,
        saved_by_operator=tuple(SavedBytes(made_by=n, needed_by=(), tensors=1, bytes=b) for n, b in saved.items()),
        stages=(),
    )


def test_the_peak_what_is_kept_for_it_and_a_prediction_that_is_off() -> None:
    found = said(make_profile({"a": CONV}, memory=timeline(cat=600, batch_norm=300)))
    assert "activations 90 %, weights 10 %" in found["memory_peak"].text
    assert "cat 67 %, batch_norm 33 %" in found["saved_activations"].text
    assert "memory_efficient=true" in str(found["saved_activations"].remedy)
    assert "+100 %" in found["prediction"].text
    plain = said(make_profile({"a": CONV}, memory=timeline(batch_norm=900)))["saved_activations"]
    assert "memory_efficient" not in str(plain.remedy)


def test_gradients_that_vanish_explode_or_arrive() -> None:
    def with_ratio(ratio: float) -> Explanation:
        spread = AcrossSeeds(median=ratio, low=ratio, high=ratio)
        health = GradientHealth(
            seeds=1,
            batch_size=8,
            layers=(),
            first_to_last=spread,
            signal_first_to_last=None,
            stages=(),
            without_gradient=(),
        )
        return said(make_profile({"a": CONV}, gradients=health))["gradients"]

    assert "vanish" in with_ratio(1e-9).text
    assert "explode" in with_ratio(1e6).text
    assert with_ratio(2.0).remedy is None


def test_costly_observation_is_said() -> None:
    assert "12 %" in said(make_profile({"a": CONV}, observing_cost=0.12))["observing_cost"].text
