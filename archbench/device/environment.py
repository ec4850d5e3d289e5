"""The machine described without importing torch: the computer as the kernel tells of it, its packages, tools, settings.

Every file of the kernel is looked for under a root, so that tests can describe machines that they do not have.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

import archbench
from archbench.device.kind import kind_named
from archbench.model.environment import Environment

ROOT = Path("/")
_LIBRARIES = (
    *("numpy", "fvcore", "triton", "mkl", "intel-openmp"),
    *(f"nvidia-{part}{cuda}" for part in ("cudnn", "cublas", "nccl") for cuda in ("", "-cu12", "-cu13")),
)
_MATTERS = re.compile(
    r"(OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|DNNL|ONEDNN|ATEN|PYTORCH|TORCH|TORCHINDUCTOR|TORCHDYNAMO|CUDA|CUBLAS|CUDNN|TRITON"
    r"|MALLOC|JEMALLOC|TCMALLOC|GLIBC)_|(NVIDIA_TF32_OVERRIDE|LD_PRELOAD|CC|CXX)$"
)
_DOES_NOT_MATTER = re.compile(
    r"(_HOME|_PATH|_DIR|_ROOT|_FILE|_LOGS|_TRACE|_VERSION)$|^(PYTORCH_NVML_BASED_CUDA_CHECK|TORCH_SHOW_CPP_STACKTRACES)$"
)
"""Where things lie, and what is printed, changes no figure; it would only make every machine another one."""
_SUBPROCESS_S = 5.0


def collect_environment(device: str, root: Path = ROOT, variables: Mapping[str, str] = os.environ) -> Environment:
    """Describe the machine for a run on `device` (`cpu` or `cuda:N`); never imports torch, takes about 50 ms.

    Holds nothing that changes by itself (load, temperature, free memory), so that a run can be resumed.
    """
    kind, build = kind_named(device.partition(":")[0]), torch_build()
    gpu, driver = kind.describe(device)
    cpu, system = _cpuinfo(root), root / "sys/devices/system/cpu"
    model, cores = _model(cpu), usable_cores(root)
    processor = f"{model} x{cores} {_vector_unit(cpu)}"
    smt = read_small(system / "smt/active")
    pages = re.search(r"\[(\w+)\]", read_small(root / "sys/kernel/mm/transparent_hugepage/enabled") or "")
    return Environment(
        hardware_class=kind.hardware_class(processor, gpu),
        device=device,
        gpus=() if gpu is None else (gpu,),
        driver_version=driver,
        cpu_model=model,
        cpu_count=cores,
        memory_bytes=usable_memory(root),
        os=_os_name(),
        kernel=platform.release(),
        container=_container(root, variables),
        hypervisor=_hypervisor(root, cpu),
        governor=_governor(system),
        turbo=_turbo(system),
        smt=None if smt is None else smt == "1",
        transparent_hugepages=pages[1] if pages else None,
        node=variables.get("ARCHBENCH_NODE") or platform.node() or None,
        python_version=platform.python_version(),
        torch_version=build.get("__version__") or version_of("torch"),
        torchvision_version=version_of("torchvision"),
        timm_version=version_of("timm"),
        cuda_version=build.get("cuda") or (f"hip {build['hip']}" if build.get("hip") else None),
        libraries=libraries(),
        archbench_version=archbench.__version__,
        git_commit=git_commit(Path(archbench.__file__).parent),
        settings=settings(variables),
    )


def last_level_cache(root: Path = ROOT) -> int | None:
    """Bytes of the largest cache of the highest level that the first core has; `None` where the kernel lists none."""
    found = []
    for place in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*"):
        size = re.fullmatch(r"(\d+)K", read_small(place / "size") or "")
        if size and read_small(place / "type") != "Instruction":
            found.append((read_small(place / "level") or "", int(size[1]) * 1024))
    return max(found)[1] if found else None


def allowed_cores() -> frozenset[int]:
    """Cores of this process's affinity."""
    return frozenset(os.sched_getaffinity(0))


