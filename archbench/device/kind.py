"""What a kind of device is to whoever measures on it: one object, from one file a kind.

A further kind (`mps`, `xpu`) is a file beside `cpu.py` and `cuda.py`, a line in `kind_of`, and its name in
`archbench.model.axes.DeviceKind`. The files import torch inside their methods: the parent reads the same objects.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from archbench.device.clock import Clock
from archbench.model.axes import DeviceKind, Precision
from archbench.model.environment import Environment

if TYPE_CHECKING:
    import torch


class CanarySizes(Struct, frozen=True, kw_only=True):
    """The canary's work: a convolution with a 3x3 kernel and a square matrix product.

    Where a library keeps the kernel that it once chose for a shape, as cuDNN does before it looks whether it may search
    (v8's plan cache), the image must be one that no network has: the canary would choose for it. Networks' images are
    square.
    """

    image: tuple[int, int, int, int]
    """Shape of the convolution's input; its output has as many channels."""
    matrix: int
    repeats: int = 1
    """How often the work is done for one reading."""


class CalibrationSizes(Struct, frozen=True, kw_only=True):
    """How large the calibration's work is: long enough to time, several times the caches, a second in all."""

    matrix: int
    copy_bytes: int
    precisions: tuple[Precision, ...]
    """The arithmetics whose matrix product is timed."""
    repeats: int = 10


class Allocator(Protocol):
    """The caching allocator of a device that has memory of its own. Bytes throughout."""

    @property
    def backend(self) -> str:
        """Which allocator torch uses."""

    def reset_peaks(self) -> None:
        """Begin the peaks anew at what lives now."""

    def allocated(self) -> int:
        """What lives now."""

    def peak_allocated(self) -> int:
        """The most that has lived since `reset_peaks`."""

    def peak_reserved(self) -> int:
        """The most that was held from the driver since `reset_peaks`, what is cached for later use included."""

    def free(self) -> int:
        """What the driver has left to give."""

    def snapshot(self, step: Callable[[], object]) -> object:
        """Do one step and return what https://pytorch.org/memory_viz shows, to be pickled."""


class Kind(Protocol):
    """One kind of device."""

    name: DeviceKind
    canary: CanarySizes
    calibration: CalibrationSizes
    activity: str | None
    """The name of its kernels' own kind of activity in torch's profiler; None where operators are all there is."""
    records_graphs: bool
    """Whether torch.compile's modes with CUDA graphs record any."""

    def find(self, environment: Environment) -> torch.device:
        """The device that `environment` is about, whatever number it has in this process.

        Raises `UsageError` where this process is shown no such device.
        """

    def use(self, device: torch.device) -> None:
        """Make `device` the one that steps run on."""

    def clock(self, device: torch.device) -> Clock:
        """A clock of `device`."""

    def synchronize(self, device: torch.device) -> None:
        """Wait until `device` has nothing left to do."""

    def allocator(self, device: torch.device) -> Allocator | None:
        """The allocator of a device with memory of its own; None where that is the host's."""

    def empty_cache(self) -> None:
        """Give back to the driver what is held and not used."""

    def release(self) -> None:
        """Give back what libraries keep for themselves too: before any step was recorded in a graph, which uses it."""

    def uuid(self, device: torch.device) -> str | None:
        """The device's own identity, as its monitor knows it."""

    def settle(self) -> None:
        """Wait until nothing of a finished step can disturb another process."""


@cache
def kind_named(name: DeviceKind) -> Kind:
    """The kind called `name`. Raises `KeyError` for one that archbench does not know."""
    from archbench.device.cpu import Cpu
    from archbench.device.cuda import Cuda

    kinds: dict[str, Callable[[], Kind]] = {"cpu": Cpu, "cuda": Cuda}
    return kinds[name]()


def find_device(environment: Environment) -> torch.device:
    """The device that `environment` is about. Raises `UsageError` where this process is not shown it."""
    return kind_named(environment.kind).find(environment)


def kind_of(device: torch.device) -> Kind:
    """The kind that a torch device is of."""
    return kind_named(device.type)  # type: ignore[arg-type]


def open_clock(device: torch.device) -> Clock:
    """A clock of a device."""
    return kind_of(device).clock(device)
