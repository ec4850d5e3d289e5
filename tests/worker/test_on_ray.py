"""A real Ray cluster on this machine: nodes that are killed, drivers that are killed, and nothing finished is lost."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_driver import many_groups

import archbench
from archbench.model.errors import UnfitError, UsageError
from archbench.results import RunStore
from archbench.suite.plan import make_plan
from archbench.worker import on_ray
from archbench.worker.on_ray import Cluster

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HERE = Path(__file__).parent
DRIVER = str(HERE / "ray_driver.py")
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]), "RAY_DEDUP_LOGS": "0"}


class TwoClasses:
    """A head without devices, and a node each of four cards of a class."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Local

        self._cluster = Local()
        self._add(num_cpus=1)
        self.nodes = {name: self._cards(name) for name in ("h100", "a100")}
        self.extra: list[Any] = []

    def _cards(self, name: str) -> Any:
        return self._add(num_cpus=0, resources={name: 4, "card": 4}, env_vars={"CARD_CLASS": name})

    def _add(self, **resources: Any) -> Any:
        return self._cluster.add_node(
            object_store_memory=80 << 20, include_dashboard=False, dashboard_host="127.0.0.1", **resources
        )

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, name: str) -> None:
        self.extra.append(self._cards(name))

    def kill(self, node: Any) -> None:
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()


@pytest.fixture
def cluster() -> Iterator[TwoClasses]:
    made = TwoClasses()
    yield made
    made.close()


def drive(cluster: TwoClasses, place: Path, resource: str, seconds: float, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, DRIVER, cluster.address, str(place), resource, str(seconds), *words]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_eight_devices_share_64_groups_with_little_waiting(cluster: TwoClasses, tmp_path: Path) -> None:
    cluster.add("h100")
    driver = drive(cluster, tmp_path / "run", "h100", 3.0)
    out, said = driver.communicate(timeout=400)
    assert driver.returncode == 0, said
    devices, took = map(float, re.findall(r"(\d+) devices took ([\d.]+)", out)[0])
    assert devices == 8
    efficiency = 64 / devices * 3.0 / took
    print(f"efficiency {efficiency:.3f}")
    assert efficiency >= 0.90
    store = RunStore.open(tmp_path / "run")
    assert len(store.records()) == 64
    assert len(store.machines) == len({row.machine for row in store.records()}) == 8


def test_two_classes_measure_at_once_in_one_command_and_nothing_is_compared_across(
    cluster: TwoClasses, tmp_path: Path
) -> None:
    driver = drive(cluster, tmp_path / "both", "card", 1.0)
    assert driver.stderr is not None
    told = [(line, time.monotonic()) for line in driver.stderr]
    assert driver.wait() == 0, "".join(line for line, _ in told)
    rows_at = [when for line, when in told if re.match(r"(h100|a100) \[\d+/64\]", line)]
    assert len(rows_at) == 2 * 64
    efficiency = 2 * 64 / 8 * 1.0 / (rows_at[-1] - rows_at[0] + 1.0)
    print(f"efficiency {efficiency:.3f}")
    assert efficiency >= 0.85  # a second a group, as 128 of them
    planned = {cell.cell_id for cell in make_plan(many_groups(), "cuda").cells}
    for name in ("h100", "a100"):
        store = RunStore.open(tmp_path / "both" / name)
        rows = store.records()
        assert {row.cell_id for row in rows} == planned
        assert len(rows) == 64
        assert {row.hardware_class for row in rows} == {name}
        assert len(store.machines) == len({row.machine for row in rows}) == 4
    report = archbench.report([tmp_path / "both" / name for name in ("h100", "a100")])
    assert "No cell was measured in two of these runs" in report or " ms" not in report.partition("## Run A")[0]


def test_twenty_kills_lose_nothing_that_was_finished(cluster: TwoClasses, tmp_path: Path) -> None:
    place = tmp_path / "run"
    planned = {(cell.cell_id, 0, 0) for cell in make_plan(many_groups(), "cuda").cells}
    luck, kills = random.Random(7), 0
    seen: set[tuple[str, int, int]] = set()
    nodes = [cluster.nodes["h100"]]
    driver = drive(cluster, place, "h100", 1.0)
    begun = time.monotonic()
    while kills < 20:
        assert time.monotonic() - begun < 700
        time.sleep(luck.uniform(1.0, 3.0))
        now = RunStore.open(place).finished() if RunStore.is_run(place) else set()
        assert seen <= now
        seen = now
        if driver.poll() is not None:
            driver = drive(cluster, place, "h100", 1.0, *(["retry"] if seen == planned else []))
            continue
        match kills % 3:
            case 0:
                workers = [
                    p for p in psutil.process_iter(["cmdline"]) if "sleeping_worker.py" in str(p.info["cmdline"])
                ]
                if not workers:
                    continue
                victim = luck.choice(workers)
                if victim.is_running():
                    victim.kill()
            case 1:
                driver.send_signal(signal.SIGKILL)
                driver.wait()
            case _:
                cluster.kill(nodes.pop())
                cluster.add("h100")
                nodes.append(cluster.extra[-1])
        kills += 1
    for words in ((), ("retry",)):
        while driver.wait(timeout=200):
            driver = drive(cluster, place, "h100", 1.0, *words)
        driver = drive(cluster, place, "h100", 1.0, *words)
    assert driver.wait(timeout=200) == 0
    rows = RunStore.open(place).records()
    assert {(row.cell_id, row.round, row.visit) for row in rows} == planned
    assert len(rows) == len(planned)
    assert {row.status for row in rows} == {"ok"}
    assert all(row.machine for row in rows)


