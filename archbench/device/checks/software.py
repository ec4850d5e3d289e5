"""The interpreter's packages and tools: what a worker needs to build, compile and run a network."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from archbench.device.checks import Finding, note, ok, unfit, warn
from archbench.device.software import compiler
from archbench.model.environment import Environment

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
    yield from _disk(os.environ)
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


def _disk(variables: Mapping[str, str]) -> Iterator[Finding]:
    places = {
        "caches": Path(variables.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir()),
        "results": Path.cwd(),
    }
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
