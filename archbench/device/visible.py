"""Which accelerators a run may use: NVML's list seen through CUDA_VISIBLE_DEVICES.

Where NVML does not answer (ROCm, Jetson, a locked-down container) torch is asked, in a process of its own.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pynvml
from msgspec import Struct, structs

from archbench.device import nvml
from archbench.device.environment import torch_build
from archbench.model.environment import Environment, Gpu

SILENCE = {
    "nvml_missing": "NVML (libnvidia-ml.so.1) is not installed; in a container add `utility` to "
    "NVIDIA_DRIVER_CAPABILITIES",
    "driver_not_loaded": "the NVIDIA driver is not loaded",
    "driver_mismatch": "the NVIDIA driver was updated and the old one is still loaded; reboot",
    "no_permission": "this user may not use NVML; check the rights of /dev/nvidia*",
}


_DEVICE_FILES = ("nvidia[0-9]*", "kfd", "nvgpu*", "nvhost-gpu", "dxg")
"""Under /dev: NVIDIA's driver, AMD's, that of Jetsons, and the GPU of WSL."""
_MASKS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_ASKING_TORCH_S = 120.0
_ASK_TORCH = """
import json, torch
def told(n):
    of = torch.cuda.get_device_properties(n)
    return dict(name=of.name, uuid=str(getattr(of, "uuid", "")), memory_bytes=of.total_memory,
                compute_capability=None if torch.version.hip else f"{of.major}.{of.minor}")
print(json.dumps([told(n) for n in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]))
"""


class Visible(Struct, frozen=True, kw_only=True):
    """What `cuda:0`, `cuda:1`, ... are by NVML, by names and UUIDs alone. `problem` says why it does not tell."""

    gpus: tuple[Gpu, ...] = ()
    present: int = 0
    """GPUs and slices in the machine, those hidden by CUDA_VISIBLE_DEVICES included."""
    problem: str | None = None
    """Reason code of `archbench.device.nvml`."""


def visible_gpus() -> Visible:
    """List the GPUs in the order of their CUDA ordinals, as PCI_BUS_ID orders them.

    Where GPUs differ, CUDA's own default order is fastest first: see `doctor`'s finding `device-order`.
    """
    try:
        with nvml.session():
            present = _present()
    except nvml.NvmlError as error:
        return Visible(problem=error.reason)
    return Visible(gpus=select(present, os.environ.get("CUDA_VISIBLE_DEVICES")), present=len(present))


def select(present: Sequence[Gpu], mask: str | None) -> tuple[Gpu, ...]:
    """Apply CUDA_VISIBLE_DEVICES as the driver does.

    A list of ordinals or of UUIDs (unique beginnings suffice) of one kind; it ends, in silence, at the first entry
    that names nothing, and an entry given twice hides everything.
    """
    by_index = _first_of_each(present)
    if mask is None:
        return by_index
    chosen: list[Gpu] = []
    kind = mask.strip()[:4] if mask.strip().startswith(("GPU-", "MIG-")) else ""
    for entry in mask.split(","):
        word = entry.strip()
        if kind:
            found = [gpu for gpu in (present if kind == "MIG-" else by_index) if _is_called(gpu, word, kind)]
        else:
            ordinal = re.match(r"\+?([0-9]+)", word)  # `1gpu` counts as 1, there as here
            found = list(by_index[int(ordinal[1]) : int(ordinal[1]) + 1]) if ordinal else []
        if len(found) != 1:
            break
        if found[0] in chosen:
            return ()
        chosen.append(found[0])
    return tuple(chosen)


def _first_of_each(present: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """One entry a GPU: of a GPU in MIG mode the first slice, which is what its ordinal means to CUDA."""
    first = {gpu.uuid: gpu for gpu in reversed(present)}
    return tuple(first[uuid] for uuid in dict.fromkeys(gpu.uuid for gpu in present))


def known_gpus(*, named: bool) -> Visible:
    """As `visible_gpus`; where NVML does not answer, what torch tells if that is worth its import.

    `named`: the user asked for a GPU; else one is only looked for.
    """
    visible = visible_gpus()
    if visible.problem is None or not _worth_asking(named=named):
        return visible
    return Visible(gpus=gpus_by_torch(), problem=visible.problem)


def _worth_asking(*, named: bool) -> bool:
    """Whether torch may know of a GPU where NVML does not answer: its import takes seconds.

    Who names a GPU gets an answer if either torch or the machine is made for one; `auto` needs both.
    """
    seen = any(os.environ.get(mask) for mask in _MASKS)
    seen = seen or any(next(Path("/dev").glob(pattern), None) is not None for pattern in _DEVICE_FILES)
    build = torch_build()
    built = bool(build.get("hip")) or (bool(build.get("cuda")) and _driver_loads())
    return (seen or built) if named else (seen and built)


def _driver_loads() -> bool:
    """Whether there is the library through which torch's CUDA reaches a driver; to load it starts nothing."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@cache
