"""The real NVML binding, driven by a stand-in for the driver's library: every way in which a GPU can be mute."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("libnvidia_ml_stub.c")
COMPILER = shutil.which("gcc") or shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="needs a C compiler on Linux")

Ask = Callable[..., Any]

READ_TWICE = """
from archbench.device import between, open_probe
probe = open_probe("cuda:0", ours=OURS)
first, second = probe.read(), probe.read()
answer = {"first": first, "second": second, "health": between(first, second, energy_window_s=0.0)}
"""


SERVER = """
import ctypes, msgspec, os, sys
stub = ctypes.CDLL("libnvidia-ml.so.1")
for line in sys.stdin:
    request = msgspec.json.decode(line)
    for name in [name for name in os.environ if name.startswith(("CUDA_", "STUB_"))]:
        del os.environ[name]
    os.environ.update(request["script"])
    stub.stub_reset()
    names = {"OURS": tuple(request["ours"])}
    exec(request["code"], names)
    print(msgspec.json.encode(names["answer"]).decode(), flush=True)
"""


def serve(folder: Path, *flags: str) -> Iterator[Ask]:
    """Build the stand-in, start a Python that finds it for the driver's library, and hand over a way to run code there.

    What the code leaves in `answer` comes back; keywords are the stand-in's environment.
    """
    command = [str(COMPILER), "-shared", "-fPIC", *flags, "-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE)]
    subprocess.run(command, check=True, timeout=60)
    python = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert python.stdin is not None
    assert python.stdout is not None
    requests, replies = python.stdin, python.stdout

    def ask(code: str, ours: tuple[int, ...] = (), **script: object) -> Any:
        request = {"code": code, "ours": ours, "script": {name: str(value) for name, value in script.items()}}
        requests.write(json.dumps(request) + "\n")
        requests.flush()
        reply = replies.readline()
        assert reply, "the other Python died: its traceback is in the captured stderr"
        return json.loads(reply)

    with python:
        yield ask
        requests.close()


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    yield from serve(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def ask_old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    yield from serve(tmp_path_factory.mktemp("nvml_old"), "-DOLD_DRIVER")


def test_a_healthy_gpu(ask: Ask) -> None:
    answer = ask(READ_TWICE, STUB_ENERGY="1000,3000", STUB_REASONS=1)
    first, health = answer["first"], answer["health"]
    assert first["sm_clock_mhz"] == 1980
    assert first["power_w"] == 350.5
    assert first["energy_mj"] == 1000
    assert first["foreign"] == []
    assert first["missing"] == {}
    assert first["slowdowns"]["thermal"] == 0
    assert first["slowdowns"]["power_brake"] is None  # this stub does not count it: never 0
    assert health["energy_j"] == 2.0
    assert (health["throttled"], health["power_capped"], health["foreign"], health["lost"]) == (False,) * 4
    assert health["missing"] == {}


def test_what_is_unsupported_or_forbidden_is_null_with_its_reason(ask: Ask) -> None:
    answer = ask(
        READ_TWICE,
        STUB_FAIL="nvmlDeviceGetTotalEnergyConsumption=3,nvmlDeviceGetPowerUsage=4,"
        "nvmlDeviceGetCurrentClocksEventReasons=999,nvmlDeviceGetFieldValues=3",
    )
    first, health = answer["first"], answer["health"]
    assert first["energy_mj"] is None
    assert first["power_w"] is None
    assert first["missing"] == {
        "energy_mj": "not_on_device",
        "power_w": "no_permission",
        "event_reasons": "monitor_error",
        "slowdowns": "not_on_device",
    }
    assert health["energy_j"] is None
    assert health["mean_power_w"] is None
    assert health["throttled"] is None
    assert health["sm_clock_mhz"] == 1980
    assert health["missing"]["energy_j"] == "not_on_device"
    assert health["missing"]["mean_power_w"] == "no_permission"
    assert health["missing"]["throttled"] == "monitor_error"


def test_a_gpu_that_falls_off_the_bus(ask: Ask) -> None:
    answer = ask(READ_TWICE, STUB_LOST_AFTER=1)
    assert answer["first"]["sm_clock_mhz"] == 1980
    assert set(answer["second"]["missing"].values()) == {"device_lost"}
    assert answer["second"]["sm_clock_mhz"] is None
    assert answer["health"]["lost"] is True
    assert answer["health"]["energy_j"] is None


def test_a_counter_that_goes_backwards(ask: Ask) -> None:
    health = ask(READ_TWICE, STUB_ENERGY="5000,10")["health"]
    assert health["energy_j"] is None
    assert health["missing"] == {"energy_j": "monitor_gap"}
    assert health["mean_power_w"] == 350.5  # the power reading still stands


def test_throttling_between_the_edges_is_seen_by_its_counter(ask: Ask) -> None:
    health = ask(READ_TWICE, STUB_THERMAL_NS="7,9")["health"]
    assert health["throttled"] is True


def test_a_driver_older_than_the_calls(ask_old: Ask) -> None:
    answer = ask_old(READ_TWICE, STUB_REASONS=0x40)
    first = answer["first"]
    assert first["event_reasons"] == 0x40  # by its older name
    assert first["foreign"] == []
    assert first["missing"] == {"energy_mj": "driver_too_old", "slowdowns": "driver_too_old"}
    assert answer["health"]["throttled"] is True


def test_the_temperature_is_told_by_an_old_driver_and_its_margin_is_up_to_the_threshold(ask: Ask, ask_old: Ask) -> None:
    code = """
