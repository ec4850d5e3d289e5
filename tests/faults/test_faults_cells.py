"""Cells that do to their process whatever a process can do to itself: a row each, and the neighbours are measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from commands import QUICK, run
from ill import ACTS

from archbench.results import RunStore

HARMLESS = {
    "nothing", "close the printer", "replace the printer", "ignore signals", "fork", "fork often", "start others",
    "leave threads", "print", "vanish", "change the environment", "small files", "few descriptors",
}  # fmt: skip
"""What a cell may survive: measured, or failed with a reason."""
FATAL = sorted(set(ACTS) - HARMLESS)
MACS = 4 * 27 * 111 * 111 + 4 * 5
"""Of one image of 224 pixels. Where a pass without data raises, small tensors with data are counted instead."""


def suite_of(folder: Path, at: str, acts: Iterable[str] = tuple(ACTS), **more: object) -> Path:
    networks = [{"name": "ill:make", "options": {"act": act, "at": at}} for act in acts]
    protocol = {**QUICK, "cell_deadline_s": 20}
    content = {
        "suite": f"ill-{at}",
        "architectures": [{"name": "lenet5"}, *networks, {"name": "resnet20_cifar"}],
        "axes": {"batch_size": [2]},
        "metrics": ["static", "latency"],
        "rounds": 1,
        "protocol": protocol,
        **more,
    }
    path = folder / "ill.yaml"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("at", ["build", "count", "step"])
def test_ill_behaved_cells_cost_themselves_alone(tmp_path: Path, at: str) -> None:
    done = run(
        "run", suite_of(tmp_path, at), "--device", "cpu", "--allow-code", "--out", "out", cwd=tmp_path, timeout=1700
    )
    assert done.returncode == 1
    rows = RunStore.open(tmp_path / "out").records()
    assert len(rows) == len(ACTS) + 2
    status = {row.variant.partition("act=")[2].partition(",")[0] or row.variant: row.status for row in rows}
    assert (status["lenet5"], status["resnet20_cifar"], status["nothing"]) == ("ok", "ok", "ok")
    survived = {act for act in FATAL if status[act] == "ok"}
    assert at == "count" or not survived, survived
    assert all(row.macs == MACS for row in rows if row.status == "ok" and row.variant.startswith("ill:"))
    assert all(row.error_message for row in rows if row.status != "ok")
    if at == "count":  # what ends or holds a process does so there, too
        assert not survived & {"exit", "segfault", "abort", "kill", "stop", "hang", "hang in C", "spin"}, survived
    else:
        assert status["no memory"] == status["eat memory"] == "oom"
    assert sum((tmp_path / "out" / "worker.log").stat().st_size for _ in [0]) < 128 << 20, "a gigabyte was printed"
    for name in ("report.md", "report.html"):
        assert (tmp_path / "out" / name).stat().st_size


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_compilation_that_fails_is_its_networks_own(tmp_path: Path) -> None:
    """Though several are compiled at once, and one after the other by children of one host."""
    acts = ("raise", "abort", "nothing", "exit 0")
    axes = {"batch_size": [2], "compile_mode": ["default"]}
    suite = suite_of(tmp_path, "compile", acts, axes=axes, protocol={**QUICK, "cell_deadline_s": 300})
    done = run("run", suite, "--device", "cpu", "--allow-code", "--out", "out", cwd=tmp_path, timeout=1100)
    assert done.returncode == 1
    rows = RunStore.open(tmp_path / "out").records()
    found = {
        row.variant.partition("act=")[2].partition(",")[0] or row.variant: (row.status, row.error_phase) for row in rows
    }
    for good in ("lenet5", "resnet20_cifar", "nothing"):
        assert found[good] == ("ok", None)
    assert found["raise"] == ("error", "compile")
    assert found["abort"] == found["exit 0"] == ("crashed", "compile")