def gpus_by_torch() -> tuple[Gpu, ...]:
    """The GPUs that torch sees in a process of its own, in CUDA's order; none where that fails. Seconds, once.

    In this process CUDA would be initialised, which a later fork does not survive.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=_ASKING_TORCH_S, check=True
        )
        return tuple(msgspec.json.decode(done.stdout.splitlines()[-1], type=list[Gpu]))
    except (OSError, subprocess.SubprocessError, IndexError, msgspec.MsgspecError):
        return ()


def uuid_of(number: int) -> str | None:
    """NVML's UUID of `cuda:N`, the slice's where there is one; `None` where NVML cannot tell."""
    gpus = visible_gpus().gpus
    return gpus[number].mig_uuid or gpus[number].uuid if number < len(gpus) else None


def is_gone(environment: Environment) -> bool:
    """NVML described the GPU of this environment once, and does not answer for it any more."""
    if environment.driver_version is None or not environment.gpus:
        return False
    try:
        with nvml.session():
            handle, reason = nvml.ask("nvmlDeviceGetHandleByUUID", environment.gpus[0].uuid)
            if handle is not None:
                _, reason = nvml.ask("nvmlDeviceGetUUID", handle)
            return handle is None or reason == "device_lost"
    except nvml.NvmlError as error:
        return error.reason in ("device_lost", "driver_not_loaded")


def what_exists(visible: Visible) -> str:
    """Which devices there are, or why there is none, in words."""
    if visible.gpus:
        known = ", ".join(f"cuda:{n} ({gpu.name})" for n, gpu in enumerate(visible.gpus))
        return f"this machine has cpu, {known}"
    if visible.problem is not None:
        return f"this machine has cpu only ({SILENCE.get(visible.problem, f'NVML says {visible.problem}')})"
    if visible.present:
        mask = os.environ.get("CUDA_VISIBLE_DEVICES")
        return f"CUDA_VISIBLE_DEVICES={mask!r} hides every GPU ({visible.present} present); unset it, or use cpu"
    return "this machine has cpu only"


def _present() -> tuple[Gpu, ...]:
    count = nvml.value("nvmlDeviceGetCount") or 0
    found: list[Gpu] = []
    for index in range(count):
        handle = nvml.value("nvmlDeviceGetHandleByIndex", index)
        uuid = None if handle is None else nvml.value("nvmlDeviceGetUUID", handle)
        if uuid is None:
            continue  # Lost, or another container's: CUDA does not show it either.
        name = nvml.value("nvmlDeviceGetName", handle) or "unknown NVIDIA GPU"
        slices = _slices(handle)
        found += [Gpu(uuid=uuid, name=of_slice or name, mig_uuid=mig_uuid) for mig_uuid, of_slice in slices]
        if not slices:
            found.append(Gpu(uuid=uuid, name=name))
    return tuple(found)


def _slices(handle: object) -> list[tuple[str, str | None]]:
    """UUID and name of each MIG device of a GPU; none where MIG is off or unsupported."""
    mode = nvml.value("nvmlDeviceGetMigMode", handle)
    if not mode or not mode[0]:
        return []
    slices = []
    for index in range(nvml.value("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
        part = nvml.value("nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
        uuid = None if part is None else nvml.value("nvmlDeviceGetUUID", part)
        if uuid is not None:
            slices.append((uuid, nvml.value("nvmlDeviceGetName", part)))
    return slices


def _is_called(gpu: Gpu, word: str, kind: str) -> bool:
    name = gpu.mig_uuid if kind == "MIG-" else gpu.uuid
    return name is not None and len(word) > len(kind) and name.startswith(word)


def describe(number: int) -> tuple[Gpu | None, str | None]:
    """The GPU `cuda:N` and the driver's version, as NVML tells them; else the GPU as torch does."""
    try:
        # One session around all: without persistence mode the driver unloads the GPU whenever nobody holds it.
        with nvml.session():
            visible = visible_gpus().gpus
            driver = nvml.value("nvmlSystemGetDriverVersion")
            return (_describe(visible[number]) if number < len(visible) else None), driver
    except nvml.NvmlError:
        told = gpus_by_torch()
        return (told[number] if number < len(told) else None), None


def _describe(seen: Gpu) -> Gpu:
    whole = nvml.value("nvmlDeviceGetHandleByUUID", seen.uuid)
    part = None if seen.mig_uuid is None else nvml.value("nvmlDeviceGetHandleByUUID", seen.mig_uuid)
    memory = nvml.value("nvmlDeviceGetMemoryInfo", part or whole)
    limit_mw = nvml.value("nvmlDeviceGetEnforcedPowerLimit", whole)
    capability = nvml.value("nvmlDeviceGetCudaComputeCapability", whole)
    persistence = nvml.value("nvmlDeviceGetPersistenceMode", whole)
    return structs.replace(
        seen,
        memory_bytes=None if memory is None else memory.total,
        mig_enabled=_first_flag(nvml.value("nvmlDeviceGetMigMode", whole)),
        persistence=None if persistence is None else bool(persistence),
        power_limit_w=None if limit_mw is None else limit_mw / 1e3,
        max_sm_clock_mhz=nvml.value("nvmlDeviceGetMaxClockInfo", whole, pynvml.NVML_CLOCK_SM),
        max_mem_clock_mhz=nvml.value("nvmlDeviceGetMaxClockInfo", whole, pynvml.NVML_CLOCK_MEM),
        application_sm_clock_mhz=nvml.value("nvmlDeviceGetApplicationsClock", whole, pynvml.NVML_CLOCK_SM),
        ecc=_first_flag(nvml.value("nvmlDeviceGetEccMode", whole)),
        compute_capability=None if capability is None else ".".join(map(str, capability)),
    )


def _first_flag(states: Any) -> bool | None:
    """The state now, of a pair `(now, after the next reset)`."""
    return None if states is None else bool(states[0])
