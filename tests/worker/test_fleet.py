"""Several devices behind one interface: every cell one row, whoever measures it, whatever is lost meanwhile."""

from __future__ import annotations

import importlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest
from msgspec import structs
from worker_fakes import FACTS, make_environment, make_task, make_worker

from archbench.catalog.user_code import pack
from archbench.fleets import Fleet, fleets_of, local_fleets
from archbench.model.cell import Group
from archbench.model.environment import Calibration, Environment
from archbench.model.errors import UnfitError, UsageError
from archbench.model.messages import CellFinished, Event, Task
from archbench.model.record import Record, empty_record
from archbench.options import RunOptions
from archbench.worker import on_ray
from archbench.worker.fleet import LOSSES, DeviceLostError, FleetDevice, Heard, LocalDevice, Work, measured
from archbench.worker.on_ray import Holder, travelling


class Sleeping:
    """A device that sleeps a known time a cell, and is lost after so many cells."""

    def __init__(self, name: str, seconds: float = 0.0, *, lost_after: int | None = None, poison: str = "") -> None:
        self.environment = structs.replace(make_environment(), node=name)
        self.closed = False
        self._seconds, self._left, self._poison = seconds, lost_after, poison

    def measure(self, task: Task) -> Iterator[Event]:
        for cell in task.group.cells:
            if self._left == 0 or cell.network.name == self._poison:
                raise DeviceLostError(f"{self.environment.machine} is lost")
            time.sleep(self._seconds)
            self._left = None if self._left is None else self._left - 1
            yield CellFinished(record=structs.replace(empty_record(cell, task.context, FACTS), status="ok"))

    def close(self) -> None:
        self.closed = True


def group(number: int, cells: int = 2) -> Group:
    name = "lenet5" if number == 0 else f"net{number}"  # one that the catalogue knows, for the rows of the lost
    return make_task(*["ok"] * cells, name=name).group


def make(environment: Environment, work: Work, calibration: Calibration | None) -> Task:
    task = make_task("ok")
    context = structs.replace(task.context, round=work.round, visit=work.group.visit, environment=environment)
    return structs.replace(task, group=work.group, context=context)


def rows(devices: list[FleetDevice], shared: list[Work], own: tuple[Work, ...] = ()) -> list[Record]:
    return [
        e.record for e in measured(devices, shared, lambda one: own, make, SimpleQueue()) if isinstance(e, CellFinished)
    ]


def for_each(events: Iterator[Event], do: Callable[[Event], None]) -> None:
    for event in events:
        do(event)


def test_every_cell_has_one_row_and_says_where() -> None:
    work = [Work(number % 2, group(number)) for number in range(20)]
    devices = [Sleeping(name, 0.002) for name in "abc"]
    found = rows([*devices], work)
    asked = Counter((cell.cell_id, one.round) for one in work for cell in one.group.cells)
    assert Counter((row.cell_id, row.round) for row in found) == asked
    assert {row.machine for row in found} == {"a/cpu", "b/cpu", "c/cpu"}
    assert all(device.closed for device in devices)


def test_a_faster_device_measures_more() -> None:
    found = rows([Sleeping("slow", 0.03), Sleeping("fast", 0.003)], [Work(0, group(n)) for n in range(30)])
    shares = Counter(row.machine for row in found)
    assert shares["fast/cpu"] > 3 * shares["slow/cpu"]


def test_each_device_measures_its_reference_first_in_between_and_last() -> None:
    twin = tuple(Work(0, structs.replace(group(99, 1), visit=visit)) for visit in range(3))
    found = rows([Sleeping("a", 0.003), Sleeping("b", 0.003)], [Work(0, group(n, 1)) for n in range(30)], twin)
    for machine in ("a/cpu", "b/cpu"):
        mine = [row for row in found if row.machine == machine]
        places = [place for place, row in enumerate(mine) if row.architecture == "net99"]
        assert [mine[place].visit for place in places] == [0, 1, 2]
        assert (places[0], places[2]) == (0, len(mine) - 1)
        assert 3 <= places[1] <= len(mine) - 4


def test_what_a_lost_device_had_not_finished_is_measured_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    work = [Work(0, group(number)) for number in range(10)]
    found = rows([Sleeping("a", 0.01, lost_after=3), Sleeping("b", 0.01)], work)
    assert Counter(row.cell_id for row in found) == Counter(c.cell_id for one in work for c in one.group.cells)
    assert sum(row.machine == "a/cpu" for row in found) == 3
    assert {row.status for row in found} == {"ok"}
    assert "a/cpu is lost; what it had not finished is measured elsewhere" in caplog.text


def test_a_group_that_loses_every_device_is_a_failed_row_and_the_rest_is_measured() -> None:
    work = [Work(0, group(0, 1)), *(Work(0, group(number, 1)) for number in range(1, 9))]
    found = rows([Sleeping(f"d{n}", 0.01, poison="lenet5") for n in range(LOSSES + 1)], work)
    failed = [row for row in found if row.status != "ok"]
    assert [(row.architecture, row.status) for row in failed] == [("lenet5", "crashed")]
    assert "3 devices were lost over it" in str(failed[0].error_message)
    assert len(found) == 9


def test_without_a_device_left_the_run_ends_with_what_is_finished() -> None:
    found: list[Event] = []
    devices = [Sleeping("a", lost_after=2), Sleeping("b", lost_after=2)]
    events = measured(devices, [Work(0, group(number)) for number in range(9)], lambda one: (), make, SimpleQueue())
    with pytest.raises(UnfitError, match=r"no device is left: ./cpu is lost"):
        for_each(events, found.append)
    assert len(found) == 4


