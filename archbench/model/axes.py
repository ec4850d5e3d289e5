"""The axes along which one network can be measured, their legal values, and which of these go together.

Runtimes and formats are known without importing any: by the packages that they need.
"""

from __future__ import annotations

from importlib.util import find_spec
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

ASIDE: tuple[Metric, ...] = ("memory", "numerics", "accuracy")
"""Found in phases of the same names, in which nothing is timed: others may use the cores meanwhile."""
LAST: tuple[Metric, ...] = ("profile", "compile")
"""Timed at once after those: who used the cores must be done before."""

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


class RuntimeFacts(Struct, frozen=True, kw_only=True):
    """One runtime beside eager PyTorch."""

    packages: tuple[str, ...] = ()
    """What it imports that archbench itself does not need."""
    extra: str = ""
    """Of archbench, which brings them."""
    device: DeviceKind = "cpu"
    """Where it is measured."""
    precisions: tuple[Precision, ...] = ("fp32",)
    """Those of the cell that it can be held to; it is read back whether it was."""
    otherwise: str = ""
    """Why it cannot be held to others."""


class Format(Struct, frozen=True, kw_only=True):
    """A number format under one runtime."""

    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    """Of the quantiser, whose import takes seconds that are no network's."""
    precisions: tuple[Precision, ...] = ("fp32",)
    """Of what is not quantised."""
    device: DeviceKind | None = None
    """Where alone it is one; `None`: wherever the runtime runs."""


RUNTIMES: dict[Runtime, RuntimeFacts] = {
    "onnxruntime": RuntimeFacts(
        packages=("onnxruntime", "onnxscript"),
        extra="onnx",
        otherwise="on a CPU it computes bf16 and fp16 by casting to fp32 and back",
    ),
    "openvino": RuntimeFacts(
        packages=("openvino",),
        extra="openvino",
        precisions=("fp32", "amp-bf16", "amp-fp16"),
        otherwise="it stores weights in fp32 and computes in what it is told",
    ),
    "aot-inductor": RuntimeFacts(
        precisions=("fp32", "bf16", "fp16"), otherwise="it exports the network's own types, without autocast"
    ),
    "tensorrt": RuntimeFacts(
        packages=("tensorrt", "onnxscript"),
        extra="tensorrt",
        device="cuda",
        precisions=("fp32", "tf32", "bf16", "fp16"),
        otherwise="it is given the network's own types, without autocast",
    ),
}
_OF_LINEAR = Format(packages=("torchao",), modules=("torchao.quantization",), precisions=("fp32", "bf16"))
_PT2E = Format(
    packages=("torchao",),
    modules=("torchao.quantization.pt2e.quantize_pt2e", "torchao.quantization.pt2e.quantizer.x86_inductor_quantizer"),
    device="cpu",
)
_ONNX = Format(modules=("onnxruntime.quantization",))
_NNCF = Format(packages=("nncf",), modules=("nncf",))
FORMATS: dict[Runtime, dict[Quantize, Format]] = {
    "torch": {
        "int8-dynamic": _OF_LINEAR,
        "int8-static": _PT2E,
        "int8-weight-only": _OF_LINEAR,
        "fp8": replace(_OF_LINEAR, precisions=("bf16",), device="cuda"),
    },
    # Its weight-only quantiser takes products alone (MatMul), and torch's exporter writes linear layers as Gemm.
    "onnxruntime": {"int8-dynamic": _ONNX, "int8-static": _ONNX},
    "openvino": {"int8-dynamic": _NNCF, "int8-static": _NNCF, "int8-weight-only": _NNCF},
    "aot-inductor": {"int8-static": _PT2E},
}
"""By runtime what its quantiser makes: torchao for PyTorch, ONNX Runtime's own, NNCF for OpenVINO."""


def refusal(asked: Toggled, phase: Phase, device: DeviceKind) -> str | None:
    """Why a cell cannot run under its runtime and in its format, whatever the network; `None` where it may."""
    if not asked.is_converted:
        return None
    if phase != "inference":
        return f"{asked.runtime if asked.quantize == 'off' else asked.quantize} runs inference only"
    return _runtime_refusal(asked, device) or _format_refusal(asked, device)


def _runtime_refusal(asked: Toggled, device: DeviceKind) -> str | None:
    name = asked.runtime
    if name == PLAIN.runtime:
        return None
    facts = RUNTIMES[name]
    if device != facts.device:  # before what is missing: to install it would not help
        where = "the CPU alone so far" if facts.device == "cpu" else "GPUs of NVIDIA alone"
        return f"{name} is measured on {where}"
    if missing := _missing(facts.packages, name, facts.extra):
        return missing
    if asked.precision not in facts.precisions:
        held = f"{name} is held to {' or '.join(facts.precisions)} here, not to {asked.precision}"
        return f"{held}: {facts.otherwise}"
    if asked.compile_mode != PLAIN.compile_mode:
        return f"{name} compiles by itself; leave compile_mode off"
    if asked.memory_format != PLAIN.memory_format:
        return f"{name} lays its tensors out by itself; leave memory_format contiguous"
    return None


def _format_refusal(asked: Toggled, device: DeviceKind) -> str | None:
    name = asked.quantize
    if name == PLAIN.quantize:
        return None
    if name == "fp8" and device == "cpu":
        return "fp8 needs a GPU of compute capability 8.9 or newer: CPUs have no arithmetic for it"
    known = FORMATS.get(asked.runtime, {})
    if name not in known:
        return f"{asked.runtime} has no {name} here; it has {', '.join(known) or 'no quantised format'}"
    facts = known[name]
    if facts.device not in (None, device):
        return f"{name} under {asked.runtime} is lowered for CPUs alone"
    if missing := _missing(facts.packages, f"{name} under {asked.runtime}", "quant"):
        return missing
    if asked.precision not in facts.precisions:
        return f"{name} under {asked.runtime} goes with {' or '.join(facts.precisions)}, not with {asked.precision}"
    if name == "int8-static" and asked.memory_format != PLAIN.memory_format:
        return f"{name} lays its tensors out by itself; leave memory_format contiguous"
    return None


def _missing(packages: tuple[str, ...], what: str, extra: str) -> str | None:
    missing = [package for package in packages if find_spec(package) is None]
    if not missing:
        return None
    return f"{what} needs {' and '.join(missing)}, not installed here: pip install 'archbench[{extra}]'"