from archbench.device import nvml
from archbench.device.gpu_checks import _margin
import pynvml
with nvml.session():
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    answer = [*nvml.temperature(gpu), _margin(gpu, nvml.temperature(gpu)[0])]
"""
    assert ask(code) == [42, None, 45]
    assert ask_old(code) == [41, None, 90 - 41]
    assert ask(code, STUB_FAIL="nvmlDeviceGetTemperatureV=3") == [41, None, 45]  # a driver that knows and will not
    assert ask_old(code, STUB_FAIL="nvmlDeviceGetTemperature=4") == [None, "no_permission", None]


def test_what_the_binding_does_not_know_is_told_as_what_the_driver_does_not(ask: Ask) -> None:
    code = "from archbench.device import nvml\nanswer = nvml.ask('nvmlDeviceGetWhatComesNext', None)"
    assert ask(code) == [None, "driver_too_old"]


def test_nvmls_order_is_not_cudas(ask: Ask) -> None:
    code = """
from archbench.device import open_probe, resolve_device
from archbench.device.visible import uuid_of
probe = open_probe(resolve_device("cuda"))
by_torch = open_probe("cuda:0", uuid="0")
answer = [uuid_of(0), uuid_of(1), probe.read().sm_clock_mhz, by_torch.read().sm_clock_mhz]
"""
    # cuda:0 is NVML's second GPU; a UUID from torch, spelt without its prefix, goes before that.
    assert ask(code, STUB_GPUS=2, CUDA_VISIBLE_DEVICES="1") == ["GPU-1", None, 1981, 1980]
    assert ask(code, STUB_GPUS=2, CUDA_VISIBLE_DEVICES="GPU-1,GPU-0") == ["GPU-1", "GPU-0", 1981, 1980]


def test_a_slice_has_no_energy_of_its_own(ask: Ask) -> None:
    code = """
from archbench.device import collect_environment, open_probe
answer = [collect_environment("cuda:0"), open_probe("cuda:0").read()]
"""
    environment, reading = ask(code, STUB_MIG=1, CUDA_VISIBLE_DEVICES="MIG-1")
    (gpu,) = environment["gpus"]
    assert environment["hardware_class"] == gpu["name"] == "NVIDIA Stub 0 MIG 1g.5gb"
    assert (gpu["uuid"], gpu["mig_uuid"], gpu["mig_enabled"], gpu["memory_bytes"]) == ("GPU-0", "MIG-1", True, 100)
    assert reading["sm_clock_mhz"] == 1980
    assert reading["energy_mj"] is None
    assert reading["missing"] == dict.fromkeys(("power_w", "energy_mj"), "not_on_device")


def test_a_slice_known_by_the_whole_gpus_uuid_is_not_given_the_whole_gpus_energy(ask: Ask) -> None:
    code = """
from archbench.device import open_probe
answer = open_probe("cuda:0", uuid="0").read()
"""
    reading = ask(code, STUB_MIG=1, STUB_PIDS="11,12")
    assert reading["sm_clock_mhz"] == 1980
    unknown = ("power_w", "energy_mj", "foreign")
    assert [reading[field] for field in unknown] == [None] * 3
    assert reading["missing"] == dict.fromkeys(unknown, "not_on_device")


HOST_IDS = """
from unittest.mock import patch
patch.stopall()
for module in ("nvml", "gpu_checks"):
    patch(f"archbench.device.{module}.host_pids", lambda: True).start()