def test_an_error_in_a_thread_is_raised_and_lets_go_of_all() -> None:
    devices = [Sleeping("a"), Sleeping("b", 0.05)]
    devices[0].measure = lambda task: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        rows([*devices], [Work(0, group(n)) for n in range(9)])
    assert all(device.closed for device in devices)


def test_real_workers_one_a_device(tmp_path: Path) -> None:
    """Processes that are killed in the middle leave a row each, as on one device."""
    devices = []
    for name in ("a", "b"):
        device = LocalDevice(structs.replace(make_environment(), node=name), env=None, log=tmp_path / f"{name}.log")
        device._worker = make_worker(log=tmp_path / f"{name}.log")
        devices.append(device)
    acts = [("ok", "ok"), ("signal:SIGKILL", "ok"), ("ok",), ("kill-host", "ok"), ("ok", "segfault"), ("ok",)]
    work = [Work(0, make_task(*act, name=f"n{number}").group) for number, act in enumerate(acts)]
    found = rows([*devices], work)
    assert Counter(row.cell_id for row in found) == Counter(c.cell_id for one in work for c in one.group.cells)
    assert Counter(row.status for row in found) == {"ok": 7, "crashed": 3}
    assert threading.active_count() < 12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"executor": "slurm"}, "--executor slurm: there are local, ray"),
        ({"device": "cuda:0,cuda:0"}, "names a device twice"),
        ({"executor": "ray", "device": "cuda:1"}, "the cluster has its own numbers"),
        ({"executor": "ray", "static": True}, "--static measures nothing"),
        ({"address": "node:6379"}, "add --executor ray"),
        ({"resource": "card"}, "add --executor ray"),
    ],
)
def test_bad_words_are_refused(words: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        fleets_of(RunOptions(**words), suite=None, networks=())  # type: ignore[arg-type]


def test_cards_of_two_classes_are_a_fleet_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from archbench import fleets

    def describe(word: str) -> Environment:
        number = int(word[-1])
        torch = "2.11.0" if number == 4 else "2.14.0"
        environment = structs.replace(make_environment(word), node="box", torch_version=torch)
        return structs.replace(environment, hardware_class="card b" if number == 1 else "card a")

    monkeypatch.setattr(fleets, "describe", describe)
    found = local_fleets("cuda:0,cuda:1,cuda:2")
    assert [[one.device for one in fleet.environments] for fleet in found] == [["cuda:0", "cuda:2"], ["cuda:1"]]
    with pytest.raises(UsageError, match="differ in torch_version"):
        local_fleets("cuda:0,cuda:4")


def test_whoever_waits_for_a_fleet_can_end_it() -> None:
    devices: list[FleetDevice] = [Sleeping("a", 0.01), Sleeping("b", 0.01)]
    heard: SimpleQueue[Heard] = SimpleQueue()
    events = measured(devices, [Work(0, group(number)) for number in range(100)], lambda one: (), make, heard)
    next(events)
    heard.put(KeyboardInterrupt())
    found: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        for_each(events, found.append)
    assert len(found) < 100
    assert all(device.closed for device in devices)  # type: ignore[attr-defined]


def test_a_budget_is_refused_for_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    from archbench import pipeline

    monkeypatch.setattr(pipeline, "fleets_of", lambda *_: [Fleet([make_environment()])])
    with pytest.raises(UsageError, match="--budget is for one device of this machine: what to measure next is decided"):
        pipeline.prepare("lenet5", RunOptions(device="cuda:0,cuda:1", budget="1m"))


def test_a_node_without_the_labelled_images_is_left_out_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no folder .*/imagenet there; put the images on a disk of all nodes"):
        Holder("cpu", ()).hold({}, (), str(tmp_path / "imagenet"), False, True)


def test_a_node_without_the_users_module_is_left_out_with_the_reason() -> None:
    """All that it measured would be rows of failure, and it would be done before the others had begun."""
    half = {"modules/half_of_it.py": b"import the_other_half\n"}
    with pytest.raises(UsageError, match=r"cannot import half_of_it there: .*No module named 'the_other_half'"):
        Holder("cpu", ()).hold(half, ("half_of_it",), None, False, True)


def test_the_users_modules_travel_as_content_with_what_they_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mynets"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("from mynets.deep.net import make\n")
    (package / "deep" / "net.py").write_text("import torch\nfrom . import deep\nfrom blocks.basic import *\n")
    (package / "table.csv").write_bytes(b"\xff")
    (tmp_path / "single.py").write_text("import json, not_installed_here\ndef other(): ...\n")
    (tmp_path / "blocks").mkdir()  # a package without an __init__.py
    (tmp_path / "blocks" / "basic.py").write_text("import single\n")
    (tmp_path / "unasked.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    sent = travelling(["mynets.deep.net", "single"])
    inside = {"mynets/__init__.py", "mynets/deep/net.py", "mynets/table.csv", "single.py", "blocks/basic.py"}
    assert set(sent) == {f"modules/{name}" for name in inside}
    assert sent["modules/single.py"] == (tmp_path / "single.py").read_bytes()
    with pytest.raises(UsageError, match="module nowhere is not here"):
        travelling(["nowhere.net"])
    monkeypatch.setattr(on_ray, "_MODULE_BYTES", 50)
    with pytest.raises(UsageError, match="what mynets need is over 0 MiB; install it on the nodes"):
        travelling(["mynets"])


def test_modules_that_a_passed_network_was_made_of_travel_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ownblock.py").write_text("class Block: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    block = importlib.import_module("ownblock").Block
    packed = pack(lambda: block())
    assert "ownblock" in packed.modules
    assert "modules/ownblock.py" in travelling(packed.modules)
