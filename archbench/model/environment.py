"""Where a run happened: the machine, its drivers and its libraries, and what its device reached there."""

from __future__ import annotations

import hashlib
from typing import cast

import msgspec
from msgspec import Struct

from archbench.model.axes import DeviceKind, Precision

ANY_HARDWARE = "any"
"""The hardware class of figures that no hardware decides: those of `archbench run --static`."""


class Gpu(Struct, frozen=True, kw_only=True):
    """One accelerator as NVML describes it, or torch where NVML does not answer. `None` = it does not say."""

    name: str
    """In MIG mode the slice's: `NVIDIA H200 MIG 1g.18gb`."""
    uuid: str
    """Of the whole GPU, also where a slice is meant; empty where nobody tells."""
    memory_bytes: int | None = None
    mig_enabled: bool | None = None
    persistence: bool | None = None
    power_limit_w: float | None = None
    max_sm_clock_mhz: int | None = None
    max_mem_clock_mhz: int | None = None
    application_sm_clock_mhz: int | None = None
    """Clock that an administrator set; below the maximum it is why this GPU is slower than its name."""
    ecc: bool | None = None
    mig_uuid: str | None = None
    """The slice that the run used, on a GPU in MIG mode."""
    compute_capability: str | None = None


class Environment(Struct, frozen=True, kw_only=True):
    """The machine and the libraries that a run used. Collected without importing torch."""

    hardware_class: str
    """What decides comparability: rows of different classes are never compared.

    A GPU, or a slice of one, by its name (`NVIDIA H200`, `NVIDIA H200 MIG 1g.18gb`): clocks, memory and compute follow
    from that. A CPU by its model, the cores that the process may use and its widest vector unit
    (`AMD EPYC 7B13 x2 AVX2`): with another number of cores or another unit, kernels and threads are others too.
    Driver, libraries and settings are no part of the class: comparing across them is what comparisons are for.
    """
    device: str
    """`cpu` or `cuda:N`, as resolved for this run."""

    cpu_model: str
    cpu_count: int
    """Cores that this process may use: its affinity, and its container's quota rounded down."""
    memory_bytes: int
    """What this process may use: the machine's memory or its container's limit."""
    os: str
    kernel: str
    container: str | None = None
    """`docker`, `podman`, `kubernetes`, `lxc`, `gvisor`, ...; `None` = none seen."""
    hypervisor: str | None = None
    """`firecracker`, `Amazon EC2`, `KVM`, ... under which this machine is virtual; `None` = none seen."""
    governor: str | None = None
    turbo: bool | None = None
    smt: bool | None = None
    """Two hardware threads share a core."""
    transparent_hugepages: str | None = None
    gpus: tuple[Gpu, ...] = ()
    """The accelerator of this run; empty on the CPU."""
    driver_version: str | None = None

    python_version: str
    torch_version: str | None = None
    """With the build: `2.15.0+cu132`; `None` where torch is not installed."""
    torchvision_version: str | None = None
    timm_version: str | None = None
    cuda_version: str | None = None
    """That torch is built for: `13.2`, or `hip 7.1` where it is built for ROCm."""
    libraries: dict[str, str] = {}
    """Version of everything else that can change a figure: numpy, triton, nvidia-cudnn, the C++ compiler, ..."""
    archbench_version: str
    git_commit: str | None = None
    """archbench's own commit where it runs from a checkout, with `+dirty` where it has changes."""
    settings: dict[str, str] = {}
    """Environment variables that change a figure (`OMP_NUM_THREADS`, `PYTORCH_*`, `CUDA_VISIBLE_DEVICES`, ...)."""
    node: str | None = None
    """The machine's name, its host's unless `ARCHBENCH_NODE` gives another; `None` in runs of before it was asked."""

    @property
    def kind(self) -> DeviceKind:
        """The kind of device, for which cells are planned and constants of measuring differ."""
        return cast(DeviceKind, self.device.partition(":")[0])

    @property
    def device_key(self) -> str:
        """What names the device on this machine whatever it is numbered: the UUID of the GPU or its slice, or `cpu`.

        A GPU whose UUID nobody tells goes by its number.
        """
        return (self.gpus[0].mig_uuid or self.gpus[0].uuid or self.device) if self.gpus else self.device

    @property
    def machine(self) -> str | None:
        """What names the device among all machines: `node07/cpu`, `node07/GPU-8f2c01ab`; `None` on a nameless one.

        NVML takes the beginning of a UUID for the whole of it as long as no other begins so.
        """
        return None if self.node is None else f"{self.node}/{self.device_key[:12]}"

    @property
    def anywhere(self) -> Environment:
        """The same without what tells one device of its class from another: what shards of one suite share."""
        gpus = tuple(msgspec.structs.replace(gpu, uuid="", mig_uuid=None) for gpu in self.gpus)
        settings = {name: value for name, value in self.settings.items() if not name.endswith("_VISIBLE_DEVICES")}
        return msgspec.structs.replace(self, device=self.kind, gpus=gpus, settings=settings)

    @property
    def fingerprint(self) -> str:
        """Hash of all of the above but archbench's own commit, the installed memory and the machine's name.

        Runs that share it may be continued by each other. A commit that changes a figure raises `PROTOCOL_VERSION`; any
        other must not cost a night's measuring, nor must a virtual machine whose memory grows while it is used.
        """
        relevant = msgspec.structs.replace(self, git_commit=None, memory_bytes=0, node=None)
        # Runs of before machines had names have no `node`, and go on.
        text = msgspec.json.encode(relevant, order="deterministic").replace(b',"node":null', b"")
        return hashlib.sha256(text).hexdigest()[:16]


class Calibration(Struct, frozen=True, kw_only=True):
    """Measured ceilings of one device: a matrix product and a convolution at each arithmetic, and a large copy."""

    matmul_flops: dict[str, float]
    """FLOP/s of a square matrix product on random data, by arithmetic: `fp32`, `tf32`, `bf16`, `fp16`."""
    conv_flops: dict[str, float] = {}
    """FLOP/s of a 3x3 convolution in the faster memory format, likewise; empty in runs of earlier versions. Libraries
    have kernels of their own for it, which may be faster than their product."""
    copy_bytes_per_s: float
    """Bytes read plus bytes written per second by a copy that is larger than the caches."""

    def peak(self, precision: Precision) -> float | None:
        """FLOP/s that a cell's convolutions and products could reach, the best measured; None where none was."""
        arithmetic = precision.removeprefix("amp-")
        return max((one[arithmetic] for one in (self.matmul_flops, self.conv_flops) if arithmetic in one), default=None)
