"""`archbench plan` from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from builders import make_environment, make_record
from msgspec import structs
from typer.testing import CliRunner, Result

import archbench
from archbench.cli import app, main
from archbench.device import collect_environment
from archbench.results import RunStore
from archbench.suite import load_suite
from archbench.suite.duration import PHASES
from archbench.suite.plan import make_plan

SUITE = """
suite: small
description: Which of two?
architectures: [resnet18, {name: densenet121, options: {memory_efficient: true}}]
axes: {batch_size: [1, 8], phase: [inference, training]}
settings:
  fp32: {}
  tf32: {precision: tf32}
  graphs: {compile_mode: reduce-overhead, only: {phase: inference, batch_size: 1}}
exclude: {phase: training, batch_size: 1}
twin: resnet18
rounds: 2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SUITE)
    return path


def plan(*words: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, words)])


def test_text(file: Path) -> None:
    result = plan(file, "--device", "cuda:0")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "small on cuda: 14 cells of 2 networks in 6 groups, 2 rounds, seed 0",
        "Which of two?",
        "twin: resnet18 (inference, fp32) is measured first, in between and last in each round",
        "about 4 min, by constants for one H100 80 GB",
        "",
        "cells (inference/training)          fp32  tf32  graphs",
        "resnet18                             2/1   2/1     1/-",
        "densenet121[memory_efficient=true]   2/1   2/1     1/-",
    ]


def test_skips_are_counted_by_reason(file: Path) -> None:
    lines = plan(file, "--device", "cpu").stdout.splitlines()
    assert lines[0].startswith("small on cpu: 6 cells of 2 networks in 4 groups")
    assert "skipped: 6 cells: TF32 is a number format of NVIDIA GPUs; on a CPU this would be fp32" in lines
    assert any(line.startswith("skipped: 2 cells: reduce-overhead means CUDA graphs") for line in lines)
    assert not any("graphs" in line for line in lines[-3:])


def test_json_has_the_whole_order(file: Path) -> None:
    shown = json.loads(plan(file, "--device", "cpu", "--rounds", "3", "--only", "resnet18", "--json").stdout)
    assert (shown["suite"], shown["device"], shown["seed"], shown["twin"]) == ("small", "cpu", 0, "resnet18")
    assert (shown["cells"], shown["groups"], len(shown["rounds"])) == (3, 2, 3)
    assert [group["visit"] for group in shown["rounds"][0]] == [0, 1, 0, 2]
    assert {group["cells"][0].partition("@")[0] for groups in shown["rounds"] for group in groups} == {"resnet18"}
    assert len(shown["skipped"]) == 4
    assert all(skip["reason"] and skip["cell_id"].startswith("resnet18@") for skip in shown["skipped"])


