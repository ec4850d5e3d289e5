"""What a kind of device is to whoever measures on it: one object, from one file a kind; its clock, allocator, rates.

A further kind (`mps`, `xpu`) is a file beside `cpu.py` and `cuda.py`, and its name in
`archbench.model.axes.DeviceKind`. The files import torch inside their methods: the parent reads the same objects.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from archbench.device.health import Finding, Probe
from archbench.model.axes import DEVICE_KINDS, CompileMode, DeviceKind, Precision
from archbench.model.environment import Environment, Gpu
from archbench.model.errors import UnfitError, UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

    from archbench.device.cuda import CudaAllocator


class CanarySizes(Struct, frozen=True, kw_only=True):
    """The canary's work: a convolution with a 3x3 kernel, a square matrix product, and small layers.

    Where a library keeps the kernel that it once chose for a shape, as cuDNN does before it looks whether it may search
    (v8's plan cache), the image must be one that no network has (theirs are square): the canary would choose for it.
    """

    image: tuple[int, int, int, int]
    """Shape of the convolution's input; its output has as many channels."""
    matrix: int
    layers: int = 0
    """Of a chain of small convolutions, normalised and rectified."""
    repeats: int = 1
    """How often the work is done for one reading."""


class CalibrationSizes(Struct, frozen=True, kw_only=True):
    """How large the calibration's work is: long enough to time, several times the caches, two seconds in all."""

    matrix: int
    image: tuple[int, int, int, int]
    """Shape of the input of a 3x3 convolution, with as many channels out. Not square: see `CanarySizes`."""
    copy_bytes: int
    precisions: tuple[Precision, ...]
    """The arithmetics at which product and convolution are timed."""
    repeats: int = 10


class Kind(Protocol):
    """One kind of device. What has a value or a body here is what holds of a kind that says nothing else."""

    name: DeviceKind
    canary: CanarySizes
    calibration: CalibrationSizes
    activity: str | None = None
    """The name of its kernels' own kind of activity in torch's profiler; None where operators are all there is."""
    records_graphs: bool = False
    """Whether torch.compile's modes with CUDA graphs record any."""
    own_clock: bool = False
    """Whether the host only issues work, and events on the device tell its time."""
    is_host: bool = False
    """It is the host's own processor: its threads, its memory, and no allocator's snapshot."""
    numbered: bool = False
    """Whether there can be several: `cuda:1`."""
    process_bytes: int
    """What a process holds of its memory besides the cell's tensors: libraries, workspace, a context."""
    short_rounds: int = 1
    """Rounds of a suite that names none: a second one tells how processes differ, where starting one costs little."""
    follows_canary: bool = False
    """Its speed wanders as the canary's does, so that figures are corrected by it."""
    granule: int | None = None
    """What an allocation rounds up to, in bytes; None where that is not known, and no memory predicted."""
    blocked_convolutions: bool = False
    """Its convolutions are oneDNN's, which copy operands by torch's allocator: see `archbench.analyze.memory`."""
    autocasts_as_cuda: bool = False
    """Its autocast promotes to fp32 what CUDA's does, and not only what the CPU's does."""
    counts_energy: bool = False
    """Whether its monitor counts what it uses."""

    # What the parent asks, which never imports torch.

    def rates(self, cores: int | None, hardware_class: str = "") -> Rates:
        """How long things take on a machine of which nothing is stored; `cores` are the host's usable ones.

        `None`: the machine is not here, and is taken for the one that the constants are about; likewise without its
        class.
        """

    def resolve(self, number: int | None, asked: str) -> str:
        """The device of this number, by default the first. Raises `UsageError`, naming the word asked, for none."""

    def first(self) -> str | None:
        """What `auto` takes, if there is one."""

    def describe(self, device: str) -> tuple[Gpu | None, str | None]:
        """The accelerator and its driver's version, as far as they are told."""
        return None, None

    def hardware_class(self, processor: str, gpu: Gpu | None) -> str:
        """See `Environment.hardware_class`; `processor` is the host's, such as `AMD EPYC 7B13 x2 AVX2`."""
        return processor

    def room(self, environment: Environment) -> int | None:
        """Bytes that processes may fill together, where that is known."""
        return None

    def refuses(self, precision: Precision, compile_mode: CompileMode) -> str | None:
        """Why a cell with these toggles would not be what it says; None where nothing speaks against it."""
        return None

    def preflight(self, device: str) -> Iterator[Finding]:
        """What must be right at this very moment, before every run."""

    def examine(self, environment: Environment) -> Iterator[Finding]:
        """What `archbench doctor` says of this kind of device, besides what it says of the host."""

    def is_gone(self, environment: Environment) -> bool:
        """The device was there when it was described, and is no more."""
        return False

    # What a process that measures asks.

    def probe(self, device: str, uuid: str | None, ours: Collection[int]) -> Probe:
        """See `open_probe`."""

    def find(self, environment: Environment) -> torch.device:
        """The device of `environment`, by the number it has in this process. Raises `UsageError` where it has none."""

    def use(self, device: torch.device) -> None:
        """Make `device` the one that steps run on."""
        return

    def current(self, device: torch.device) -> AbstractContextManager[object]:
        """The same for the length of a block: clocks' events, and what a network launches by itself, go there."""
        return nullcontext()

    def clock(self, device: torch.device) -> Clock:
        return Clock()

    def stopwatch(self) -> Stopwatch:
        return Stopwatch()

    def synchronize(self, device: torch.device) -> None:
        """Wait until `device` has nothing left to do."""
        return

    def allocator(self, device: torch.device) -> CudaAllocator | None:
        """The allocator of a device with memory of its own; None where that is the host's."""
        return None

    def empty_cache(self) -> None:
        """Give back to the driver what is held and not used."""
        return

    def release(self) -> None:
        """Give back what libraries keep for themselves too: before any step was recorded in a graph, which uses it."""
        return

    def cache_bytes(self, device: torch.device) -> int | None:
        """The size of its largest cache, which what is moved may never leave; None where that is not told."""
        return None

    def uuid(self, device: torch.device) -> str | None:
        """The device's own identity, as its monitor knows it."""
        return None

    def limit_memory(self, device: torch.device, more_bytes: int | None) -> None:
        """Let this process hold so much more than now, and fail beyond; `None`: as much as there is.

        Raises `UnfitError` where that cannot be done.
        """
        raise UnfitError(f"a process's memory on {self.name} cannot be limited, so what fits there is only predicted")

    def settle(self) -> None:
        """Wait until nothing of a finished step can disturb another process."""
        return


_KINDS: tuple[str, ...] = tuple(sorted(DEVICE_KINDS, key="cpu".__eq__))
"""In the order in which `auto` looks for one: the CPU, which is always there, last."""


@cache
def kind_named(name: str) -> Kind:
    """The kind called `name`, `xpu` being `archbench.device.xpu.Xpu`. Raises `KeyError` for an unknown one."""
    if name not in _KINDS:
        raise KeyError(name)
    kind: Kind = getattr(import_module(f"archbench.device.{name}"), name.capitalize())()
    return kind


def named_kind(device: str) -> Kind | None:
    """The kind that a word such as `cuda:1` is of, whether or not there is such a device; None for what is no word."""
    name, colon, number = device.strip().lower().partition(":")
    kind = kind_named(name) if name in _KINDS else None
    return kind if not colon or (kind and kind.numbered and re.fullmatch("[0-9]{1,4}", number)) else None


def resolve_device(text: str = "auto") -> str:
    """Return `cpu` or `cuda:N` for `auto`, `cpu`, `cuda` or `cuda:N`; `auto` takes the first GPU, else the CPU.

    Raises `UsageError` for a word that is no device, and for a GPU that is not there, listing what is.
    """
    word = text.strip().lower()
    if word == "auto":
        return next(found for name in _KINDS if (found := kind_named(name).first()))
    if "," in word or word.endswith(":*"):
        raise UsageError(f"device {text!r} is several, and this is measured on one; give one, such as cuda:0")
    kind = named_kind(word)
    if kind is None:
        words = ["auto"]
        for name in sorted(_KINDS):
            words += [name, f"{name}:N"] if kind_named(name).numbered else [name]
        raise UsageError(f"device {text!r} is not one of {', '.join(words)}{did_you_mean(word, words)}")
    number = word.partition(":")[2]
    return kind.resolve(int(number) if number else None, text)


def open_probe(device: str, *, uuid: str | None = None, ours: Collection[int] = ()) -> Probe:
    """Open the probe of `cpu` or `cuda:N`; one whose NVML is missing or forbidden reads nothing, and says why.

    `uuid` is torch's `get_device_properties(N).uuid`, with or without `GPU-`; give it wherever torch is there to ask,
    because CUDA numbers unlike GPUs in another order than NVML. `ours`: further processes that may use the GPU.
    """
    return kind_named(device.partition(":")[0]).probe(device, uuid, ours)


def find_device(environment: Environment) -> torch.device:
    """The device that `environment` is about. Raises `UsageError` where this process is not shown it."""
    return kind_named(environment.kind).find(environment)


def kind_of(device: torch.device) -> Kind:
    """The kind that a torch device is of."""
    return kind_named(device.type)


class Rates(Struct, frozen=True, kw_only=True):
    """Constants of one kind of machine, in seconds unless the name says otherwise. Ballpark figures: they say minutes.

    An operator is one call of a forward pass: a weight layer, a normalisation, an activation.
    """

    # A step: arithmetic, traffic of activations, and the launch of each operator, one after the other.
    flops: dict[Precision, float]
    """FLOP/s that a network reaches."""
    activation_bytes_per_s: float
    operator_s: float
    """To issue one operator eagerly."""
    cores: int
    """The host's usable ones."""
    memory_bytes: int | None = None
    """Of a device of its own, where the constants are of one of a certain size."""
    start: float
    """Until the first group: imports, preflight, calibration."""
    process: float
    """To fork a process and, on a GPU, to create a context and load cuDNN and cuBLAS; and to end it."""
    parameter: float = 17e-9  # vgg16 and vit_b_16, timed on two cores of a Xeon
    """To draw one random weight."""
    counts: float = 0.6e-3  # resnet18 to densenet201, timed there
    """To count a network, per operator."""
    prediction: float = 2.5e-3
    """To predict the memory of an inference step, per operator; of a training step three times as long."""
    search: float
    """cuDNN's search with ten plans, per operator of an eager inference step, without what their runs take; of a
    training step, which has three convolutions for each, three times as long."""
    monitor: float
    """Looks at the monitor and the canary, in each of latency and throughput."""
    noise: float
    """Share of the way from the shortest to the longest sampling that noise makes a cell go."""
    memory: float
    compile_cold: tuple[float, float]
    """Of one compilation: fixed, and per operator. For training, twice that."""
    compile_cores: float
    """Cores that one compilation keeps busy on average, where it has as many as it wants."""
    compile_warm: tuple[float, float]
    convert_cold: tuple[float, float] = (2.0, 0.02)
    """Of one conversion for a runtime that does not compile by a C++ compiler, or to int8 kernels; likewise."""
    graph_check: float
    """The profiler's look at the CUDA graphs that a step launches."""
    profile: float = 5.0
    report: tuple[float, float] = (5.0, 0.02)
    """Fixed, and per cell."""
    speed: float = 1.0
    """Step times of this machine over those of the constants above."""
    pace: float = 1.0
    """Time spent on cells over what the rules predict from their step times."""
    steps: dict[str, float] = {}
    """Measured step times by cell id, which go before all of the above; likewise compilations."""
    colds: dict[str, float] = {}
    warms: dict[str, float] = {}
    basis: str
    """Where the figures come from, for readers."""


Step = Callable[[], object]
MS = 1e-3
NS = 1e-9


class ClockError(RuntimeError):
    """A clock returned what cannot be a duration: zero, negative, or not a number."""


class Timing(Struct, frozen=True):
    """One measured stretch of work. Seconds, for all of its steps together. `None` = this device has no such time."""

    host_s: float
    device_s: float | None = None
    """Between events on the device. On a stream that was idle this contains every gap between launches."""
    issue_s: float | None = None
    """What the host took to issue the steps, before it waited for them; waits inside a step count."""

    @property
    def seconds(self) -> float:
        """On the device's own clock where it was read, else on the host's."""
        return self.host_s if self.device_s is None else self.device_s


class Backlogged(Struct, frozen=True):
    """Steps that the device was given all at once, behind a backlog. Seconds, for all of them together."""

    host_s: float
    """The host's, what was left of the backlog included."""
    device_s: float
    """From the end of the backlog to the end of the last step."""
    issue_s: float
    held: bool
    """The backlog outlasted the issuing, so `device_s` contains no gap between launches. Else it is an upper bound: the
    launch queue was full, or the step waits for the device, or the host was held up."""


class Clock:
    """Times steps on one device; by itself the host's clock, for devices that have finished when the call returns.

    Nothing else in the worker waits for a device.
    """

    def latency(self, step: Step, steps: int = 1) -> Timing:
        """Time `steps` steps, each waited for before the next begins: one batch in flight."""
        start = time.perf_counter_ns()
        for _ in range(steps):
            step()
        return Timing(checked((time.perf_counter_ns() - start) * NS))

    def burst(self, step: Step, steps: int) -> Timing:
        """Time `steps` steps issued without waiting in between: pipelined."""
        return self.latency(step, steps)  # a CPU has no queue

    def backlogged(self, step: Step, steps: int, lead_s: float) -> Backlogged:
        """Time `steps` steps on the device, issued behind a backlog that keeps it busy for `lead_s`."""
        host_s = self.burst(step, steps).host_s
        return Backlogged(host_s, host_s, host_s, held=True)  # the host is the device, and never waits for itself

    def waits_inside(self, step: Step) -> bool:
        """Do one step and say whether it waited for the device itself, as far as torch can tell."""
        return False

    def synchronize(self) -> None:
        """Wait until the device has nothing left to do."""
        return


class Stopwatch:
    """Moments between which a device worked, noted without waiting for it; by itself the host's."""

    def read(self) -> Any:
        return time.perf_counter_ns()

    def seconds(self, before: Any, after: Any) -> float:
        """From one moment to a later one, once the device has come there."""
        return float(after - before) * NS

    def restart(self) -> None:
        """The moments noted so far will not be asked for again."""
        return


def checked(seconds: float) -> float:
    """Return `seconds` if it can be a duration. Events passed in the wrong order, or a broken clock, end here."""
    if not 0.0 < seconds < float("inf"):
        raise ClockError(f"a clock measured {seconds!r} s for a piece of work")
    return seconds
