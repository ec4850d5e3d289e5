"""What is known of each runtime without importing it: the packages it needs, and what it can be asked for."""

from __future__ import annotations

from importlib.util import find_spec

from msgspec import Struct

from archbench.model.axes import PLAIN, Precision, Runtime
from archbench.model.cell import Cell


class RuntimeFacts(Struct, frozen=True, kw_only=True):
    """One runtime beside eager PyTorch."""

    packages: tuple[str, ...] = ()
    """What it imports that archbench itself does not need."""
    extra: str = ""
    """Of archbench, which brings them."""
    precisions: tuple[Precision, ...] = ("fp32",)
    """Those of the cell that it can be held to; it is read back whether it was."""


RUNTIMES: dict[Runtime, RuntimeFacts] = {
    "onnxruntime": RuntimeFacts(packages=("onnxruntime", "onnxscript"), extra="onnx"),
    "openvino": RuntimeFacts(packages=("openvino",), extra="openvino", precisions=("fp32", "amp-bf16")),
    "aot-inductor": RuntimeFacts(precisions=("fp32", "bf16")),
}


def refusal(cell: Cell) -> str | None:
    """Why a cell cannot run under its runtime, whatever the network; `None` where nothing speaks against it."""
    name = cell.runtime
    if name == PLAIN.runtime:
        return None
    facts = RUNTIMES[name]
    missing = [package for package in facts.packages if find_spec(package) is None]
    if missing:
        return f"{name} needs {' and '.join(missing)}, not installed here: pip install 'archbench[{facts.extra}]'"
    if cell.device != "cpu":
        return f"{name} is measured on the CPU alone so far"
    if cell.phase != "inference":
        return f"{name} runs inference only"
    if cell.precision not in facts.precisions:
        return f"{name} is held to {' or '.join(facts.precisions)} here, not to {cell.precision}"
    if cell.compile_mode != PLAIN.compile_mode:
        return f"{name} compiles by itself; leave compile_mode off"
    if cell.memory_format != PLAIN.memory_format:
        return f"{name} lays its tensors out by itself; leave memory_format contiguous"
    return None