def test_the_expected_duration_by_phase(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where nothing is stored to learn from
    shown = json.loads(plan(file, "--device", "cuda", "--json").stdout)
    predicted = shown["predicted_s"]
    assert list(predicted) == [*PHASES, "total"]
    assert predicted["total"] == pytest.approx(sum(predicted[phase] for phase in PHASES), abs=1.0)
    lines = plan(file, "--device", "cuda", "--predict").stdout.splitlines()
    table = dict(line.rsplit(maxsplit=1) for line in lines[lines.index("") + 1 :] if line[-1:].isdigit())
    for phase in ("compile cold", "latency", "start"):
        assert float(table[phase]) == pytest.approx(predicted[phase], abs=0.51)
    assert any(line.startswith("about ") and line.endswith("constants for one H100 80 GB") for line in lines)
    # From Python, too.
    planned = archbench.plan(file, device="cuda")
    assert planned.predicted_s == pytest.approx(predicted["total"])
    assert planned.predicted_from == shown["predicted_from"] == "constants for one H100 80 GB"
    named = json.loads(plan("lenet5", "--batch-size", "1,8", "--device", "cuda", "--json").stdout)
    assert named["cells"] == len(archbench.plan("lenet5", batch_size=[1, 8], device="cuda").cells) == 2
    one = archbench.plan(file, device="cuda", only="resnet18", rounds=1)
    assert one.predicted_s is not None
    assert one.predicted_s < predicted["total"]


def test_stored_runs_of_this_machine_go_before_constants(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load_suite(file)
    environment = collect_environment("cpu")
    store = RunStore.create(tmp_path / "results" / "small" / "20260101T000000Z-x", loaded, environment, SUITE)
    for cell in make_plan(loaded, "cpu").cells:
        store.append(
            structs.replace(
                make_record(), cell_id=cell.cell_id, device="cpu", status="ok", latency_median_s=0.5, duration_s=100.0
            )
        )
    broken = tmp_path / "results" / "small" / "20260102T000000Z-y"
    broken.mkdir()
    (broken / "environment.json").write_text("{")
    shown = json.loads(plan(file, "--device", "cpu", "--json").stdout)
    assert shown["predicted_from"] == "6 stored rows of this hardware class"
    visits = sum(len(group["cells"]) for groups in shown["rounds"] for group in groups)
    assert shown["predicted_s"]["total"] == pytest.approx(100.0 * visits, rel=0.25)
    # Another machine's rows say nothing of this one.
    (store.path / "environment.json").write_bytes(
        msgspec.json.encode(structs.replace(environment, hardware_class="another"))
    )
    assert "constants" in json.loads(plan(file, "--device", "cpu", "--json").stdout)["predicted_from"]


def test_without_settings_the_toggles_name_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "suite: s\narchitectures: [vgg16, alexnet]\n"
        "axes: {precision: [bf16, fp32], memory_format: [channels_last, contiguous], input_size: [96, 224]}\n"
    )
    assert plan(path, "--device", "cpu").stdout.splitlines()[-5:] == [
        "cells (inference)       fp32  fp32, channels_last  bf16  bf16, channels_last",
        "vgg16                      1                    1     1                    1",
        "vgg16[input_size=96]       1                    1     1                    1",
        "alexnet                    1                    1     1                    1",
        "alexnet[input_size=96]     1                    1     1                    1",
    ]


def test_mistakes_are_one_line_and_exit_2(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in [
        (("nosuch.yaml",), "archbench: nosuch.yaml: no such file"),
        (
            (file, "--only", "resnt18"),
            "archbench: --only 'resnt18' matches no cell of the suite; did you mean resnet18",
        ),
        ((file, "--device", "gpu"), "archbench: device 'gpu' is not one of"),
        ((file, "--rounds", "0"), "archbench: --rounds 0 is out of range"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(["plan", *map(str, words)])
        shown = capsys.readouterr()
        assert (ended.value.code, shown.out) == (2, "")
        assert shown.err.startswith(message)
        assert shown.err.count("\n") == 1


def test_code_needs_leave(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("suite: s\narchitectures: 'mypkg.nets:build'\n")
    assert "--allow-code" in str(plan(path, "--device", "cpu").exception)
    assert plan(path, "--device", "cpu", "--allow-code").exit_code == 0


def test_auto_takes_the_cpu_where_there_is_no_gpu(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for device, kind in (("cuda:0", "cuda"), ("cpu", "cpu")):
        monkeypatch.setattr("archbench.session.resolve_device", {"auto": device}.get)
        monkeypatch.setattr("archbench.session.collect_environment", lambda found: make_environment(device=found))
        assert plan(file).stdout.startswith(f"small on {kind}")


def test_planning_loads_nothing_heavy(tmp_path: Path) -> None:
    suite = Path(__file__).parents[2] / "suites" / "imagenet_backbones.yaml"
    code = (
        "import sys; from archbench.cli import main\n"
        f"try: main(['plan', {str(suite)!r}])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'torchvision', 'timm', 'pandas', 'numpy', 'scipy', 'pyarrow', 'rich'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=True,
        cwd=tmp_path,
    )
    assert ended.stderr.strip() == "[]"
