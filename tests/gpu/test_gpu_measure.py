"""A suite on a real GPU, from YAML to rows: events, allocator peaks, CUDA graphs, NVML beside torch."""

from __future__ import annotations

import json
import math

import pytest

# Compiling for CUDA graphs takes a minute where the cache is empty, and the first test waits for all of it.
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]

SUITE = """\
suite: gpu
architectures: [resnet18]
axes: {batch_size: [1, 8]}
settings:
  fp32: {}
  tf32: {precision: tf32}
  amp-nhwc: {precision: amp-bf16, memory_format: channels_last}
  graphs: {precision: amp-bf16, compile_mode: reduce-overhead, only: {batch_size: 1}}
devices:
  cuda: [{phase: inference}, {phase: training, settings: [fp32, amp-nhwc]}]
metrics: [static, latency, throughput, memory, energy, compile, numerics]
protocol: {soak_s: 2, energy_window_s: 1, warmup_first_cell_s: 1, max_sampling_s: 2, max_throughput_s: 2}
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    import torch

    import archbench
    from archbench.cli import main

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    run = tmp_path_factory.mktemp("gpu") / "run"
    suite = run.with_suffix(".yaml")
    suite.write_text(SUITE)
    with pytest.raises(SystemExit) as ended:
        main(["run", str(suite), "--device", "cuda", "--out", str(run), "--force"])
    assert ended.value.code in (0, None), (run / "worker.log").read_text()[-2000:]
    return archbench.load(run)


@pytest.fixture
def eager(rows):
    return rows[rows["compile_mode"] == "off"]


@pytest.fixture
def graphs(rows):
    """The cell with CUDA graphs; not where this machine has no compiler for it."""
    found = rows[rows["compile_mode"] == "reduce-overhead"]
    assert len(found) == 1
    if found["status"].iloc[0] == "unsupported":
        pytest.skip(found["error_message"].iloc[0])
    return found


def explained(rows, column):
    """Whether each row has the figure, or says why not."""
    says = rows["reasons"].map(lambda reasons: any(reason.startswith(f"{column}:") for reason in reasons))
    return rows[column].notna() | says


def test_every_cell_is_measured(eager):
    assert len(eager) == 2 * 3 + 2 * 2
    assert set(eager["status"]) == {"ok"}, list(eager["error_message"].dropna())


def test_device_time_is_within_host_time(eager):
    assert (eager["device_time_median_s"] > 0).all()
    # Each is a median of its own: of blocks on the host's clock, of samples on the device's.
    assert (eager["device_time_median_s"] <= 1.05 * eager["latency_median_s"]).all()
    assert ((eager["issue_time_median_s"] > 0) & (eager["issue_time_median_s"] <= eager["latency_median_s"])).all()
    bound = eager["issue_time_median_s"] > 1.1 * eager["device_time_median_s"]
    assert (eager["host_bound"] == bound).all()


def test_pipelined_steps_are_not_slower_than_waited_ones(eager):
    assert (eager["throughput_img_s"] > 0.9 * eager["batch_size"] / eager["latency_median_s"]).all()


def test_memory_is_the_allocators(eager):
    assert (eager["peak_allocated_bytes"] > eager["weight_bytes"]).all()
    assert (eager["peak_reserved_bytes"] >= eager["peak_allocated_bytes"]).all()
    training = eager[eager["phase"] == "training"]
    assert (training["peak_allocated_bytes"] > 3 * training["weight_bytes"]).all()  # gradients and momentum too


def test_predicted_memory_is_near(eager):
    """Workspaces of cuDNN and cuBLAS are not modelled; what is must be there, and not much more."""
    ratio = (eager["predicted_peak_bytes"] / eager["peak_allocated_bytes"]).astype(float)
    assert ((ratio > 0.1) & (ratio < 1.15)).all(), list(zip(eager["cell_id"], ratio, strict=True))


def test_cuda_graphs_are_really_launched(graphs):
    assert len(graphs) > 0
    assert (graphs["status"] == "ok").all(), list(graphs["error_message"])
    assert (graphs["cuda_graph_launches"] >= 1).all()
    assert (graphs["graph_breaks"] == 0).all()
    assert (graphs["compile_cold_s"] > graphs["compile_warm_s"]).all()


def test_graphs_hold_their_pool(graphs):
    """What a graph's pool keeps counts as reserved, so that is the figure to judge it by."""
    assert (graphs["peak_reserved_bytes"] >= graphs["weight_bytes"]).all()


def test_the_device_tells_its_clock_and_its_energy_or_why_not(eager):
    for column in ("sm_clock_mhz", "energy_j_per_img", "mean_power_w", "throttled_fraction"):
        assert explained(eager, column).all(), column
    told = eager["sm_clock_mhz"].dropna()
    assert (told > 100).all()
    joule = eager["energy_j_per_img"].dropna()
    assert ((joule > 0) & (joule < 100)).all()


def test_the_toggles_are_those_of_the_process_that_measured(eager):
    for precision, applied in zip(eager["precision"], eager["applied"].map(json.loads), strict=True):
        assert applied["cudnn_tf32"] == (precision == "tf32")
        assert applied["matmul_precision"] == ("high" if precision == "tf32" else "highest")
        assert applied["allocator"] in ("native", "cudaMallocAsync")


def test_tf32_costs_accuracy_and_fp32_does_not_use_it(eager):
    tf32 = eager[(eager["precision"] == "tf32") & eager["output_rel_error"].notna()]
    assert len(tf32) == 1
    assert (tf32["output_rel_error"] > 1e-6).all()
    assert (tf32["output_rel_error"] < 1e-1).all()


def test_the_calibration_is_plausible(eager):
    assert ((eager["measured_peak_share"] > 0) & (eager["measured_peak_share"] < 1.2)).all()
    known = eager["mfu"].dropna()
    assert (known < 1).all()
    assert not math.isnan(eager["achieved_flops"].min())
