"""The environment of a run: host, accelerator and software put together, and the class that decides comparability."""

from __future__ import annotations

from archbench.device.host import read_host
from archbench.device.kind import kind_named
from archbench.device.software import read_software
from archbench.model.environment import Environment


def collect_environment(device: str) -> Environment:
    """Describe the machine for a run on `device` (`cpu` or `cuda:N`); never imports torch, takes about 50 ms.

    Holds nothing that changes by itself (load, temperature, free memory), so that a run can be resumed.
    """
    host = read_host()
    software = read_software()
    kind = kind_named(device.partition(":")[0])
    gpu, driver = kind.describe(device)
    return Environment(
        hardware_class=kind.hardware_class(host, gpu),
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
