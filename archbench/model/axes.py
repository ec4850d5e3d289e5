"""The axes along which one network can be measured, and their legal values."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct
from msgspec.structs import replace

Phase = Literal["inference", "training"]
Precision = Literal["fp32", "tf32", "amp-bf16", "amp-fp16", "bf16", "fp16"]
CompileMode = Literal["off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
MemoryFormat = Literal["contiguous", "channels_last"]
Runtime = Literal["torch", "onnxruntime", "openvino", "aot-inductor", "tensorrt"]
"""What runs the network; `torch`: PyTorch itself, eager or compiled by `compile_mode`."""
Quantize = Literal["off", "int8-dynamic", "int8-static", "int8-weight-only", "fp8"]
"""In what convolutions and products compute. `dynamic`: ranges of activations are taken at each step; `static`: once,
from calibration images; `weight-only`: weights alone have eight bits, and are widened again to be multiplied."""
DeviceKind = Literal["cpu", "cuda"]
Head = Literal["classifier", "none", "features"]
Train = Literal["full", "head", "frozen-bn"]
Optimizer = Literal["sgd", "adamw"]
Loss = Literal["by-output", "cross-entropy", "binary-cross-entropy", "mean-square", "mean"]
Metric = Literal["static", "latency", "throughput", "memory", "energy", "compile", "numerics", "accuracy", "profile"]

PHASES: tuple[Phase, ...] = get_args(Phase)
PRECISIONS: tuple[str, ...] = get_args(Precision)
COMPILE_MODES: tuple[str, ...] = get_args(CompileMode)
MEMORY_FORMATS: tuple[str, ...] = get_args(MemoryFormat)
DEVICE_KINDS: tuple[DeviceKind, ...] = get_args(DeviceKind)
STATIC: tuple[Metric, ...] = ("static",)
"""Alone, it runs nothing: what is counted (parameters, MACs), predicted (memory) and traced (graph breaks)."""

TIMED: tuple[Metric, ...] = ("latency", "throughput")
"""What differs between processes, so that more than one of them is asked."""

Scalar = bool | int | float | str | None
"""What an architecture option may be: it must print the same way everywhere, since it is part of the cell's name."""


class Roles(Struct, frozen=True, kw_only=True):
    """In which role a network is used: what of it runs, and how it is trained. Parts of its name where they depart.

    Each field is an axis, a column and a lock: networks in different roles are never ranked together unasked.
    """

    head: Head = "classifier"
    """`none`: its last map; `features`: the pyramid of its maps, as a detector reads it."""
    deploy: bool = False
    """Folded for inference: branches into one, batch norms into convolutions."""
    train: Train = "full"
    """`head`: the last linear layer alone; `frozen-bn`: all but batch norms, which stay in evaluation mode."""
    optimizer: Optimizer = "sgd"
    """`sgd` has momentum."""
    checkpointing: bool = False
    """What blocks hold inside is computed again in the backward pass instead of being kept."""
    loss: Loss = "by-output"
    """What a training step minimises of every tensor of reals; `by-output`: what each looks like it is for."""

    @property
    def roles(self) -> dict[str, Scalar]:
        """Those that depart from the usual, by name."""
        return {name: value for name in ROLES if (value := getattr(self, name)) != getattr(AS_USUAL, name)}


ROLES: tuple[str, ...] = Roles.__struct_fields__
"""Their names."""
TRAINING_ROLES = ("train", "optimizer", "checkpointing", "loss")
"""Those that mean nothing at inference."""
AS_USUAL = Roles()


class Toggled(Struct, frozen=True, kw_only=True):
    """What has toggles among its fields: how a network is run, which changes its speed and not what it computes.

    Unless told otherwise it is run as papers measure it.
    """

    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"
    compile_mode: CompileMode = "off"
    runtime: Runtime = "torch"
    quantize: Quantize = "off"

    @property
    def is_eager(self) -> bool:
        """Whether PyTorch runs the network's own code, nothing being compiled or converted before the first step."""
        return self.compile_mode == "off" and not self.is_converted

    @property
    def is_converted(self) -> bool:
        """Whether what runs is made of the network, and is not PyTorch's own module: by a runtime or a quantiser."""
        return self.runtime != "torch" or self.quantize != "off"

    @property
    def toggles(self) -> Toggles:
        """These fields alone."""
        return Toggles(**{name: getattr(self, name) for name in TOGGLES})


class Toggles(Toggled, frozen=True):
    """A setting, whatever a suite calls it."""

    @property
    def label(self) -> str:
        """In words: `amp-bf16, channels_last, compile=default`."""
        return ", ".join([self.precision, *(self._word(name) for name in TOGGLES[1:] if self._is_on(name))])

    @property
    def order(self) -> tuple[int, ...]:
        """A sort key: precisions, memory formats, compilers, runtimes, formats, each as its axis is ordered."""
        return tuple(LEGAL[name].index(getattr(self, name)) for name in TOGGLES)

    def less_one(self) -> list[Toggles]:
        """The same with one of them off, for each that is on."""
        return [replace(self, **{name: getattr(PLAIN, name)}) for name in TOGGLES if self._is_on(name)]

    def added_to(self, before: Toggles) -> list[str]:
        """Those that `before` lacks, in words."""
        return [self._word(name) for name in TOGGLES if getattr(self, name) != getattr(before, name)]

    def _is_on(self, name: str) -> bool:
        return bool(getattr(self, name) != getattr(PLAIN, name))

    def _word(self, name: str) -> str:
        return f"{_PREFIX.get(name, '')}{getattr(self, name)}"


TOGGLES: tuple[str, ...] = Toggled.__struct_fields__
"""Their names: columns, axes, options."""
PLAIN = Toggles()
"""What others are held against."""
LEGAL: dict[str, tuple[str, ...]] = {
    "precision": PRECISIONS,
    "memory_format": MEMORY_FORMATS,
    "compile_mode": COMPILE_MODES,
    "runtime": get_args(Runtime),
    "quantize": get_args(Quantize),
}
_PREFIX = {"compile_mode": "compile="}
"""Before values that do not say by themselves what they are of."""
