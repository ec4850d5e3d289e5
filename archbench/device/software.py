"""The interpreter's packages, tools and settings: what can change a figure, and what a worker needs to run a network.

Read from metadata: torch itself is never imported.
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
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from archbench.device.health import Finding, note, ok, unfit, warn
from archbench.model.environment import Environment

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


LEAST_TORCH = "2.11"
LITTLE_DISK = 2 * 2**30
"""Inductor's cache of a suite with a compile axis, and the results, take less than this."""
_NO_DISK = 64 * 2**20


def software_findings(software: Environment) -> Iterator[Finding]:
    """Versions, the compiler that `torch.compile` calls, and room for caches and results."""
    on_gpu = software.device != "cpu"
    yield from _torch(software, on_gpu)
    yield from _torchvision(software)
    yield _compiler()
    if on_gpu and "triton" not in software.libraries:
        yield warn("triton", "triton is not installed: compiled cells will fail on the GPU", "pip install triton")
    yield from _disk()
    if threads := software.settings.get("OMP_NUM_THREADS"):
        yield note("threads", f"OMP_NUM_THREADS={threads} is set: it decides how many threads every cell uses")


def _torch(software: Environment, on_gpu: bool) -> Iterator[Finding]:
    from packaging.version import Version

    version = software.torch_version
    if version is None:
        yield unfit("torch", "torch is not installed for this Python", "pip install torch torchvision")
    elif Version(version).release < Version(LEAST_TORCH).release:
        yield unfit("torch", f"torch {version} is too old", f"pip install 'torch>={LEAST_TORCH}' torchvision")
    elif on_gpu and software.cuda_version is None:
        yield unfit("torch", f"torch {version} is built without CUDA", "install a CUDA build: see pytorch.org")
    else:
        yield ok("torch", f"torch {version}")


def _torchvision(software: Environment) -> Iterator[Finding]:
    """Whether torchvision was built for this torch: by what its own metadata asks for, as pip would."""
    from packaging.requirements import Requirement

    if software.torchvision_version is None:
        yield unfit("torchvision", "torchvision is not installed", "pip install torchvision")
        return
    asked = map(Requirement, importlib.metadata.requires("torchvision") or ())
    wanted = next((one.specifier for one in asked if one.name == "torch"), None)
    if wanted is not None and not wanted.contains(software.torch_version or "0", prereleases=True):
        yield unfit(
            "torchvision",
            f"torchvision {software.torchvision_version} wants torch{wanted}, but torch is {software.torch_version}",
            "pip install --upgrade torch torchvision",
        )
    else:
        yield ok("torchvision", f"torchvision {software.torchvision_version} fits")


def _compiler() -> Finding:
    """Inductor compiles C++ on the CPU, and Triton its launchers with the headers of this Python."""
    path = compiler()
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if path is None:
        return warn("compiler", "no C++ compiler: compiled cells will fail", "install g++ (Debian: build-essential)")
    if not header.exists():
        return warn(
            "compiler",
            f"{header} is missing: compiled cells will fail",
            "install this Python's headers (Debian: python3-dev)",
        )
    return ok("compiler", f"{path} and the headers of Python {sysconfig.get_python_version()}")


def _disk() -> Iterator[Finding]:
    places = {"caches": Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir()), "results": Path.cwd()}
    for use, folder in places.items():
        standing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(standing).free
        what = f"{free / 2**30:.1f} GiB free for {use} in {folder}"
        if free < _NO_DISK:
            yield unfit("disk", what, "make room: a row that cannot be written is lost")
        elif free < LITTLE_DISK:
            yield warn("disk", what, "make room, or point TORCHINDUCTOR_CACHE_DIR elsewhere")
        else:
            yield ok("disk", what)
