"""What else measures on a card: doctor, gate, duel, a training step's profile, the pytest plugin."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest
from quick import QUICK

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SUITE = f"""\
suite: turns
architectures: ["tiny_networks:convolution"]
axes: {{batch_size: [2], input_size: [32]}}
metrics: [static, latency, memory]
protocol: {QUICK}
"""
CELL = "tiny_networks:convolution[input_size=32]@batch_size=2"
PLUGGED = """
import torch
from torch import nn

def test_it(benchmark_network):
    benchmark_network(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), torch.zeros(2, 8))
"""
TAKES = """
import sys, torch
from archbench.catalog.build import build
from archbench.model.cell import Network
name, batch, *shape = sys.argv[1], *map(int, sys.argv[2].split("x"))
network = build(Network(name=name)).to("cuda").eval()
for count in (2, batch):  # libraries keep something of their first step
    images = torch.randn(count, *shape, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        network(images), network(images)
print(torch.cuda.max_memory_allocated())
"""
MIB = 2**20


def test_doctor_sees_the_card(archbench, tmp_path):
    done = archbench("doctor", "--device", "cuda", "--json", cwd=tmp_path)
    found = {finding["code"]: finding["severity"] for finding in json.loads(done.stdout)["findings"]}
    busy = found["load"] == "unfit"  # with whatever else runs on this CPU
    assert done.returncode == (3 if busy else 0), done.stdout + done.stderr
    assert {found[code] for code in ("gpu", "ecc", "driver", "temperature", "foreign-process")} == {"ok"}


def test_a_gate_without_a_change_finds_none(archbench, tmp_path):
    (tmp_path / "turns.yaml").write_text(SUITE)
    words = ("--aa", "--base", sys.executable, "--allow-code", "--max-time", "40s", "--out", "gate")
    done = archbench("gate", "turns.yaml", "--device", "cuda", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NVIDIA H100 80GB HBM3" in done.stdout
    assert "No regression" in done.stdout or "Nothing decided" in done.stdout  # on a CPU that others use


def test_a_duel_is_fought_on_the_card(archbench, tmp_path):
    words = (CELL, CELL.replace("=2", "=4"), "--pairs", "3", "--turns", "6", "--device", "cuda", "--allow-code")
    done = archbench("duel", *words, "--json", cwd=tmp_path)
    if "not fit for a duel now (crowded)" in done.stderr:
        pytest.skip("others use this CPU")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)


def test_a_training_step_is_profiled_with_its_memory(archbench, tmp_path):
    words = ("--batch-size", "4", "--phase", "training", "--input-size", "32", "--snapshot", "s.pickle", "--allow-code")
    done = archbench("profile", "tiny_networks:convolution", "--device", "cuda", *words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    found = document.get("profile", document)
    assert found["memory"]["measured_peak_bytes"] > 0
    assert (tmp_path / "s.pickle").exists()


def test_the_plugin_times_the_cards_own_clock(card, tmp_path):
    (tmp_path / "test_it.py").write_text(PLUGGED)
    installed = any(one.name == "archbench" for one in importlib.metadata.entry_points(group="pytest11"))
    plugins = ("-p", "no:cacheprovider", *(() if installed else ("-p", "archbench.pytest_plugin")))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "--archbench-device=cuda", "--benchmark-json=out.json"],
        env=card,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    (bench,) = document["benchmarks"]
    assert bench["extra_info"]["device"] == "cuda"
    assert bench["extra_info"]["peak_allocated_bytes"] > 0
    assert document["machine_info"]["archbench"]["cuda"]["gpu"] == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(("network", "side", "memory"), [("lenet5", 32, 32 * MIB), ("resnet20_cifar", 256, 28 * MIB)])
def test_the_edge_of_a_memory_is_where_the_card_refuses(archbench, card, tmp_path, network, side, memory):
    """Of the second network a single image: what two take, which ran before there was a limit, is not its peak."""

    def takes(batch):
        channels = 1 if network == "lenet5" else 3
        words = (sys.executable, "-c", TAKES, network, f"{batch}x{channels}x{side}x{side}")
        done = subprocess.run(words, env=card, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        return int(done.stdout)

    words = ("fits", network, "--input-size", side, "--memory", f"{memory}B", "--verify", "--device", "cuda", "--json")
    done = archbench(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    edge = json.loads(done.stdout)["edge"]
    assert takes(edge["ran"]) <= memory < takes(edge["failed"])  # weights are less than what the card gives at once
    assert edge["failed"] - edge["ran"] <= 0.01 * edge["ran"] + 1
    assert edge["peak_bytes"] == pytest.approx(takes(edge["ran"]), abs=MIB)  # but for what libraries keep
