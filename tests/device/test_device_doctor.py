"""Findings: what each judge says of machines that are fit and of ones that are not."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import math
import shutil
import sysconfig
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from archbench.cli.looking import doctor_command as command
from archbench.device import doctor, nvml, preflight
from archbench.device import gpu_checks as gpu
from archbench.device.cuda import peak_flops, peaks
from archbench.device.doctor import Load
from archbench.device.gpu_checks import GpuState
from archbench.device.health import Finding, GpuProcess, ok, unfit, warn, worst
from archbench.device.visible import Visible
from archbench.model.environment import Environment, Gpu
from archbench.model.errors import UnfitError, UsageError

GIB = 2**30
QUIET = GpuState(
    temperature_c=40,
    margin_c=50,
    contexts=(),
    users=(),
    memory_used_bytes=0,
    utilisation=0.0,
    event_reasons=1,
    compute_mode=0,
)
IDLE = (GpuProcess(pid=4711, memory_bytes=2**20),)
BUSY = (GpuProcess(pid=4711, sm_share=0.6),)


def severities(findings: Iterable[Finding]) -> dict[str, str]:
    return {finding.code: finding.severity for finding in findings}


def machine(**fields: Any) -> Environment:
    known: dict[str, Any] = {
        "hardware_class": "x",
        "device": "cpu",
        "cpu_model": "AMD EPYC 7B13",
        "cpu_count": 2,
        "memory_bytes": 64 * GIB,
        "os": "x",
        "kernel": "x",
        "governor": "performance",
        "python_version": "3.12.1",
        "torch_version": "2.15.0+cu132",
        "torchvision_version": "0.29.2",
        "cuda_version": "13.2",
        "archbench_version": "0",
    }
    return Environment(**(known | fields))


@pytest.mark.parametrize(
    ("load", "severity"),
    [
        (Load(others=0.02, stalled=0.01), "ok"),
        (Load(others=0.51, stalled=0.0), "unfit"),
        (Load(others=0.5, stalled=0.0), "warn"),
        (Load(others=0.2, stalled=0.9), "warn"),
        (Load(others=0.0, stalled=0.4), "warn"),
        (Load(others=0.01), "ok"),
        (Load(others=None), "note"),
    ],
)
def test_load(load: Load, severity: str) -> None:
    assert doctor.judge_load(load).severity == severity


def test_what_has_just_ended_refuses_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_AT_IMPORT", replace(doctor._look(), at_s=-math.inf))
    for looks, severity in (((0.9, 0.05), "ok"), ((0.9, 0.8), "unfit"), ((0.4,), "warn")):
        seen = iter(Load(others=share) for share in looks)
        monkeypatch.setattr(doctor, "read_load", lambda window_s, seen=seen: next(seen))
        assert doctor.judge_load(doctor.settled_load(0.25, 1.0)).severity == severity
        assert next(seen, None) is None


def test_a_command_that_has_just_begun_has_its_window_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_AT_IMPORT", doctor._look())
    time.sleep(0.3)
    begun = time.perf_counter()
    monkeypatch.setattr(doctor, "CROWDED_SHARE", 1.0)  # else a busy machine is looked at once more
    load = doctor.settled_load(0.25, 1.0)
    assert time.perf_counter() - begun < 0.2
    assert load.others is None or 0.0 <= load.others <= 1.0


def test_load_of_this_machine() -> None:
    load = doctor.read_load(0.05)
    assert load.others is None or 0.0 <= load.others <= 1.0


def test_pressure_is_read(tmp_path: Path) -> None:
    (tmp_path / "proc/pressure").mkdir(parents=True)
    (tmp_path / "proc/pressure/cpu").write_text("some avg10=12.50 avg60=1.52 avg300=0.66 total=9\nfull avg10=99.0")
    assert doctor.read_load(0.0, tmp_path).stalled == 0.125


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def memory(available: int = 60 * GIB, swapped: int = 0) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
        monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(used=swapped, total=8 * GIB))

    memory()
    return memory


@pytest.mark.usefixtures("roomy")
def test_a_good_host(tmp_path: Path) -> None:
    assert severities(doctor.host_findings(machine(), tmp_path)) == {"cores": "ok", "governor": "ok", "memory": "ok"}


def test_a_bad_host(tmp_path: Path, roomy: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    roomy(available=GIB, swapped=4 * GIB)
    monkeypatch.setattr(doctor, "allowed_cores", lambda: frozenset(range(8)))
    for name, text in {
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/cpu.max": "350000 100000",
        "sys/devices/system/node/online": "0-1",
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    bad = machine(
        governor="powersave", turbo=True, smt=True, hypervisor="KVM", container="docker", transparent_hugepages="never"
    )
    findings = list(doctor.host_findings(bad, tmp_path))
    assert severities(findings) == {
        "cores": "warn",
        "governor": "warn",
        "turbo": "note",
        "smt": "note",
        "virtual": "note",
        "container": "note",
        "numa": "note",
        "memory": "warn",
        "swap": "warn",
        "hugepages": "note",
        "clock-source": "warn",
    }
    assert "3.5 cores' worth of time over 8 cores" in findings[0].what
    assert all(finding.remedy for finding in findings if finding.severity in ("warn", "unfit"))


@pytest.mark.parametrize(
    ("fields", "code", "severity", "words"),
    [
        ({}, "torch", "ok", "torch 2.15.0"),
        ({"torch_version": "2.11.0"}, "torch", "ok", "2.11"),
        ({"torch_version": "2.9.1"}, "torch", "unfit", "too old"),
        ({"torch_version": None}, "torch", "unfit", "not installed"),
        ({"device": "cuda:0", "cuda_version": None}, "torch", "unfit", "without CUDA"),
        ({"cuda_version": None}, "torch", "ok", ""),
        ({"torchvision_version": None}, "torchvision", "unfit", "not installed"),
        ({"device": "cuda:0"}, "triton", "warn", "compiled cells"),
        ({"settings": {"OMP_NUM_THREADS": "1"}}, "threads", "note", "OMP_NUM_THREADS=1"),
    ],
)
def test_software(fields: dict[str, Any], code: str, severity: str, words: str) -> None:
    finding = next(f for f in doctor.software_findings(machine(**fields)) if f.code == code)
    assert finding.severity == severity
    assert words in finding.what


@pytest.mark.parametrize(
    ("wanted", "have", "fits"),
    [
        ("torch==2.11.0", "2.11.0+cu130", True),
        ("torch==2.11.0", "2.12.0", False),
        ("torch (>=2.14.0)", "2.15.0", True),
        ("torch (>=2.14.0)", "2.11.0", False),
        ("torch", "2.11.0", True),
        ("torchfoo==9", "2.11.0", True),
    ],
)
def test_torchvision_fits_torch(wanted: str, have: str, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["numpy", wanted])
    findings = severities(doctor.software_findings(machine(torch_version=have)))
    assert findings["torchvision"] == ("ok" if fits else "unfit")


def test_no_compiler_no_headers_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "not/there/yet"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    found = [f for f in doctor.software_findings(machine()) if f.code in ("compiler", "disk")]
    assert [(f.code, f.severity) for f in found] == [("compiler", "warn"), ("disk", "unfit"), ("disk", "unfit")]
    monkeypatch.setattr(doctor, "compiler", lambda: None)
    without = next(f for f in doctor.software_findings(machine()) if f.code == "compiler")
    assert "no C++ compiler" in without.what


def ticking(*steps: int) -> Callable[[], int]:
    return itertools.accumulate(itertools.cycle(steps)).__next__


@pytest.mark.parametrize(
    ("clock", "severity"),
    [
        (ticking(50), "ok"),
        (ticking(0, 0, 0, 100), "ok"),
        (ticking(3000), "warn"),
        (ticking(0, 0, 0, 0, 0, 0, 0, 0, 0, 16_000), "unfit"),
        (ticking(100, -50), "unfit"),
        (ticking(0), "unfit"),
    ],
)
def test_clocks(clock: Callable[[], int], severity: str) -> None:
    assert doctor.judge_clock(doctor.read_clock(clock, readings=1000)).severity == severity


def test_clock_figures() -> None:
    quality = doctor.read_clock(ticking(10, 30), readings=1001)
    assert (quality.step_ns, quality.cost_ns, quality.backwards) == (10, 20.0, 0)


def test_spread() -> None:
    assert doctor.spread([2.0] * 50) == 0.0
    assert doctor.spread([float(n) for n in range(101)]) == pytest.approx(80 / 50)
    assert doctor.judge_spread(0.3).severity == "warn"
    assert doctor.judge_spread(0.02).severity == "ok"
    assert len(doctor.time_fixed_work(0.02)) >= 2


@pytest.mark.parametrize(
    ("change", "code", "severity"),
    [
        ({}, "foreign-process", "ok"),
        ({"contexts": IDLE, "users": BUSY}, "foreign-process", "unfit"),
        ({"contexts": IDLE}, "foreign-process", "note"),
        ({"contexts": (GpuProcess(pid=4711, memory_bytes=9 * GIB),)}, "foreign-process", "warn"),
        ({"contexts": IDLE, "users": None, "no_users": "not_on_device"}, "foreign-process", "warn"),
        ({"utilisation": 0.8}, "foreign-process", "warn"),
        ({"contexts": None, "users": None, "memory_used_bytes": 9 * GIB}, "foreign-process", "warn"),
        ({"contexts": None, "users": None, "no_users": "no_permission"}, "foreign-process", "note"),
        ({"users": None, "no_users": "not_on_device"}, "foreign-process", "ok"),  # nobody else holds a context
        ({"asking_s": 20.0}, "nvml-slow", "warn"),
        ({"margin_c": 11}, "temperature", "ok"),
        ({"margin_c": 10}, "temperature", "unfit"),
        ({"margin_c": None}, "temperature", "ok"),
        ({"temperature_c": None}, "temperature", "note"),
        ({"event_reasons": 0x20}, "throttled", "unfit"),
        ({"compute_mode": 2}, "compute-mode", "unfit"),
    ],
)
def test_urgent(change: dict[str, Any], code: str, severity: str) -> None:
    state = msgspec.structs.replace(QUIET, **change)
    assert severities(gpu.urgent_findings(state))[code] == severity


def test_a_power_cap_is_not_urgent() -> None:
    assert worst(gpu.urgent_findings(msgspec.structs.replace(QUIET, event_reasons=0x4))) == "ok"


def test_setup_of_a_gpu() -> None:
    plain = Gpu(name="NVIDIA H200", uuid="GPU-1")
    assert severities(gpu.setup_findings(plain, QUIET, None)) == {"gpu": "ok"}
    odd = Gpu(
        name="NVIDIA H200 MIG 1g.18gb",
        uuid="GPU-1",
        mig_uuid="MIG-1",
        persistence=False,
        ecc=True,
        application_sm_clock_mhz=1200,
        max_sm_clock_mhz=1980,
    )
    state = msgspec.structs.replace(QUIET, compute_mode=3, pcie_width=8, pcie_width_max=16, cuda_driver=12040)
    assert severities(gpu.setup_findings(odd, state, "13.2")) == {
        "gpu": "ok",
        "mig": "note",
        "persistence": "note",
        "ecc": "ok",
        "clocks": "note",
        "pcie": "note",
        "compute-mode": "warn",
        "driver": "unfit",
    }
    assert severities(gpu.setup_findings(plain, state, "12.8"))["driver"] == "ok"


def test_no_gpu_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "visible_gpus", lambda: Visible(problem="nvml_missing"))
    assert severities(gpu.absence_findings(tmp_path)) == {"no-gpu": "note"}
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert severities(gpu.absence_findings(tmp_path)) == {"nvml": "warn", "no-gpu": "note"}
    monkeypatch.setattr(gpu, "visible_gpus", lambda: Visible(present=2))
    assert severities(gpu.absence_findings(tmp_path))["hidden"] == "warn"


def test_unlike_gpus_are_numbered_two_ways() -> None:
    unlike = [Gpu(uuid="GPU-1", name="NVIDIA A100"), Gpu(uuid="GPU-2", name="NVIDIA T4")]
    assert severities(gpu.order_findings(unlike, None)) == {"device-order": "warn"}
    assert severities(gpu.order_findings(unlike, "PCI_BUS_ID")) == {}
    assert severities(gpu.order_findings(unlike[:1] * 2, None)) == {}


def test_worst() -> None:
    assert worst([]) == "ok"
    assert worst([warn("a", "", ""), ok("b", ""), unfit("c", "", "")]) == "unfit"


def test_preflight_of_a_gpu_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "session", contextlib.nullcontext)
    monkeypatch.setattr(gpu, "visible_gpus", Visible)
    (finding,) = preflight("cuda:0")
    assert (finding.code, finding.severity) == ("nvml", "unfit")
    assert "device_lost" in finding.what


def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that NVML has lost is gone; one that it may not, or cannot, watch is measured all the same."""
    for build, expected in (({"cuda": "13.0"}, ["unfit", "warn"]), ({"hip": "7.1"}, ["note", "note"])):
        monkeypatch.setattr(gpu, "torch_build", lambda build=build: build)
        found = [gpu.silence_finding("cuda:0", reason).severity for reason in ("device_lost", "nvml_missing")]
        assert found == expected