"""
CONTAINER = HOST_IDS.replace("True", "False")
WATCH = """
from archbench.device import between, open_probe
probe = open_probe("cuda:0", ours=OURS)
readings = [probe.read() for _ in range(3)]
answer = {
    "foreign": [reading.foreign and [one.pid for one in reading.foreign] for reading in readings],
    "judged": [between(*pair).foreign for pair in zip(readings, readings[1:])],
    "missing": between(*readings[:2]).missing,
    "own": readings[0].own_bytes,
}
"""


def test_who_computes_is_foreign_and_who_only_holds_a_context_is_not(ask: Ask) -> None:
    """An idle notebook, a parent and a helper are listed; of those who compute, one is ours and one a rival."""
    answer = ask(
        HOST_IDS + WATCH, ours=(55,), STUB_PIDS="self,parent,55,77,4711", STUB_SM="self:80;self:80;self:80,55:60;77:40"
    )
    assert answer["foreign"] == [[], [], [77]]
    assert answer["judged"] == [False, True]
    assert answer["own"] == 1 << 20


def test_parents_and_helpers_that_compute_are_not_foreign(ask: Ask) -> None:
    code = """
import os, subprocess
helper = subprocess.Popen(["sleep", "60"])
os.environ["STUB_SM"] = f"self:80;self:80,parent:70,{helper.pid}:60,{stranger}:9"
"""
    stop = "helper.kill(); helper.wait()\n"
    assert ask(f"stranger = 4000001\n{code}" + HOST_IDS + WATCH + stop)["foreign"] == [[4000001]] * 3
    assert ask("stranger = 'self'\n" + code + HOST_IDS + WATCH + stop)["foreign"] == [[]] * 3


@pytest.mark.parametrize(
    ("sm", "foreign"),
    [
        ("self:80;self:80,77:4", []),  # a desktop's compositor
        ("self:80;self:80,77:5", [77]),
        ("self:80;self:80,77:4000", []),  # no share of time: such samples have been seen
        ("self:80;self:80,77:60:-9000000", []),  # the driver's memory of somebody long gone
        ("self:80,77:60", [77]),
        (";", []),  # nobody ran anything
    ],
)
def test_samples_of_the_sms(ask: Ask, sm: str, foreign: list[int]) -> None:
    for stale in (0, 1):
        answer = ask(HOST_IDS + WATCH, STUB_SM=sm, STUB_SM_STALE=stale)
        assert answer["foreign"] == [foreign] * 3
        assert answer["missing"] == {"energy_j": "too_short"}


@pytest.mark.parametrize(
    ("ours", "sm", "foreign"),
    [
        ((), "900:80", []),  # we, by an id that only the host knows
        ((), "900:80,901:20", [901]),  # one too many
        ((55,), "900:80,901:20", []),  # the rival of a duel
        ((), "self:80,901:20", [901]),  # ids agree after all
    ],
)
def test_in_a_container_ids_may_be_the_hosts(ask: Ask, ours: tuple[int, ...], sm: str, foreign: list[int]) -> None:
    """Contexts are listed by our id here, and users of the SMs by the host's: some drivers do so."""
    assert ask(CONTAINER + WATCH, ours=ours, STUB_SM=sm)["foreign"] == [foreign] * 3


@pytest.mark.parametrize("script", [{"STUB_PIDS": "", "STUB_SM": ";"}, {"STUB_PIDS": "77", "STUB_SM": "77:50"}])
def test_an_nvml_that_does_not_show_us_is_not_believed(ask: Ask, script: dict[str, str]) -> None:
    answer = ask(HOST_IDS + WATCH, **script)
    assert answer["judged"] == [None, None]
    assert answer["missing"]["foreign"] == "process_unknown"


@pytest.mark.parametrize(("status", "reason"), [(3, "not_on_device"), (4, "no_permission"), (999, "monitor_error")])
def test_without_the_users_of_the_sms_a_list_of_contexts_accuses_nobody(ask: Ask, status: int, reason: str) -> None:
    fail = f"nvmlDeviceGetProcessUtilization={status}"
    answer = ask(HOST_IDS + WATCH, STUB_FAIL=fail, STUB_PIDS="self,77")
    assert (answer["judged"], answer["missing"]["foreign"]) == ([None, None], reason)
    # Nobody else holds a context: nobody else computes.
    assert ask(HOST_IDS + WATCH, STUB_FAIL=fail)["judged"] == [False, False]


