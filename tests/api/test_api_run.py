"""`archbench.run` from a script: what is passed is measured in a process of its own, and a mistake is one exception."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from api_networks import PARAMS, Remembers, TinyNet, build, dies

import archbench
from archbench.cli import main

MEASURED = {"metrics": ["static", "memory", "numerics"]}
QUICK: dict[str, Any] = {"device": "cpu", "progress": False, "metrics": "static", "input_size": 32}


@pytest.fixture(autouse=True)
def _own_place(tmp_path, monkeypatch):
    """Runs go below the test's directory; the device's lock too, so that tests beside this one need not wait for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def every_way():
    """Every way to pass a network, made anew each time."""
    width = 2
    named = {"name": build, "options": {"width": 2}}
    return [Remembers(0.25), TinyNet, build, lambda: TinyNet(width), dies, "lenet5", named]


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """One run of them, measured once for all tests that look at it."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("run")
        patch.chdir(place)
        patch.setattr("tempfile.tempdir", str(place))
        return archbench.run(every_way(), **{**QUICK, **MEASURED, "out": place / "run"})


def test_every_network_is_a_row_under_a_name_that_says_what_it_is(a_run):
    rows = {(row.architecture.partition("#")[0], "width=2" in row.variant): row for row in a_run.rows}
    lenet5 = rows.pop(("lenet5", False))
    assert (lenet5.status, lenet5.source) == ("ok", "archbench")
    assert {name: (row.status, row.params) for name, row in rows.items()} == {
        ("Remembers", False): ("ok", PARAMS[2]),
        ("TinyNet", False): ("ok", PARAMS[2]),
        ("build", False): ("ok", PARAMS[5]),
        ("build", True): ("ok", PARAMS[2]),
        ("lambda", False): ("ok", PARAMS[2]),
        ("dies", False): ("crashed", None),
    }
    assert {row.source for row in rows.values()} == {"user code"}
    assert "exited with code 7" in rows["dies", False].error_message
    assert a_run.statuses == {"ok": 6, "crashed": 1}


def test_a_run_is_a_path_a_frame_and_a_table(a_run):
    frame = a_run.frame
    assert frame.equals(archbench.load(a_run.path))
    assert list(frame["cell_id"]) == [row.cell_id for row in a_run.rows]
    lines = repr(a_run).splitlines()
    verdicts = ", ".join(f"{n} {word}" for word in ("ok", "suspect", "invalid") if (n := a_run.verdicts.get(word)))
    said = f"{verdicts}; 1 crashed"
    assert lines[0] == f"{a_run.path} on {a_run.environment.hardware_class}: 6 of 7 cells measured; {said}"
    assert len(lines) == 2 + len(frame)
    page = a_run._repr_html_()
    assert page.count("<tr") == 1 + len(frame)
    assert page.count("lenet5") == 1
    again = archbench.Run(a_run.path)
    assert (again.rows, repr(again)) == (a_run.rows, repr(a_run))


def test_a_second_call_resumes_and_measures_nothing_twice(a_run):
    def stored_rows():
        return {name: (a_run.path / name).stat().st_mtime_ns for name in ("results.parquet", "environment.json")}

    stored = stored_rows()
    given = {**QUICK, **MEASURED, "out": a_run.path}
    again = archbench.run(every_way(), **given)
    assert again.rows == a_run.rows
    assert stored_rows() == stored  # the report and its summary are written anew
    with pytest.raises(archbench.UsageError, match="holds a run of 'quick' of other content"):
        archbench.run([Remembers(0.5), *every_way()[1:]], **given)


def test_names_follow_content():
    from archbench.catalog.user_code import pack

    three, five = 3, 5

    def factory(width):
        return lambda: TinyNet(width)

    assert pack(factory(three)).name == pack(factory(three)).name != pack(factory(five)).name
    assert pack(Remembers(1.0)).name == pack(Remembers(1.0)).name != pack(Remembers(2.0)).name
    assert pack(TinyNet).name.startswith("TinyNet#")
    assert pack(build).name.startswith("build#")
    with pytest.raises(archbench.UsageError, match="twice; keep one of them"):
        archbench.run([TinyNet, TinyNet], **QUICK)


def script(tmp_path, body, *, seed="0", **options):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(body))
    return subprocess.Popen(
        [sys.executable, str(path)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONHASHSEED": seed},
        **options,
    )


NAMES = """\
    import torch
    from torch import nn
    from archbench.catalog.user_code import pack

    GROUPS = {{"a", "b", "c", "d"}}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, {width})
            for name in ("one", "two", "three"):
                self.register_buffer(name, torch.ones(2), persistent=False)

        def forward(self, x):
            return self.layer(x) if "a" in {{"a", "b", "c"}} else super().forward(x)

    def make():
        return Net()

    torch.manual_seed(0)
    print([pack(one).name for one in (Net(), Net, make, lambda: make())])