def cpu_quota(root: Path = ROOT) -> float | None:
    """Cores' worth of time that the control group grants, the tightest of it and its ancestors; `None` = no limit."""
    quotas = []
    for folder in control_groups(root, "cpu"):
        quota, _, period = (read_small(folder / "cpu.max") or "").partition(" ")
        if not quota:
            quota, period = (read_small(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def usable_cores(root: Path = ROOT) -> int:
    """Whole cores that this process can keep busy; at least 1.

    A quota is rounded down: a thread more than it pays for is stopped in the middle of a step.
    """
    quota = cpu_quota(root)
    allowed = len(allowed_cores())
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def usable_memory(root: Path = ROOT) -> int:
    """Bytes: the machine's memory or the control group's limit, whichever is less."""
    limits = [psutil.virtual_memory().total]
    for folder in control_groups(root, "memory"):
        limit = read_small(folder / "memory.max") or read_small(folder / "memory.limit_in_bytes") or ""
        if limit.isdigit():
            limits.append(int(limit))
    return min(limits)


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of our control group for a controller and of its ancestors, versions 1 and 2."""
    mount = root / "sys/fs/cgroup"
    for line in (read_small(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            bases = [mount, mount / "unified"]
        elif controller in controllers.split(","):
            bases = [mount / controllers, mount / controller]
        else:
            continue
        for base in bases:
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(parts), -1, -1):
                yield base.joinpath(*parts[:depth])


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's entries, keys in lower case."""
    first = (read_small(root / "proc/cpuinfo") or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _model(cpu: Mapping[str, str]) -> str:
    """The model without marketing; with family and model number where a hypervisor hides which one it is."""
    name = cpu.get("model name")
    if name is None:
        part = f" {cpu['cpu implementer']}/{cpu['cpu part']}" if {"cpu implementer", "cpu part"} <= cpu.keys() else ""
        return (platform.processor() or platform.machine()) + part
    name = re.sub(r"\((?:R|TM)\)|\bCPU\b|\bProcessor\b|\b\d+-Core\b|@.*", "", name)
    name = " ".join(name.split())
    if re.search(r"\d", name) is None and {"cpu family", "model"} <= cpu.keys():
        name += f" (family {cpu['cpu family']} model {cpu['model']})"
    return name


def _vector_unit(cpu: Mapping[str, str]) -> str:
    """What the kernels choose by: torch's and oneDNN's AVX-512 kernels want F, BW, DQ and VL together."""
    flags = set(cpu.get("flags", cpu.get("features", "")).split())
    if "amx_tile" in flags:
        return "AMX"
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return "AVX-512"
    if {"avx2", "fma"} <= flags:
        return "AVX2"
    if "sve" in flags:
        return "SVE"
    return "NEON" if "asimd" in flags or platform.machine() == "arm64" else "scalar"


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.version()}"


def _container(root: Path, variables: Mapping[str, str]) -> str | None:
    # gVisor answers with one fixed kernel, whichever runs below it.
    if "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016" in (read_small(root / "proc/version") or ""):
        return "gvisor"
    if "KUBERNETES_SERVICE_HOST" in variables:
        return "kubernetes"
    for marker, name in (("run/.containerenv", "podman"), (".dockerenv", "docker")):
        if (root / marker).exists():
            return name
    told = read_small(root / "run/systemd/container") or variables.get("container")
    if told:
        return told
    found = re.search(r"kubepods|docker|containerd|libpod|lxc", read_small(root / "proc/1/cgroup") or "")
    return {"kubepods": "kubernetes", "libpod": "podman"}.get(found[0], found[0]) if found else None


def _hypervisor(root: Path, cpu: Mapping[str, str]) -> str | None:
    vendor = read_small(root / "sys/class/dmi/id/sys_vendor")
    if "hypervisor" not in cpu.get("flags", "").split():
        # Arm has no such flag; there the vendor is the only word on it.
        return vendor if vendor in ("QEMU", "Amazon EC2", "Google") else None
    # Firecracker has no DMI: its ACPI tables (readable by root) and its makers' kernel names tell.
    try:
        acpi = (root / "sys/firmware/acpi/tables/FACP").read_bytes()[:40]
    except OSError:
        acpi = b""
    if b"FIRECK" in acpi or re.search(r"-fc(?:-|$)", platform.release()):
        return "firecracker"
    return vendor or read_small(root / "sys/hypervisor/type") or "unknown"


def _governor(system: Path) -> str | None:
    found = {read_small(system / f"cpu{core}/cpufreq/scaling_governor") for core in allowed_cores()} - {None}
    return ", ".join(sorted(str(governor) for governor in found)) or None


def _turbo(system: Path) -> bool | None:
    disabled = read_small(system / "intel_pstate/no_turbo")
    if disabled is not None:
        return disabled == "0"
    boost = read_small(system / "cpufreq/boost")
    return None if boost is None else boost == "1"


def read_small(path: Path) -> str | None:
    """A small file's content, or `None` where it is missing or forbidden: then the kernel does not say."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def libraries() -> dict[str, str]:
    """Versions of what can change a figure besides torch. About 20 ms, most of it the compiler saying its version."""
    found = {name: version_of(name) for name in _LIBRARIES}
    found["c++"] = _compiler_version()
    found["libc"] = " ".join(platform.libc_ver()) or None
    return {name: version for name, version in found.items() if version}


def version_of(package: str) -> str | None:
    """Version of an installed distribution, or `None`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def torch_build() -> dict[str, str]:
    """What `torch/version.py` assigns (`__version__`, `cuda`, `hip`), read and not run: importing torch takes 3 s."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return {}
    try:
        source = Path(found.origin).with_name("version.py").read_text()
    except OSError:
        return {}
    return assigned_strings(source)


def assigned_strings(source: str) -> dict[str, str]:
    """Names that a module's source gives a string literal; nothing is executed."""
    names: dict[str, str] = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(value))):
                names[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(value))):
                names[name] = value
    return names


