"""What becomes of a run when the card's monitor is mute, slow or sees company, and when the card goes."""

from __future__ import annotations

import json
import subprocess

import pytest
from quick import QUICK

import archbench

pytestmark = pytest.mark.timeout(300)

SUITE = f"""\
suite: watched
architectures: ["tiny_networks:convolution"]
axes: {{batch_size: [4], input_size: [32]}}
settings: {{fp32: {{}}}}
devices: {{cuda: [{{phase: inference}}]}}
metrics: [latency, energy, memory]
protocol: {QUICK}
"""
MONITORED = ("throttled_fraction", "power_capped_fraction", "sm_clock_mhz", "mean_power_w", "energy_j_per_img")


@pytest.fixture
def measure(request, tmp_path):
    """Runs one cell on a card whose stub follows a script: how the command ended, and its rows."""

    def run(*words, device="cuda", suite=SUITE, **script):
        (tmp_path / "watched.yaml").write_text(suite)
        done = request.getfixturevalue("archbench")(
            *("run", "watched.yaml", "--device", device, "--allow-code", "--json", *words), cwd=tmp_path, **script
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done, json.loads(done.stdout)["rows"] if done.stdout else []

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("status", "reason"), [(4, "no_permission"), (9, "driver_not_loaded"), (12, "nvml_missing")])
def test_without_nvml_a_card_that_torch_knows_is_measured_unwatched(measure, status, reason):
    done, (row,) = measure(CUDA_VISIBLE_DEVICES="0", STUB_FAIL=f"nvmlInitWithFlags={status}")
    assert (done.returncode, row["status"]) == (0, "ok"), done.stderr
    assert f"NVML does not answer for cuda:0 ({reason})" in done.stderr
    assert row["hardware_class"] == "NVIDIA H100 80GB HBM3"
    assert "monitor_blind" in row["reasons"]
    assert not {"foreign_process", "throttled", "device_lost"} & set(row["reasons"])
    assert {column: row[column] for column in MONITORED} == dict.fromkeys(MONITORED)
    assert {f"{column}:{reason}" for column in MONITORED} <= set(row["reasons"])
    assert row["peak_allocated_bytes"] > 0  # the allocator's, and no monitor's


@pytest.mark.slow
def test_a_neighbour_that_computes_is_refused_before_and_told_of_after(measure):
    with subprocess.Popen(["sleep", "250"]) as stranger:
        try:
            script = {"STUB_SM": f"self:80,{stranger.pid}:60", "STUB_PIDS": f"{stranger.pid}"}
            done, rows = measure(**script, ARCHBENCH_FORCE="0")
            assert (done.returncode, rows) == (3, [])
            assert f"other processes compute on the GPU: {stranger.pid} (60% of the time)" in done.stderr
            done, (row,) = measure("--force", **script)
        finally:
            stranger.kill()
    assert (done.returncode, row["verdict"], row["samples"]) == (0, "invalid", 0)
    assert "foreign_process" in row["reasons"]


@pytest.mark.slow
def test_company_that_does_not_compute_is_no_neighbour_and_a_card_that_goes_at_the_end_costs_nothing(measure):
    with subprocess.Popen(["sleep", "250"]) as notebook:
        try:
            done, (row,) = measure(STUB_PIDS=f"parent,{notebook.pid}", STUB_FAIL="nvmlShutdown=15")
        finally:
            notebook.kill()
    assert (done.returncode, row["status"]) == (0, "ok")
    assert "foreign_process" not in row["reasons"]
    assert row["samples"] > 0


@pytest.mark.slow
def test_a_card_that_goes_between_readings_is_a_row_that_says_so(measure):
    done, (row,) = measure(STUB_LOST_AFTER="2")
    assert done.returncode == 0
    assert row["verdict"] == "invalid"
    assert "device_lost" in row["reasons"]


def test_a_card_that_is_gone_before_is_a_line(measure):
    done, rows = measure(STUB_GPUS="0")
    assert (done.returncode, rows) == (2, [])
    assert done.stderr == "archbench: device 'cuda' does not exist: this machine has cpu only\n"
    done, rows = measure(STUB_FAIL="nvmlDeviceGetHandleByUUID=15", ARCHBENCH_FORCE="0")
    assert (done.returncode, rows) == (3, [])
    assert "device_lost" in done.stderr


@pytest.mark.slow
def test_a_card_that_goes_under_a_network_ends_the_run_with_what_is_finished(measure, tmp_path):
    cells = '["vanishing:network", "tiny_networks:convolution", "tiny_networks:starts_at_zero"]'
    suite = SUITE.replace('["tiny_networks:convolution"]', cells)
    done, _ = measure("--out", "run", suite=suite, STUB_LOST_FILE=tmp_path / "lost")
    assert done.returncode == 3
    assert "cuda:0 (NVIDIA H100 80GB HBM3) is gone" in done.stderr
    rows = archbench.load(tmp_path / "run")
    failed = rows[rows["status"] != "ok"]
    assert [cell_id.partition("[")[0] for cell_id in failed["cell_id"]] == ["vanishing:network"]
    assert "unspecified launch failure" in failed["error_message"].iloc[0]
    assert len(rows) < 3 or rows["status"].iloc[-1] == "error"  # nothing was tried after it


@pytest.mark.slow
def test_another_card_than_the_one_named_is_not_measured(measure, tmp_path):
    suite = SUITE.replace('"]', '", "tiny_networks:starts_at_zero"]', 1)
    done, _ = measure("--out", "run", device="cuda:1", suite=suite, STUB_GPUS="2")  # CUDA shows GPU-0 alone
    assert done.returncode == 3
    assert "cuda:1 is NVIDIA H100 80GB HBM3 GPU-1, which CUDA does not show to this process" in done.stderr
    rows = archbench.load(tmp_path / "run")
    assert list(rows["status"]) == ["error"]  # the second network is not tried
    assert rows["latency_median_s"].isna().all()


@pytest.mark.slow
def test_a_slow_nvml_does_not_make_the_run_crawl(measure):
    done, (row,) = measure(STUB_SLOW_MS="150")
    assert (done.returncode, row["status"]) == (0, "ok")
    assert "monitor_blind" in row["reasons"]
    assert row["duration_s"] < 20
    assert "NVML took" in done.stderr