def test_what_the_cluster_has_not_is_refused_at_once_with_what_it_has(cluster: TwoClasses) -> None:
    begun = time.monotonic()
    with pytest.raises(UsageError, match=r"has a whole b200; it has .*a100 4.*h100 4"):
        Cluster(cluster.address, device="cuda", resource="b200")
    with pytest.raises(UsageError, match="has a whole GPU"):
        Cluster(cluster.address, device="cuda", resource=None)
    assert time.monotonic() - begun < 30


def test_devices_that_another_job_holds_are_waited_for_and_named(
    cluster: TwoClasses, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(on_ray, "FREE_S", 4.0)
    monkeypatch.setattr(on_ray, "SAID_S", 1.0)
    holder = Cluster(cluster.address, device="cuda", resource="a100")
    with pytest.raises(UnfitError, match=r"a100 of .*: no answer for 4 s; does another job hold it\?"):
        Cluster(cluster.address, device="cuda", resource="a100")
    assert "not to be had yet, held by another job or slow to start: a100 of" in caplog.text
    assert len(holder._actors) == 4


def test_another_version_on_the_nodes_is_refused(cluster: TwoClasses, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as other:
        other.setattr(on_ray, "__version__", "0.0.9")
        with pytest.raises(UnfitError, match=r"has archbench .* the driver has 0\.0\.9"):
            Cluster(cluster.address, device="cuda", resource="h100")
    monkeypatch.setattr(on_ray, "_own_code", lambda: "what is being worked on here")
    with pytest.raises(UnfitError, match="as the driver, and it is other code"):
        Cluster(cluster.address, device="cuda", resource="h100")


def test_a_full_disk_on_a_node_leaves_that_device_out(
    cluster: TwoClasses, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel's own full disk is what a device is given to write its files to."""
    worker = (str(HERE / "sleeping_worker.py"), "a100", "0")
    found = Cluster(cluster.address, device="cuda", resource="a100", arguments=worker)
    full, *others = found._actors
    found._actors = [full]
    with pytest.raises(UnfitError, match="No space left on device"):
        found.hold((), {"/dev/full": b"x"}, images=None, timed=False, force=True)
    assert "a device is left out" in caplog.text
    found._actors = others
    assert len(found.hold((), {}, images=None, timed=False, force=True)) == 3


def test_an_address_that_does_not_answer_is_refused_in_seconds() -> None:
    begun = time.monotonic()
    with pytest.raises(UnfitError, match=r"nothing answers at 127\.0\.0\.1:1"):
        Cluster("127.0.0.1:1", device="cuda", resource=None)
    assert time.monotonic() - begun < 10


def test_an_address_where_something_else_listens_is_refused_in_a_minute(tmp_path: Path) -> None:
    """In a process of its own, as Ray goes on waiting in there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        words = [sys.executable, "-m", "archbench", "run", "lenet5", "--executor", "ray", "--address", address]
        done = subprocess.run(words, cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 3
    assert f"archbench: {address} is no Ray cluster, or is not well: it says nothing for 30 s" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_suite_with_the_users_module_is_measured_on_the_cluster_and_resumed(
    cluster: TwoClasses, tmp_path: Path
) -> None:
    """The whole way: the nodes find neither the suite nor the module, nor what it imports, on a path of theirs."""
    (tmp_path / "myblocks.py").write_text("from torch import nn\ndef stem(): return nn.Conv2d(3, 8, 3, 2)\n")
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n"
        "from myblocks import stem\n"
        "def good():\n"
        "    return nn.Sequential(stem(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "suite: mine\narchitectures: ['mynets:good', lenet5]\naxes: {batch_size: [1]}\nmetrics: [latency]\n"
        "rounds: 1\ntwin: lenet5\n"
    )
    words = [sys.executable, "-m", "archbench", "run", "mine.yaml", "--allow-code", "--device", "cpu", "--out", "run"]
    words += ["--executor", "ray", "--address", cluster.address, "--force"]
    env = {**ENV, "ARCHBENCH_FORCE": "1", "NO_COLOR": "1"}
    for _ in range(2):  # the second call finds all of it measured
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    rows = RunStore.open(tmp_path / "run").records()
    assert {(row.architecture, row.visit, row.status) for row in rows} == {
        ("mynets:good", 0, "ok"),
        *(("lenet5", visit, "ok") for visit in range(3)),
    }
    assert all(row.machine and row.machine.endswith("/cpu") for row in rows)
