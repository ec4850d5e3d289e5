"""The templates for many machines: sound by their formats, and run as their schedulers would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workflow_steps import ROOT, Runner, read

from archbench.results import RunStore

SLURM = ROOT / "docs" / "ci" / "slurm.sh"
KUBERNETES = ROOT / "docs" / "ci" / "kubernetes.yaml"
MATRIX = ROOT / "docs" / "ci" / "matrix.yml"
COUNTED = """
suite: counted
architectures: [lenet5, resnet18, mobilenet_v2]
metrics: [static]
twin: lenet5
"""


def environment(**extra: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "ARCHBENCH_FORCE": "1", "NO_COLOR": "1", **extra}


def test_the_slurm_array_has_as_many_tasks_as_shards() -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    text = SLURM.read_text()
    assert "#SBATCH --array=1-16\n" in text
    assert "SHARDS=${SHARDS:-16}" in text


def test_the_kubernetes_job_has_as_many_completions_as_shards() -> None:
    (job,) = yaml.safe_load_all(KUBERNETES.read_text())
    assert (job["apiVersion"], job["kind"], job["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    given = {one["name"]: one.get("value") for one in container["env"]}
    assert int(given["SHARDS"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    subprocess.run(["bash", "-n", "-c", *container["args"]], check=True)
    mounts = {one["name"] for one in container["volumeMounts"]}
    assert mounts == {one["name"] for one in job["spec"]["template"]["spec"]["volumes"]}


def test_the_matrix_has_as_many_shards_as_it_says() -> None:
    workflow = read(MATRIX)
    shards = workflow["jobs"]["shard"]["strategy"]["matrix"]["shard"]
    assert shards == [str(number) for number in range(1, int(workflow["env"]["SHARDS"]) + 1)]


def check_merged(run: Path) -> None:
    store = RunStore.open(run)
    assert {row.architecture for row in store.records()} == {"lenet5", "resnet18", "mobilenet_v2"}
    assert [part.shard.word for part in store.parts if part.shard] == ["1/2", "2/2"]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    place = tmp_path / "counted.yaml"
    place.write_text(COUNTED)
    return place


@pytest.mark.slow
def test_the_slurm_array_measures_and_the_last_task_merges(suite: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for task in ("1", "2"):
        given = environment(SUITE=str(suite), SHARDS="2", RUNS=str(runs), SLURM_ARRAY_TASK_ID=task)
        done = subprocess.run(
            ["bash", str(SLURM)], cwd=tmp_path, env=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert (runs / "merged").exists() == (task == "2")
    check_merged(runs / "merged")


@pytest.mark.slow
def test_the_kubernetes_job_measures_and_the_last_pod_merges(suite: Path, tmp_path: Path) -> None:
    (container,) = yaml.safe_load(KUBERNETES.read_text())["spec"]["template"]["spec"]["containers"]
    runs = tmp_path / "runs"
    for index in ("1", "0"):
        given = environment(
            SUITE=str(suite), SHARDS="2", RUNS=str(runs), JOB_COMPLETION_INDEX=index, ARCHBENCH_NODE=f"node{index}"
        )
        words = [*container["command"], *container["args"]]
        done = subprocess.run(words, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (runs / "merged").exists() == (index == "0")
    check_merged(runs / "merged")
    assert set(RunStore.open(runs / "merged").machines) == {"node0/cpu", "node1/cpu"}


@pytest.mark.slow
def test_the_matrix_measures_each_shard_and_merges_them(suite: Path, tmp_path: Path) -> None:
    jobs = read(MATRIX)["jobs"]
    steps = {step["name"]: step for job in jobs.values() for step in job["steps"] if "name" in step}
    for shard in ("1", "2"):
        values = {"matrix.shard": shard, "matrix.runner": "here"}
        runner = Runner(tmp_path / f"runner{shard}", tmp_path, values, environment(SUITE=str(suite), SHARDS="2"))
        done = runner.run(steps["Measure"])
        assert done.returncode == 0, done.stderr
    done = Runner(tmp_path / "last", tmp_path, {}, environment()).run(steps["Merge"])
    assert done.returncode == 0, done.stderr
    check_merged(tmp_path / "merged")