"""


@pytest.mark.slow
def test_a_name_is_the_same_in_another_session_and_another_line(tmp_path):
    said = []
    for number, (shift, width) in enumerate([("", 2), ("#\n" * 9, 2), ("", 4)]):
        place = tmp_path / str(number)
        place.mkdir()
        out, err = script(place, shift + textwrap.dedent(NAMES.format(width=width)), seed=str(number)).communicate(
            timeout=100
        )
        assert out, err
        said.append(out)
    assert said[0] == said[1]
    assert said[0] != said[2]


MAIN = """\
    import archbench
    from torch import nn

    class Local(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

    run = archbench.run(
        [Local, lambda: Local()], input_size=32, device="cpu", metrics="static", progress=False, out="run"
    )
    print([(row.status, row.params) for row in run.rows])
"""


@pytest.mark.slow
def test_a_script_needs_no_main_guard(tmp_path):
    out, err = script(tmp_path, MAIN).communicate(timeout=100)
    assert out.splitlines() == ["[('ok', 30730), ('ok', 30730)]"], err
    lines = [line for line in err.splitlines() if "FitnessWarning" not in line and "archbench.run(" not in line]
    assert not lines


INTERRUPTED = """\
    import archbench
    from pathlib import Path

    def sleeps():
        import time
        time.sleep(60)

    try:
        archbench.run(["lenet5", sleeps], device="cpu", metrics="static", out="run", progress=False)
    except KeyboardInterrupt as stopped:
        print(stopped, [row.architecture.partition("#")[0] for row in archbench.Run(stopped.path).rows])
"""


@pytest.mark.slow
def test_what_is_finished_outlives_ctrl_c(tmp_path):
    process = script(tmp_path, INTERRUPTED)
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("run/cells/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out.splitlines() == ["interrupted; the same command resumes run ['lenet5']"], err
    assert (tmp_path / "run" / "report.md").exists()


MISTAKES: list[tuple[list[str], dict[str, Any], tuple[str, ...]]] = [
    (["missing.yaml"], {}, ()),
    (["resnet5O"], {}, ()),
    (["resnet50"], {"batch_size": 0}, ("--batch-size", "0")),
    (["resnet50"], {"batch_size": 1.5}, ("--batch-size", "1.5")),
    (["resnet50"], {"batch_size": [8, 8]}, ("--batch-size", "8,8")),
    (["resnet50"], {"precision": ["fp32", "amp-bf61"]}, ("--precision", "fp32,amp-bf61")),
    (["resnet50"], {"only": "vgg*"}, ("--only", "vgg*")),
    (["resnet50"], {"rounds": 0}, ("--rounds", "0")),
    (["resnet50"], {"static": True, "metrics": "latency"}, ("--static", "--metrics", "latency")),
    (["resnet50"], {"device": "cuda:17"}, ("--device", "cuda:17")),
    (["nowhere:build"], {}, ()),
    (["tiny.yaml", "resnet50"], {}, ()),
    (["tiny.yaml"], {"batch_size": 8}, ("--batch-size", "8")),
    (["resnet50"], {"out": "occupied", "static": True}, ("--out", "occupied", "--static")),
]


@pytest.mark.parametrize(("what", "given", "options"), MISTAKES)
def test_a_mistake_is_an_exception_with_the_commands_text(tmp_path, capsys, what, given, options):
    (tmp_path / "tiny.yaml").write_text("suite: tiny\narchitectures: [lenet5]\n")
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.txt").write_text("mine")
    device: dict[str, Any] = {} if "device" in given else {"device": "cpu"}
    with pytest.raises(archbench.UsageError) as raised:
        archbench.run(what, **given, **device, progress=False)
    with pytest.raises(SystemExit) as exited:
        main(["run", *what, *options, *(["--device", "cpu"] if device else [])])
    assert exited.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"archbench: {raised.value}"


def test_what_cannot_be_a_network_or_cannot_travel_is_one_line():
    import threading

    lock = threading.Lock()
    cases: list[tuple[Any, str]] = [
        (5, "5 is no network: give a name, a torch.nn.Module, or a function that makes one"),
        ([lambda: lock], "lambda cannot be sent to the process that measures: cannot pickle '_thread.lock' object"),
    ]
    for what, says in cases:
        with pytest.raises(archbench.UsageError, match=says.replace("(", r"\(")) as caught:
            archbench.run(what, **QUICK)
        assert "\n" not in str(caught.value)
    run = archbench.run({"name": TinyNet(), "num_classes": 3}, **QUICK)
    assert run.statuses == {"error": 1}
    assert "was passed as a module and has no options" in run.rows[0].error_message


def test_plan_is_what_run_would_measure():
    found = archbench.plan([TinyNet, "resnet50"], batch_size=[1, 8], precision="amp-fp16", device="cuda")
    assert found.device == "cuda"
    assert {(cell.network.name.partition("#")[0], cell.batch_size, cell.precision) for cell in found.cells} == {
        (name, batch, "amp-fp16") for name in ("TinyNet", "resnet50") for batch in (1, 8)
    }


def test_a_passed_network_cannot_be_named_elsewhere(a_run, capsys):
    name = a_run.rows[0].architecture
    with pytest.raises(archbench.UsageError, match="only the Python code that has it can pass it again"):
        archbench.show(name)
    again = json.loads(Path(a_run.path, "suite.json").read_text())
    assert any("#" in network["name"] for network in again["architectures"])


def test_the_reports_python_for_measuring_again_means_the_same_run(tmp_path, monkeypatch):
    """Run as it stands there, with the objects under the names that it gives them: it finds the run, and resumes it."""
    monkeypatch.chdir(tmp_path)
    tiny, made = TinyNet(2), lambda: TinyNet(5)
    networks: list[Any] = [tiny, {"name": made}, TinyNet(5), {"name": "lenet5", "num_classes": 7}]
    run = archbench.run(networks, batch_size=[1, 2], metrics="static", device="cpu", progress=False)
    assert run.statuses == {"ok": 8}
    code = run.path.joinpath("report.md").read_text().partition("```python\n")[2].partition("```")[0]
    names = {"TinyNet": tiny, "lambda_": made, "TinyNet2": networks[2]}
    found: dict[str, Any] = {}
    exec(code.replace("archbench.run(", "found['run'] = archbench.run("), {**names, "found": found})
    assert found["run"].path.resolve() == run.path.resolve()
    assert found["run"].rows == run.rows


@pytest.mark.parametrize(
    ("budget", "metrics", "text"),
    [
        ("5", "latency", "--budget '5': is no time; write 90s, 10m or 2h"),
        ("1m", "static", "--budget: suite quick times nothing (its metrics are static)"),
        ("1s", "latency", "--budget: not one cell fits into 1 s; the shortest takes about"),
    ],
)
def test_a_budget_that_nothing_can_be_done_with_is_refused(budget, metrics, text):
    with pytest.raises(archbench.UsageError) as raised:
        archbench.run("lenet5", **{**QUICK, "metrics": metrics}, budget=budget, force=True)
    assert str(raised.value).startswith(text)
    assert not Path("results").exists()  # a run that is refused leaves nothing behind


@pytest.mark.slow
def test_a_cell_that_takes_far_longer_than_expected_does_not_outlast_the_budget(capfd, tmp_path, monkeypatch):
    """Its network sleeps, of which no prediction knows."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sleepy.py").write_text(
        "import time, torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(3 * 32 * 32, 10)\n"
        "    def forward(self, x):\n"
        "        time.sleep(4.0)\n"
        "        return self.layer(x.flatten(1))\n"
        "def net(num_classes=10):\n"
        "    return Net()\n"
    )
    asked = {**QUICK, "metrics": "latency", "batch_size": [1, 2], "force": True, "progress": None}
    begun = time.monotonic()
    run = archbench.run(["lenet5", "sleepy:net"], **asked, budget="24s", allow_code=True)
    assert time.monotonic() - begun < 24 * 1.05
    assert {row.architecture for row in run.rows} == {"lenet5"}
    told = capfd.readouterr().err
    assert "archbench: sleepy:net" in told
    assert "was given up: it takes longer than expected" in told
    assert (run.path / "report.md").exists()


@pytest.mark.slow
def test_a_budget_ends_on_time_and_a_later_call_continues(capfd):
    asked = {**QUICK, "metrics": "latency", "batch_size": [2**n for n in range(10)], "force": True, "progress": None}
    begun = time.monotonic()
    run = archbench.run(["lenet5", "resnet20_cifar"], **asked, budget="20s")
    assert time.monotonic() - begun < 20 * 1.05
    assert {row.architecture for row in run.rows} == {"lenet5", "resnet20_cifar"}
    assert "the budget left out" in capfd.readouterr().err
    first = len(run.rows)
    again = archbench.run(["lenet5", "resnet20_cifar"], **asked, budget="20s")
    assert again.path == run.path
    assert len(again.rows) > first
