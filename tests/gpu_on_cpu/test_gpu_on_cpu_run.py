"""A suite on a card, from YAML to parquet and report, by real processes: each row is full, and fit to be used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from card import SLOWNESS
from quick import QUICK

import archbench as package

pytestmark = pytest.mark.timeout(400)

SUITE = f"""\
suite: card
architectures: ["tiny_networks:convolution"]
axes: {{batch_size: [4], input_size: [32]}}
settings:
  fp32: {{}}
  amp: {{precision: amp-fp16, memory_format: channels_last}}
  graphs: {{compile_mode: reduce-overhead}}
devices:
  cuda:
    - {{phase: inference}}
    - {{phase: training, settings: [amp]}}
metrics: [static, latency, throughput, memory, energy, compile, numerics]
protocol: {QUICK}
"""
OF_A_BUSY_MACHINE = {"wide_interval", "nonstationary", "few_samples", "drift", "disturbed", "contended", "crowded"}
"""Reasons that this CPU, with whoever else uses it, may give any row."""
LABELS = {"host_bound", "power_capped"}
FIGURES = (
    *(
        "latency_median_s",
        "issue_time_median_s",
        "device_time_median_s",
        "throughput_img_s",
        "achieved_flops",
        "mfu",
        "measured_peak_share",
    ),
    *("peak_allocated_bytes", "peak_reserved_bytes", "process_bytes", "energy_j_per_img", "mean_power_w"),
    *("sm_clock_mhz", "throttled_fraction", "power_capped_fraction", "canary_s", "first_call_s", "samples"),
)


@pytest.fixture(scope="module")
def run(archbench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "card.yaml").write_text(SUITE)
    done = archbench("run", "card.yaml", "--device", "cuda", "--allow-code", "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr + (folder / "run/worker.log").read_text()[-3000:]
    return folder / "run"


@pytest.fixture(scope="module")
def rows(run):
    return package.load(run)


def reasons_for(rows, column):
    """The reasons that rows give for having no such figure."""
    return {reason.partition(":")[2] for reasons in rows["reasons"] for reason in reasons if reason.startswith(column)}


def test_every_cell_is_measured(rows):
    assert len(rows) == 4
    assert set(rows["status"]) == {"ok"}, list(rows["error_message"].dropna())
    assert set(rows["hardware_class"]) == {"NVIDIA H100 80GB HBM3"}


def test_no_row_is_found_fault_with_but_for_a_busy_cpu(rows):
    for cell, reasons in zip(rows["cell_id"], rows["reasons"], strict=True):
        faults = {reason for reason in reasons if ":" not in reason} - OF_A_BUSY_MACHINE - LABELS
        assert not faults, cell


@pytest.mark.parametrize("column", FIGURES)
def test_the_figures_are_there(rows, column):
    """But for a device time, where another test held this CPU up for longer than a backlog: of one row at most."""
    missing = rows[rows[column].isna()]
    lost = [f"{column}:backlog_lost" in reasons for reasons in missing["reasons"]]
    assert all(lost), list(missing["reasons"])
    assert len(lost) <= 1


def test_device_time_is_near_the_hosts(rows):
    """Medians of passes of their own, on a CPU that others use: `test_the_stand_in...` has the exact figures."""
    ratio = (rows["device_time_median_s"] / rows["latency_median_s"]).astype(float).dropna()
    assert ((ratio > 0.2) & (ratio < 3)).all(), list(ratio)
    assert (rows["issue_time_median_s"] <= 1.5 * rows["latency_median_s"]).all()


def test_memory_is_the_ledgers(rows):
    assert (rows["peak_allocated_bytes"] > rows["weight_bytes"]).all()
    assert (rows["peak_reserved_bytes"] >= rows["peak_allocated_bytes"]).all()
    assert (rows["peak_allocated_bytes"] < 20 * 2**20).all()  # what the calibration held is not the network's


def test_energy_is_that_of_350_watts(rows):
    """The stub's counter runs by the clock: the joules of an image are watts by its seconds in a pipelined step."""
    joules = 350 / rows["throughput_img_s"]
    ratio = (rows["energy_j_per_img"] / joules).astype(float)
    assert ((ratio > 0.2) & (ratio < 5)).all(), list(ratio)


def test_compiling_is_told_of_compiled_cells_alone(rows):
    graphs = rows["compile_mode"] == "reduce-overhead"
    assert 0 < sum(graphs) < len(rows)
    assert (rows[graphs]["cuda_graph_launches"] >= 1).all()
    assert (rows[graphs]["graph_breaks"] == 0).all()
    # The first step and the second, which would record the graphs; warm is by a process that never had the card before.
    assert (rows[graphs]["compile_cold_s"] > rows[graphs]["first_call_s"]).all()
    assert (rows[graphs]["compile_warm_s"] > 0).all()
    assert rows[~graphs]["cuda_graph_launches"].isna().all()
    assert reasons_for(rows[~graphs], "compile_cold_s") == {"not_compiled"}


def test_numerics_are_judged_beside_fp32(rows):
    amp = rows[(rows["precision"] == "amp-fp16") & (rows["phase"] == "inference")]
    assert len(amp) == 1
    assert ((amp["output_rel_error"] > 0) & (amp["output_rel_error"] < 0.05)).all()
    assert reasons_for(rows[rows["phase"] == "training"], "output_rel_error") == {"inference_only"}


def test_the_state_is_read_back_on_the_device(rows):
    for precision, applied in zip(rows["precision"], map(json.loads, rows["applied"]), strict=True):
        assert applied["allocator"] == "native"
        assert applied["autocast_dtype"] == ("float16" if precision == "amp-fp16" else None)


def test_the_report_has_the_card(run):
    report = (run / "report.md").read_text()
    assert "NVIDIA H100 80GB HBM3" in report
    assert (run / "report.html").exists()


TRUTHS = """
import json, time, torch
def event():
    one = torch.cuda.Event(enable_timing=True)
    one.record()
    return one
now = time.perf_counter
torch.cuda._sleep(100_000_000)
before, begun, after = now(), event(), now()
while now() < after + 0.01: pass
late, ended, over = now(), event(), now()
behind = not ended.query()
ended.synchronize()
device_s = begun.elapsed_time(ended) / 1e3
kept = torch.ones(1000, 1000, device="cuda")
held = torch.cuda.memory_allocated()
torch.cuda.reset_peak_memory_stats()
(kept + 1) * 2
print(json.dumps([behind, late - after, device_s, over - before, held, torch.cuda.max_memory_allocated() - held]))
"""


def test_the_stand_in_has_a_truth_of_its_own(card):
    """The card runs behind its host, and slower than what launches on it; its memory is what tensors take."""
    done = subprocess.run([sys.executable, "-c", TRUTHS], env=card, capture_output=True, text=True, timeout=60)
    behind, least_s, device_s, most_s, held, more = json.loads(done.stdout.splitlines()[-1])
    assert behind
    assert SLOWNESS * least_s <= device_s <= SLOWNESS * most_s
    assert held == pytest.approx(4e6, rel=1e-3)
    assert more == pytest.approx(8e6, rel=1e-3)
