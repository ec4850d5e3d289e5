"""Machines described by files, versions read and not run, and a fingerprint that stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

import archbench
from archbench.device import collect_environment
from archbench.device.environment import (
    assigned_strings,
    cpu_quota,
    git_commit,
    settings,
    torch_build,
    usable_cores,
    usable_memory,
)
from archbench.device.kind import kind_named
from archbench.model.environment import Gpu

XEON = (
    "processor: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz\ncpu family: 6\nmodel: 143\nflags: {}\n"
)
WIDE = "avx2 fma avx512f avx512bw avx512dq avx512vl"


def write(root: Path, **files: str) -> Path:
    """Files by their path with `__` for `/`."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)


@pytest.mark.parametrize(
    ("name", "flags", "model", "unit"),
    [
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", f"{WIDE} amx_tile", "Intel Xeon Platinum 8481C", "AMX"),
        ("AMD EPYC 9654 96-Core Processor", WIDE, "AMD EPYC 9654", "AVX-512"),
        ("AMD EPYC", "avx avx2 fma", "AMD EPYC (family 25 model 1)", "AVX2"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "avx2 avx512f", "Intel Xeon (family 25 model 1)", "scalar"),
    ],
)
def test_cpu_model_and_vector_unit(tmp_path: Path, name: str, flags: str, model: str, unit: str) -> None:
    info = f"model name : {name}\ncpu family : 25\nmodel : 1\nflags : {flags}\n\nmodel name : another"
    host = collect_environment("cpu", write(tmp_path, proc__cpuinfo=info), {})
    assert host.cpu_model == model
    assert host.hardware_class == f"{model} x{host.cpu_count} {unit}"


def test_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    info = "processor : 0\nFeatures : fp asimd sve\nCPU implementer : 0x41\nCPU part : 0xd40\n"
    host = collect_environment("cpu", write(tmp_path, proc__cpuinfo=info), {})
    assert host.cpu_model == "aarch64 0x41/0xd40"
    assert host.hardware_class == f"aarch64 0x41/0xd40 x{host.cpu_count} SVE"


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("", 4)]
)
def test_quota_of_the_second_version(tmp_path: Path, quota: str, cores: int) -> None:
    root = write(tmp_path, proc__self__cgroup="0::/a/b", sys__fs__cgroup__a__cpu=" ")
    write(root, **{"sys__fs__cgroup__a__b__cpu.max": "max 100000", "sys__fs__cgroup__a__cpu.max": quota})
    assert usable_cores(root) == cores


@pytest.mark.usefixtures("four_cores")
def test_quota_of_the_first_version_and_of_ancestors(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        proc__self__cgroup="4:memory:/m\n2:cpu,cpuacct:/x/y\n0::/",
        **{
            "sys__fs__cgroup__cpu,cpuacct__x__y__cpu.cfs_quota_us": "380000",
            "sys__fs__cgroup__cpu,cpuacct__x__y__cpu.cfs_period_us": "100000",
            "sys__fs__cgroup__cpu,cpuacct__x__cpu.cfs_quota_us": "350000",
            "sys__fs__cgroup__cpu,cpuacct__x__cpu.cfs_period_us": "100000",
            "sys__fs__cgroup__memory__m__memory.limit_in_bytes": "1048576",
        },
    )
    assert cpu_quota(root) == 3.5
    assert usable_cores(root) == 3
    assert usable_memory(root) == 2**20


def test_memory_without_a_limit(tmp_path: Path) -> None:
    root = write(tmp_path, proc__self__cgroup="0::/", **{"sys__fs__cgroup__memory.max": "max"})
    assert usable_memory(root) == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("files", "variables", "expected"),
    [
        ({}, {}, None),
        ({".dockerenv": ""}, {}, "docker"),
        ({"run__.containerenv": ""}, {}, "podman"),
        ({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"run__systemd__container": "lxc"}, {}, "lxc"),
        ({}, {"container": "systemd-nspawn"}, "systemd-nspawn"),
        ({"proc__1__cgroup": "0::/kubepods.slice/x"}, {}, "kubernetes"),
        ({"proc__1__cgroup": "5:cpu:/docker/0123"}, {}, "docker"),
        ({"proc__version": "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016"}, {}, "gvisor"),
    ],
)
def test_containers(tmp_path: Path, files: dict[str, str], variables: dict[str, str], expected: str | None) -> None:
    assert collect_environment("cpu", write(tmp_path, **files), variables).container == expected


def test_hypervisors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.release", lambda: "6.5.6-300.fc39.x86_64")  # Fedora, not Firecracker
    bare = write(tmp_path / "bare", proc__cpuinfo=XEON.format(WIDE), sys__class__dmi__id__sys_vendor="Dell Inc.")
    assert collect_environment("cpu", bare, {}).hypervisor is None
    virtual = write(tmp_path / "vm", proc__cpuinfo=XEON.format("hypervisor"), sys__class__dmi__id__sys_vendor="QEMU")
    assert collect_environment("cpu", virtual, {}).hypervisor == "QEMU"
    micro = write(tmp_path / "fc", proc__cpuinfo=XEON.format("hypervisor"))
    assert collect_environment("cpu", micro, {}).hypervisor == "unknown"
    write(micro, sys__firmware__acpi__tables__FACP="FACP....FIRECKFCVMFADT")
    assert collect_environment("cpu", micro, {}).hypervisor == "firecracker"


