"""What is known of runtimes and formats without importing any: the packages they need, and what goes with what."""

from __future__ import annotations

from importlib.util import find_spec

from msgspec import Struct
from msgspec.structs import replace

from archbench.model.axes import PLAIN, DeviceKind, Precision, Quantize, Runtime
from archbench.model.cell import Cell


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


def refusal(cell: Cell) -> str | None:
    """Why a cell cannot run under its runtime and in its format, whatever the network; `None` where it may."""
    if not cell.is_converted:
        return None
    if cell.phase != "inference":
        return f"{cell.runtime if cell.quantize == 'off' else cell.quantize} runs inference only"
    return _runtime_refusal(cell) or _format_refusal(cell)


def _runtime_refusal(cell: Cell) -> str | None:
    name = cell.runtime
    if name == PLAIN.runtime:
        return None
    facts = RUNTIMES[name]
    if cell.device != facts.device:  # before what is missing: to install it would not help
        where = "the CPU alone so far" if facts.device == "cpu" else "GPUs of NVIDIA alone"
        return f"{name} is measured on {where}"
    if missing := _missing(facts.packages, name, facts.extra):
        return missing
    if cell.precision not in facts.precisions:
        held = f"{name} is held to {' or '.join(facts.precisions)} here, not to {cell.precision}"
        return f"{held}: {facts.otherwise}"
    if cell.compile_mode != PLAIN.compile_mode:
        return f"{name} compiles by itself; leave compile_mode off"
    if cell.memory_format != PLAIN.memory_format:
        return f"{name} lays its tensors out by itself; leave memory_format contiguous"
    return None


def _format_refusal(cell: Cell) -> str | None:
    name = cell.quantize
    if name == PLAIN.quantize:
        return None
    if name == "fp8" and cell.device == "cpu":
        return "fp8 needs a GPU of compute capability 8.9 or newer: CPUs have no arithmetic for it"
    known = FORMATS.get(cell.runtime, {})
    if name not in known:
        return f"{cell.runtime} has no {name} here; it has {', '.join(known) or 'no quantised format'}"
    facts = known[name]
    if facts.device not in (None, cell.device):
        return f"{name} under {cell.runtime} is lowered for CPUs alone"
    if missing := _missing(facts.packages, f"{name} under {cell.runtime}", "quant"):
        return missing
    if cell.precision not in facts.precisions:
        return f"{name} under {cell.runtime} goes with {' or '.join(facts.precisions)}, not with {cell.precision}"
    if name == "int8-static" and cell.memory_format != PLAIN.memory_format:
        return f"{name} lays its tensors out by itself; leave memory_format contiguous"
    return None


def _missing(packages: tuple[str, ...], what: str, extra: str) -> str | None:
    missing = [package for package in packages if find_spec(package) is None]
    if not missing:
        return None
    return f"{what} needs {' and '.join(missing)}, not installed here: pip install 'archbench[{extra}]'"