def compiler() -> str | None:
    """The C++ compiler that inductor would call: `CXX`, else g++, else clang++."""
    wanted = (os.environ.get("CXX"), "g++", "clang++")
    return next((path for name in wanted if name and (path := shutil.which(name))), None)


def _compiler_version() -> str | None:
    """`g++ 12.2.0`, or `None` without a compiler."""
    path = compiler()
    if path is None:
        return None
    version = _output([path, "-dumpfullversion", "-dumpversion"])
    return f"{Path(path).name} {version}" if version else Path(path).name


def git_commit(package: Path) -> str | None:
    """Commit of the checkout that holds the package, `+dirty` where the package has changes; `None` elsewhere."""
    if not (package.parent / ".git").exists():
        return None  # Installed: the repository around a virtual environment is somebody else's.
    status = _output(["git", "-C", str(package.parent), "status", "--porcelain=2", "--branch", "--", package.name])
    commit = re.search(r"^# branch\.oid ([0-9a-f]{40,64})$", status or "", re.MULTILINE)
    if status is None or commit is None:
        return None
    dirty = any(not line.startswith("#") for line in status.splitlines())
    return commit[1] + ("+dirty" if dirty else "")


def settings(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables that change a figure, sorted by name."""
    return {
        name: value
        for name, value in sorted(variables.items())
        if _MATTERS.match(name) and not _DOES_NOT_MATTER.search(name)
    }


def _output(command: list[str]) -> str | None:
    """What a command prints, or `None` where it is missing, fails or hangs: then there is no version to tell."""
    try:
        # Without optional locks git leaves the index alone for whoever is committing beside us.
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_SUBPROCESS_S,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
