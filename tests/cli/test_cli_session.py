"""What everything that measures begins with: a fit device, held against others, or one line that says why not."""

from __future__ import annotations

import json
import re

import pytest
from builders import make_environment, make_record, make_suite

import archbench
from archbench import session
from archbench.cli import main
from archbench.device import Finding, collect_environment
from archbench.model.cell import Cell, Group, Network
from archbench.model.errors import FitnessWarning, UnfitError, UsageError
from archbench.results import RunStore
from archbench.suite import read_suite
from archbench.suite.plan import make_plan
from archbench.worker import device_lock

HOT = Finding(code="hot", severity="unfit", what="the GPU is at 92 °C", remedy="wait")
BUSY = Finding(code="busy", severity="warn", what="others use 50 % of the cores", remedy="stop them")


@pytest.fixture
def findings(monkeypatch, tmp_path):
    found: list[Finding] = []
    monkeypatch.delenv("ARCHBENCH_FORCE")
    monkeypatch.setattr(session, "preflight", lambda device: tuple(found))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return found


def test_an_unfit_device_is_refused_unless_forced(findings):
    findings += [BUSY, HOT]
    machine = make_environment()
    refused = pytest.raises(UnfitError, match=r"^the GPU is at 92 °C; wait \(--force measures all the same\)$")
    with pytest.warns(FitnessWarning, match="others use 50 % of the cores; stop them"), refused:
        session.held(machine).__enter__()
    with pytest.warns(FitnessWarning) as warned, session.held(machine, force=True):
        pass
    assert [str(one.message) for one in warned] == [
        "others use 50 % of the cores; stop them",
        "the GPU is at 92 °C; wait",
    ]
    with session.held(machine, timed=False):  # counting needs no quiet: nothing is warned of
        pass


def test_a_device_is_held_until_the_block_ends(findings):
    machine = make_environment()
    with session.held(machine), pytest.raises(UnfitError, match="another archbench run is measuring on cpu"):
        device_lock(machine.device_key).__enter__()
    with device_lock(machine.device_key):
        pass


def test_commands_print_what_is_warned_of(findings, capsys):
    findings += [BUSY, HOT]
    for device_command in (["run", "lenet5", "--device", "cpu"], ["profile", "lenet5", "--device", "cpu"]):
        with pytest.raises(SystemExit) as caught:
            main(device_command)
        assert caught.value.code == 3
        assert capsys.readouterr().err.splitlines() == [
            "archbench: warning: others use 50 % of the cores; stop them",
            "archbench: the GPU is at 92 °C; wait (--force measures all the same)",
        ]


def test_what_is_the_users_to_mend_comes_before_what_the_machine_lacks(findings, capsys, tmp_path, monkeypatch):
    findings += [HOT]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.txt").write_text("mine")
    for out, code, says in (
        ("occupied", 2, "occupied: is not empty"),
        ("occupied/thesis.txt/run", 2, "cannot store results"),
        ("new", 3, "the GPU is at 92 °C"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["run", "lenet5", "--device", "cpu", "--out", out])
        assert caught.value.code == code
        assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()  # a refused run leaves nothing behind


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (("invalid", "invalid"), 3),
        (("invalid", "suspect"), 0),
        (("invalid", "oom"), 1),
    ],
)
def test_a_run_without_a_valid_row_exits_with_3(findings, tmp_path, monkeypatch, capsys, outcomes, code):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARCHBENCH_FORCE", raising=False)
    (tmp_path / "two.yaml").write_text("suite: two\nrounds: 1\narchitectures: lenet5\naxes: {batch_size: [1, 2]}\n")
    suite, text = read_suite("two.yaml")
    store = RunStore.create(tmp_path / "run", suite, collect_environment("cpu"), text)
    for cell, outcome in zip(make_plan(suite, "cpu").cells, outcomes, strict=True):
        how = {"status": "oom"} if outcome == "oom" else {"verdict": outcome}
        store.append(make_record(cell_id=cell.cell_id, **how))
    with pytest.raises(SystemExit) as caught:
        main(["run", "two.yaml", "--device", "cpu", "--out", "run"])
    assert (caught.value.code or 0) == code
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("archbench: every row is invalid: this machine was not fit") == (code == 3)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("gpu", "not one of auto, cpu, cuda, cuda:N; did you mean cuda?"),
        ("cuda;0", "not one of auto, cpu, cuda, cuda:N; did you mean cuda"),
        ("tpu", "not one of auto, cpu, cuda, cuda:N; did you mean cpu?"),
    ],
)
def test_a_device_that_is_none(word, says):
    with pytest.raises(UsageError, match=re.escape(says)):
        session.describe(word)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("mynet.py:Net", "names a file, not a module; did you mean mynet:Net?"),
        ("./nets/mynet.py:Net", "did you mean nets.mynet:Net?"),
        ("/home/me/mynet.py:Net", "did you mean mynet:Net, run in /home/me?"),
        ("mynet.py", "name a class or function in it, as in mynet:Net"),
        ("mynet.Net", "a network of your own is named as mynet:Net, with --allow-code"),
    ],
)
def test_how_to_name_ones_own_network(word, says):
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        archbench.plan(word, device="cpu")
    assert str(caught.value).count("\n") == 0


def test_a_task_is_the_suites(findings):
    suite = make_suite(protocol={"turns": 7}, percentiles=(95,), seed=3, metrics=("static", "latency"))
    group = Group(cells=(Cell(network=Network(name="resnet50"), batch_size=1),), visit=2)
    tasks = session.Tasks(suite, "r", calibrate=True)
    task = tasks.of(group, make_environment(), 4)
    assert (task.metrics, task.percentiles, task.seed, task.calibrate) == (suite.metrics, (95,), 3, True)
    assert (task.context.round, task.context.visit, task.context.run_id) == (4, 2, "r")
    assert task.protocol.turns == 7


def test_a_plan_is_of_networks_too(capsys):
    words = "plan lenet5 --inputs 1x40x40 --batch-size 1,4 --phase training --loss mean-square --device cpu --json"
    with pytest.raises(SystemExit):
        main(words.split())
    (group,) = json.loads(capsys.readouterr().out)["rounds"][0]
    assert [cell.partition("@")[0] for cell in group["cells"]] == 2 * ["lenet5[inputs=1x40x40,loss=mean-square]"]
    said = {"inputs": "1x40x40", "loss": "mean-square"}
    plan = archbench.plan({"name": "lenet5", **said}, batch_size=[1, 4], phase="training", device="cpu")
    assert [cell.cell_id for cell in plan.cells] == group["cells"]
