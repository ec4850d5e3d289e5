"""Where a run happened: the machine, its drivers and its libraries."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct


class Gpu(Struct, frozen=True, kw_only=True):
    """One accelerator as NVML describes it. `None` = NVML does not say on this device."""

    name: str
    uuid: str
    memory_bytes: int | None = None
    mig_enabled: bool | None = None
    persistence: bool | None = None
    power_limit_w: float | None = None
    max_sm_clock_mhz: int | None = None
    ecc: bool | None = None


class Environment(Struct, frozen=True, kw_only=True):
    """The machine and the libraries that a run used. Collected without importing torch."""

    hardware_class: str
    """What decides comparability: `NVIDIA H200` or `AMD EPYC x2`. Rows of different classes are never compared."""
    device: str
    """`cpu` or `cuda:N`, as resolved for this run."""

    cpu_model: str
    cpu_count: int
    """Cores that this process may use."""
    memory_bytes: int
    os: str
    kernel: str
    container: str | None = None
    governor: str | None = None
    turbo: bool | None = None
    gpus: tuple[Gpu, ...] = ()
    driver_version: str | None = None

    python_version: str
    torch_version: str
    torchvision_version: str | None = None
    timm_version: str | None = None
    cuda_version: str | None = None
    libraries: dict[str, str] = {}
    """Version of every other package that can change a figure: numpy, fvcore, triton, nvidia-cudnn, ..."""
    archbench_version: str
    git_commit: str | None = None
    """archbench's own commit where it runs from a checkout, with `+dirty` where it has changes."""
    settings: dict[str, str] = {}
    """Environment variables that change a figure (`OMP_NUM_THREADS`, `PYTORCH_*`, `CUDA_VISIBLE_DEVICES`, ...)."""

    @property
    def fingerprint(self) -> str:
        """Hash of all of the above: two runs with the same fingerprint may be continued by each other."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:16]
