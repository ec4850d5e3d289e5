"""`archbench run` from outside: real processes, a network of milliseconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import archbench

SUITE = """\
suite: tiny
architectures: [lenet5]
axes: {batch_size: [1, 2], phase: [inference, training]}
metrics: [static, latency, throughput, memory]
protocol: {warmup_cap_s: 0.2, max_sampling_s: 0.3, min_sampling_s: 0.1, min_throughput_s: 0.1, max_throughput_s: 0.2}
"""


def archbench_command(*arguments, cwd, **options):
    return subprocess.run(
        [sys.executable, "-m", "archbench", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=options.pop("timeout", 100),
        # A directory of its own for the device's lock: tests that run beside this one need not wait for each other.
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TMPDIR": str(cwd)},
        check=False,
        **options,
    )


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    return path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.yaml"], "missing.yaml"),
        (["resnet5O"], "resnet50"),
        (["resnet50", "--batch-size", "0"], "--batch-size"),
        (["resnet50", "--batch-size", "-4"], "--batch-size"),
        (["resnet50", "--batch-size", "1.5"], "--batch-size"),
        (["resnet50", "--batch-size", "99999999999"], "--batch-size"),
        (["resnet50", "--batch-size", "8,8"], "--batch-size"),
        (["resnet50", "--precision", "amp-bf61"], "amp-bf16"),
        (["resnet50", "--device", "cuda:17"], "cuda:17"),
        (["resnet50", "--device", "tpu"], "tpu"),
        (["resnet50", "--only", "vgg*"], "vgg*"),
        (["resnet50", "--rounds", "0"], "--rounds"),
        (["nowhere:build"], "--allow-code"),
        ([",".join(["resnet18"] * 40)], "the text has 359 characters"),  # no file name may be so long
        (["tiny.yaml", "--batch-size", "8"], "--only"),
        (["tiny.yaml", "resnet50"], "one suite"),
        (["resnet50", "--static", "--metrics", "latency"], "--metrics"),
        (["tiny.yaml", "--out", "occupied"], "not empty"),
        (["tiny.yaml", "--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, command, suite, arguments, says):
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.txt").write_text("mine")
    done = command("run", *arguments)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if "warning:" not in line]
    assert len(lines) == 1, done.stderr
    assert says in lines[0]
    assert done.stdout == ""


@pytest.mark.slow
def test_a_suite_runs_stores_reports_and_resumes_at_once(tmp_path, suite):
    first = archbench_command("run", "tiny.yaml", "--device", "cpu", "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)
    rows = {(row["phase"], row["batch_size"]): row for row in summary["rows"] if row["round"] == 0}
    assert set(rows) == {(phase, batch) for phase in ("inference", "training") for batch in (1, 2)}
    for row in rows.values():
        assert row["status"] == "ok"
        assert row["params"] == rows["inference", 1]["params"] > 0
        assert row["latency_median_s"] > 0
        assert row["throughput_img_s"] > 0
        assert row["peak_allocated_bytes"] > row["weight_bytes"]
        assert row["device_time_median_s"] is None
        assert json.loads(row["applied"])["threads"] == 1
    again = [row for row in summary["rows"] if row["round"] == 1]  # the smallest of each group, for its times alone
    assert {(row["phase"], row["batch_size"]) for row in again} == {("inference", 1), ("training", 1)}
    for row in again:
        assert row["latency_median_s"] > 0
        assert row["peak_allocated_bytes"] is None
    frame = archbench.load(tmp_path / summary["run"])
    assert len(frame) == 6

    started = time.monotonic()
    resumed = archbench_command("run", "tiny.yaml", "--device", "cpu", "--json", cwd=tmp_path)
    assert resumed.returncode == 0
    assert json.loads(resumed.stdout)["rows"] == summary["rows"]
    assert time.monotonic() - started < 10

    other = tmp_path / "other.yaml"
    other.write_text(SUITE.replace("suite: tiny", "suite: other"))
    refused = archbench_command("run", "other.yaml", "--device", "cpu", "--out", summary["run"], cwd=tmp_path)
    assert refused.returncode == 2
    assert "tiny" in refused.stderr


def test_static_figures_need_no_step_and_no_particular_machine(command, suite):
    done = command("run", "tiny.yaml", "--static", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 4
    for row in rows:
        assert (row["status"], row["hardware_class"]) == ("ok", "any")
        assert row["macs"] == 326_520
        assert row["predicted_peak_bytes"] > row["weight_bytes"]
        assert row["latency_median_s"] is row["peak_allocated_bytes"] is None
    # A run of the same suite that measures is another run.
    again = command("run", "tiny.yaml", "--static", "--device", "cpu", "--json")
    assert json.loads(again.stdout)["rows"] == rows
    measured = command("run", "tiny.yaml", "--device", "cpu", "--out", json.loads(done.stdout)["run"])
    assert measured.returncode == 2
    assert "other content" in measured.stderr


def test_a_gates_side_leaves_its_rows_and_no_report(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHBENCH_NO_REPORT", "1")
    words = ("run", "tiny.yaml", "--static", "--only", "@batch_size=1", "--device", "cpu", "--out", "side")
    assert archbench_command(*words, cwd=tmp_path).returncode == 0
    assert (tmp_path / "side" / "results.parquet").exists()
    assert not (tmp_path / "side" / "report.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "as_json"),
    [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGTERM, False), (signal.SIGKILL, False)],
)
def test_a_stopped_run_keeps_what_is_finished_counts_it_alike_everywhere_and_continues(tmp_path, suite, stop, as_json):
    process = subprocess.Popen(
        [
            sys.executable,
            *("-m", "archbench", "run", "tiny.yaml", "--device", "cpu", "--out", "run", "--rounds", "2"),
            *(["--json"] if as_json else []),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "run").glob("cells/*.parquet")):
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(stop)
    stdout, stderr = process.communicate(timeout=30)
    assert "Traceback" not in stderr
    assert process.returncode == (130 if stop in (signal.SIGINT, signal.SIGTERM) else -signal.SIGKILL)
    kept = set(archbench.load(tmp_path / "run")["cell_id"])
    assert 1 <= len(kept) < 4, "stopped in the first of its two rounds"

    # The console, the JSON, the report, Python and the plan say the same of it.
    extent = f"{len(kept)} of 4 planned cells measured; unfinished"
    planned = json.loads(archbench_command("plan", "tiny.yaml", "--device", "cpu", "--json", cwd=tmp_path).stdout)
    assert planned["cells"] == 4
    if as_json:
        said = json.loads(stdout)
        assert (said["extent"], said["cells_measured"], said["cells_planned"]) == (extent, len(kept), 4)
    elif stop != signal.SIGKILL:
        assert extent in stdout
        assert f"{len(kept)} of 4 planned cells measured on " in (tmp_path / "run" / "report.md").read_text()
    report = archbench_command("report", "run", "--out", "-", cwd=tmp_path)
    assert f"{len(kept)} of 4 planned cells measured on " in report.stdout
    assert "; unfinished: " in report.stdout
    assert extent in repr(archbench.Run(tmp_path / "run"))

    done = archbench_command(
        "run", "tiny.yaml", "--device", "cpu", "--out", "run", "--rounds", "2", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = document["rows"]
    assert len({(row["cell_id"], row["round"]) for row in rows}) == len(rows) == 2 * 4
    assert document["extent"] == "4 of 4 cells measured"
    assert (document["cells_measured"], document["cells_planned"]) == (4, 4)
    assert document["statuses"] == {"ok": 8}, "of rows"


@pytest.mark.slow
def test_networks_of_ones_own(tmp_path):
    (tmp_path / "mynets.py").write_text(
        "import torch\n"
        "class Broken(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc = torch.nn.Linear(3, 2)\n"
        "    def forward(self, x):\n"
        "        return self.fc(x)\n"
        "def good():\n"
        "    nn = torch.nn\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "def broken():\n"
        "    return Broken()\n"
    )
    done = archbench_command(
        "run",
        "mynets:good",
        "mynets:broken",
        *("--batch-size", "1", "--device", "cpu", "--allow-code", "--json", "--metrics", "static,latency"),
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    rows = {row["architecture"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["mynets:good"]["status"] == "ok"
    assert rows["mynets:broken"]["status"] == "error"
    assert rows["mynets:broken"]["error_message"]
    assert "Traceback" not in done.stderr


def test_light_commands_load_neither_torch_nor_pandas(tmp_path):
    commands = [["--help"], ["list"], ["show", "resnet50"], ["schema"]]
    code = (
        "import sys\nfrom archbench.cli import main\n"
        f"for words in {commands}:\n"
        "    try:\n        main(words)\n    except SystemExit:\n        pass\n"
        "    heavy = {'torch', 'pandas', 'scipy', 'timm', 'altair'} & set(sys.modules)\n"
        "    print(words, heavy or 'light', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("['")]
    assert told == [f"{words} light" for words in commands]