@pytest.mark.usefixtures("four_cores")
def test_clock_settings(tmp_path: Path) -> None:
    cpu = "sys__devices__system__cpu__"
    files = {f"{cpu}cpu{core}__cpufreq__scaling_governor": "powersave" for core in range(4)}
    root = write(tmp_path, **files, **{f"{cpu}smt__active": "1", f"{cpu}intel_pstate__no_turbo": "0"})
    write(root, sys__kernel__mm__transparent_hugepage__enabled="always [madvise] never")
    host = collect_environment("cpu", root, {})
    assert (host.governor, host.turbo, host.smt, host.transparent_hugepages) == ("powersave", True, True, "madvise")
    write(root, **{f"{cpu}cpu3__cpufreq__scaling_governor": "performance", f"{cpu}intel_pstate__no_turbo": "1"})
    host = collect_environment("cpu", root, {})
    assert (host.governor, host.turbo) == ("performance, powersave", False)


def test_an_empty_machine_knows_nothing_and_says_so(tmp_path: Path) -> None:
    host = collect_environment("cpu", tmp_path, {})
    assert (host.governor, host.turbo, host.smt, host.transparent_hugepages, host.hypervisor) == (None,) * 5
    assert host.cpu_count >= 1


def test_hardware_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_cpu(cores: int, flags: str) -> str:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        info = f"model name : AMD EPYC 7B13 64-Core Processor\nflags : {flags}\n"
        return collect_environment("cpu", write(tmp_path, proc__cpuinfo=info), {}).hardware_class

    two = on_cpu(2, "avx2 fma")
    assert two == "AMD EPYC 7B13 x2 AVX2"
    assert on_cpu(4, "avx2 fma") != two
    assert on_cpu(2, WIDE) != two
    gpu, on_gpu = Gpu(name="NVIDIA H200", uuid="GPU-1"), kind_named("cuda").hardware_class
    assert on_gpu(two, gpu) == on_gpu("AMD EPYC 7B13 x9 AMX", gpu) == "NVIDIA H200"


def test_a_version_file_is_read_and_not_run() -> None:
    source = """
from typing import Optional
__version__ = '2.15.0+cu132'
cuda: Optional[str] = '13.2'
hip: Optional[str] = None
debug = False
raise SystemExit('this was run')
"""
    assert assigned_strings(source) == {"__version__": "2.15.0+cu132", "cuda": "13.2"}


def test_torchs_own_version_file() -> None:
    torch = pytest.importorskip("importlib.metadata").version("torch")
    assert torch_build()["__version__"].startswith(torch.partition("+")[0])


def test_settings_are_what_changes_figures() -> None:
    variables = {
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "1",
        "PYTORCH_ALLOC_CONF": "x",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/a",
        "TORCH_HOME": "/b",
        "CUDA_HOME": "/c",
        "TORCH_LOGS": "+dynamo",
        "CXX": "clang++",
        "CXXFLAGS_OF_MINE": "no",
        "HOME": "/d",
        "SECRET_TOKEN": "e",
        "NVIDIA_TF32_OVERRIDE": "0",
    }
    assert list(settings(variables)) == [
        "CUDA_VISIBLE_DEVICES",
        "CXX",
        "NVIDIA_TF32_OVERRIDE",
        "OMP_NUM_THREADS",
        "PYTORCH_ALLOC_CONF",
    ]


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    package = write(tmp_path, **{"archbench__a.py": "1"}) / "archbench"
    assert git_commit(package) is None  # installed, not checked out
    git(tmp_path, "init", "-q")
    assert git_commit(package) is None  # no commit yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    write(tmp_path, results__report="changes outside of the package do not count")
    assert git_commit(package) == commit
    write(tmp_path, **{"archbench__b.py": "2"})
    assert git_commit(package) == f"{commit}+dirty"


def test_a_machine_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path / "archbench") is None


def test_this_machine_twice() -> None:
    start = time.perf_counter()
    first = collect_environment("cpu")
    took_s = time.perf_counter() - start
    second = collect_environment("cpu")
    # Somebody may commit in between, and some virtual machines grow; nothing else may move.
    assert msgspec.structs.replace(first, git_commit=second.git_commit, memory_bytes=second.memory_bytes) == second
    assert first.fingerprint == second.fingerprint
    assert first.archbench_version == archbench.__version__
    assert first.device == "cpu"
    assert first.gpus == ()
    assert first.cpu_count >= 1
    assert first.libraries["numpy"]
    assert took_s < 1.0, "0.02 s when nobody else works here"


def test_memory_that_grows_is_no_other_machine() -> None:
    now = collect_environment("cpu")
    assert msgspec.structs.replace(now, memory_bytes=now.memory_bytes + 2**30).fingerprint == now.fingerprint
    assert msgspec.structs.replace(now, cpu_count=now.cpu_count + 1).fingerprint != now.fingerprint


def test_settings_change_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    first = collect_environment("cpu").fingerprint
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    assert collect_environment("cpu").fingerprint != first


def test_the_room_does_not_import_torch() -> None:
    code = (
        "import sys; from archbench.device import collect_environment, open_probe, preflight, resolve_device;"
        "resolve_device(); collect_environment('cpu'); open_probe('cpu').read();"
        "assert not {'torch', 'pandas', 'numpy', 'rich'} & sys.modules.keys(), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_machine_has_a_name_which_is_no_part_of_what_makes_runs_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHBENCH_NODE", "node07")
    here = collect_environment("cpu")
    assert here.machine == "node07/cpu"
    monkeypatch.setenv("ARCHBENCH_NODE", "node08")
    assert collect_environment("cpu").fingerprint == here.fingerprint
    nameless = msgspec.structs.replace(here, node=None)
    assert (nameless.machine, nameless.fingerprint) == (None, here.fingerprint)
