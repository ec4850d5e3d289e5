"""What only a GPU can show: events, allocator peaks, CUDA graphs, NVML beside torch."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    import archbench
    from archbench.cli import main

    run = tmp_path_factory.mktemp("gpu") / "run"
    suite = run.with_suffix(".yaml")
    suite.write_text(
        "suite: gpu\narchitectures: [resnet18]\naxes: {batch_size: [1, 8]}\n"
        "settings:\n  fp32: {}\n  tf32: {precision: tf32}\n"
        "  amp-nhwc: {precision: amp-bf16, memory_format: channels_last}\n"
        "  graphs: {precision: amp-bf16, compile_mode: reduce-overhead, only: {batch_size: 1}}\n"
        "devices: {cuda: [{phase: inference}, {phase: training, settings: [fp32, amp-nhwc]}]}\n"
        "metrics: [static, latency, throughput, memory, energy, compile, numerics]\nprotocol: {soak_s: 2}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["run", str(suite), "--device", "cuda", "--out", str(run)])
    assert ended.value.code in (0, None)
    return archbench.load(run)


def test_every_cell_is_measured(rows):
    assert set(rows["status"]) == {"ok"}, list(rows["error_message"].dropna())


def test_device_time_is_within_host_time(rows):
    assert (rows["device_time_median_s"] <= rows["latency_median_s"]).all()
    assert (rows["device_time_median_s"] > 0).all()


def test_memory_is_the_allocators(rows):
    assert (rows["peak_allocated_bytes"] > rows["weight_bytes"]).all()
    assert (rows["peak_reserved_bytes"] >= rows["peak_allocated_bytes"]).all()


def test_cuda_graphs_are_really_launched(rows):
    graphs = rows[rows["compile_mode"] == "reduce-overhead"]
    assert (graphs["cuda_graph_launches"] >= 1).all()


def test_the_device_tells_its_clock_and_its_energy(rows):
    assert (rows["sm_clock_mhz"] > 100).all()
    explained = rows["reasons"].map(lambda reasons: any(r.startswith("energy_j_per_img:") for r in reasons))
    assert (rows["energy_j_per_img"].notna() | explained).all()


def test_tf32_costs_accuracy_and_fp32_does_not_use_it(rows):
    tf32 = rows[(rows["precision"] == "tf32") & rows["output_rel_error"].notna()]
    assert (tf32["output_rel_error"] > 1e-6).all()