def test_on_a_slice_a_neighbour_with_a_context_leaves_it_open(ask: Ask) -> None:
    answer = ask(HOST_IDS + WATCH, STUB_MIG=1, STUB_PIDS="self,77", STUB_SM="77:90")
    assert (answer["judged"], answer["missing"]["foreign"]) == ([None, None], "not_on_device")
    assert ask(HOST_IDS + WATCH, STUB_MIG=1)["judged"] == [False, False]


def test_a_slow_nvml_is_asked_seldom_and_the_host_is_watched_all_the_same(ask: Ask) -> None:
    code = """
import os, time
from archbench.device import open_probe
probe = open_probe("cuda:0")
os.environ["STUB_SLOW_MS"] = "150"
start = time.perf_counter()
readings = [probe.read() for _ in range(20)]
took_s = time.perf_counter() - start
probe._silent_until_s = 0.0  # much later
os.environ["STUB_SLOW_MS"] = "0"
answer = [took_s, readings[0], readings[-1], probe.read().missing]
"""
    took_s, first, last, later = ask(code)
    assert took_s < 1.0  # a dozen questions of 0.15 s a reading would take half a minute
    assert first["event_reasons"] == 1
    assert first["missing"]["energy_mj"] == "monitor_slow"
    assert set(last["missing"].values()) == {"monitor_slow"}
    assert last["cpu"]["own_s"] >= first["cpu"]["own_s"] > 0
    assert later == {}


def test_a_process_that_nvml_does_not_name_has_no_known_memory(ask: Ask) -> None:
    reading = ask('from archbench.device import open_probe\nanswer = open_probe("cuda:0").read()', STUB_PIDS="77")
    assert reading["own_bytes"] is None
    assert "own_bytes" not in reading["missing"]


def test_the_environment_names_the_gpu_and_is_stable(ask: Ask) -> None:
    code = """
from archbench.device import collect_environment
first, second = collect_environment("cuda:1"), collect_environment("cuda:1")
answer = [first, first.fingerprint == second.fingerprint]
"""
    environment, stable = ask(code, STUB_GPUS=2, STUB_FAIL="nvmlDeviceGetEccMode=3")
    assert stable
    assert environment["hardware_class"] == "NVIDIA Stub 1"
    assert environment["driver_version"] == "999.1"
    (gpu,) = environment["gpus"]
    assert gpu["uuid"] == "GPU-1"
    assert gpu["power_limit_w"] == 700.0
    assert gpu["compute_capability"] == "9.0"
    assert gpu["persistence"] is True
    assert gpu["ecc"] is None
    assert gpu["application_sm_clock_mhz"] is None  # the stub lacks the symbol


def test_nvml_without_permission(ask: Ask) -> None:
    code = """
from archbench.device import open_probe, preflight, resolve_device
from archbench.model.errors import UsageError
try:
    resolve_device("cuda")
except UsageError as error:
    message = str(error)
answer = [resolve_device("auto"), message, open_probe("cuda:0").read(), preflight("cuda:0")]
"""
    device, message, reading, (finding,) = ask(code, STUB_FAIL="nvmlInitWithFlags=4")
    assert device == "cpu"
    assert "may not use NVML" in message
    assert set(reading["missing"].values()) == {"no_permission"}
    assert reading["sm_clock_mhz"] is None
    assert (finding["code"], finding["severity"]) == ("nvml", "warn")  # torch may use what NVML may not watch


def test_preflight_of_a_gpu(ask: Ask) -> None:
    code = """
from archbench.device import preflight
answer = {finding.code: finding.severity for finding in preflight("cuda:0")}
"""
    assert ask(code) == {"foreign-process": "ok", "temperature": "ok"}
    quiet = {"STUB_PIDS": "self,4711", "STUB_SM": "self:90"}
    assert ask(code, **quiet) == {"foreign-process": "note", "temperature": "ok"}
    assert ask(code, **quiet, STUB_MIG=1)["foreign-process"] == "warn"  # who computes on a slice is not told
    with subprocess.Popen(["sleep", "60"]) as stranger:  # no relative of the process that is asked
        busy = quiet | {"STUB_SM": f"{stranger.pid}:60"}
        findings = ask(HOST_IDS + code, **busy, STUB_MARGIN=9, STUB_REASONS=0x80, STUB_MODE=2)
        stranger.kill()
    assert findings == {
        "foreign-process": "unfit",
        "temperature": "unfit",
        "throttled": "unfit",
        "compute-mode": "unfit",
    }
    assert ask(HOST_IDS + code, **busy)["foreign-process"] == "note"  # it has ended since
