"""The environment of a run: host, accelerator and software put together, and the class that decides comparability."""

from __future__ import annotations

from typing import Any

import pynvml

from archbench.device import nvml
from archbench.device.host import Host, read_host
from archbench.device.software import read_software
from archbench.device.visible import VisibleGpu, gpus_by_torch, visible_gpus
from archbench.model.environment import Environment, Gpu


def collect_environment(device: str) -> Environment:
    """Describe the machine for a run on `device` (`cpu` or `cuda:N`); never imports torch, takes about 50 ms.

    Holds nothing that changes by itself (load, temperature, free memory), so that a run can be resumed.
    """
    host = read_host()
    software = read_software()
    gpu, driver = (None, None) if device == "cpu" else _accelerator(device)
    return Environment(
        hardware_class=hardware_class(device, host, gpu),
        device=device,
        cpu_model=host.cpu_model,
        cpu_count=host.cpu_count,
        memory_bytes=host.memory_bytes,
        os=host.os,
        kernel=host.kernel,
        container=host.container,
        hypervisor=host.hypervisor,
        governor=host.governor,
        turbo=host.turbo,
        smt=host.smt,
        transparent_hugepages=host.transparent_hugepages,
        gpus=() if gpu is None else (gpu,),
        driver_version=driver,
        python_version=software.python_version,
        torch_version=software.torch_version,
        torchvision_version=software.torchvision_version,
        timm_version=software.timm_version,
        cuda_version=software.cuda_version,
        libraries=software.libraries,
        archbench_version=software.archbench_version,
        git_commit=software.git_commit,
        settings=software.settings,
    )


def hardware_class(device: str, host: Host, gpu: Gpu | None) -> str:
    """`NVIDIA H200`, `NVIDIA H200 MIG 1g.18gb`, or `AMD EPYC 7B13 x2 AVX2`; see `Environment.hardware_class`."""
    if device == "cpu":
        return f"{host.cpu_model} x{host.cpu_count} {host.vector_unit}"
    return "unknown GPU" if gpu is None else gpu.name


def _accelerator(device: str) -> tuple[Gpu | None, str | None]:
    """The GPU and the driver's version, as NVML tells them; else the GPU as torch does."""
    ordinal = int(device.partition(":")[2] or 0)
    try:
        # One session around all: without persistence mode the driver unloads the GPU whenever nobody holds it.
        with nvml.session():
            visible = visible_gpus().gpus
            driver = nvml.value("nvmlSystemGetDriverVersion")
            return (_describe(visible[ordinal]) if ordinal < len(visible) else None), driver
    except nvml.NvmlError:
        told = gpus_by_torch()
        return (told[ordinal] if ordinal < len(told) else None), None


def _describe(seen: VisibleGpu) -> Gpu:
    whole = nvml.value("nvmlDeviceGetHandleByUUID", seen.uuid)
    part = None if seen.mig_uuid is None else nvml.value("nvmlDeviceGetHandleByUUID", seen.mig_uuid)
    memory = nvml.value("nvmlDeviceGetMemoryInfo", part or whole)
    limit_mw = nvml.value("nvmlDeviceGetEnforcedPowerLimit", whole)
    capability = nvml.value("nvmlDeviceGetCudaComputeCapability", whole)
    return Gpu(
        name=seen.mig_name or seen.name,
        uuid=seen.uuid,
        memory_bytes=None if memory is None else memory.total,
        mig_enabled=_first_flag(nvml.value("nvmlDeviceGetMigMode", whole)),
        persistence=_flag(nvml.value("nvmlDeviceGetPersistenceMode", whole)),
        power_limit_w=None if limit_mw is None else limit_mw / 1e3,
        max_sm_clock_mhz=nvml.value("nvmlDeviceGetMaxClockInfo", whole, pynvml.NVML_CLOCK_SM),
        max_mem_clock_mhz=nvml.value("nvmlDeviceGetMaxClockInfo", whole, pynvml.NVML_CLOCK_MEM),
        application_sm_clock_mhz=nvml.value("nvmlDeviceGetApplicationsClock", whole, pynvml.NVML_CLOCK_SM),
        ecc=_first_flag(nvml.value("nvmlDeviceGetEccMode", whole)),
        mig_uuid=seen.mig_uuid,
        compute_capability=None if capability is None else ".".join(map(str, capability)),
    )


def _flag(state: Any) -> bool | None:
    return None if state is None else bool(state)


def _first_flag(states: Any) -> bool | None:
    """The state now, of a pair `(now, after the next reset)`."""
    return None if states is None else bool(states[0])