def run_doctor(*arguments: str, **environment: str) -> Any:
    import typer

    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments), env=environment)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examination without its two seconds of looking."""
    monkeypatch.setattr(doctor, "read_load", lambda _: Load(others=0.0))
    monkeypatch.setattr(doctor, "timing_findings", lambda: iter((ok("clock", "fine"),)))


@pytest.mark.usefixtures("quick")
def test_the_command_on_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "visible_gpus", lambda: Visible(problem="nvml_missing"))
    text = run_doctor("--device", "cpu")
    assert text.exit_code == 0, text.output
    assert "no GPU to measure on" in text.output
    assert "\x1b" not in text.output
    data = json.loads(run_doctor("--device", "cpu", "--json").output)
    assert data["fit"] is True
    assert data["environment"]["device"] == "cpu"
    assert {"load", "cores", "clock", "torch", "compiler", "disk", "no-gpu"} <= {f["code"] for f in data["findings"]}
    assert msgspec.convert(data["findings"], tuple[Finding, ...])


@pytest.mark.usefixtures("quick")
def test_an_unfit_machine_exits_with_3_after_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "software_findings", lambda _: iter((unfit("torch", "torch 2.9 is too old", "pip"),)))
    result = run_doctor("--device", "cpu")
    assert "torch 2.9 is too old" in result.output
    assert isinstance(result.exception, UnfitError)
    assert result.exception.exit_code == 3
    assert "torch" in str(result.exception)


def test_a_device_that_is_none() -> None:
    result = run_doctor("--device", "tpu")
    assert isinstance(result.exception, UsageError)
    assert result.exception.exit_code == 2


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", "tf32", 156),
        ("NVIDIA A100 80GB PCIe", "amp-bf16", 312),
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA H200", "amp-fp16", 989.4),
        ("NVIDIA H200 NVL", "fp16", 835.5),
        ("NVIDIA L4", "fp32", 30.3),
        ("NVIDIA L40S", "bf16", 362.05),
        ("Tesla T4", "fp16", 65),
        ("Tesla T4", "bf16", None),
        ("Tesla V100-SXM2-16GB", "tf32", None),
        ("NVIDIA GeForce RTX 4090", "fp32", 82.6),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "fp32", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16", None),
        ("NVIDIA H300", "bf16", None),
    ],
)
def test_peaks(name: str, precision: Any, tera: float | None) -> None:
    peak = peak_flops(name, precision)
    assert peak == (None if tera is None else pytest.approx(tera * 1e12))


def test_the_table_of_peaks_is_sound() -> None:
    rows = peaks()
    assert len({row.pattern for row in rows}) == len(rows)
    for row in rows:
        assert row.source
        assert row.fp32 is not None
        assert row.fp16 is not None
        assert row.fp32 <= (row.tf32 or row.fp16) <= row.fp16
        assert row.bf16 in (None, row.fp16)
