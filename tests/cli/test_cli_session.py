"""What everything that measures begins with: a fit device, held against others, or one line that says why not."""

from __future__ import annotations

import pytest
from builders import make_environment, make_suite

from archbench import session
from archbench.cli import main
from archbench.device import Finding
from archbench.model.cell import Cell, Group, Network
from archbench.model.errors import FitnessWarning, UnfitError
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


def test_a_task_is_the_suites(findings):
    suite = make_suite(protocol={"turns": 7}, percentiles=(95,), seed=3, metrics=("static", "latency"))
    group = Group(cells=(Cell(network=Network(name="resnet50"), batch_size=1),), visit=2)
    task = session.task_for(suite, group, make_environment(), run_id="r", round=4, calibrate=True)
    assert (task.metrics, task.percentiles, task.seed, task.calibrate) == (suite.metrics, (95,), 3, True)
    assert (task.context.round, task.context.visit, task.context.run_id) == (4, 2, "r")
    assert task.protocol.turns == 7
