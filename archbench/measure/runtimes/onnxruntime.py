"""ONNX Runtime: the network exported to ONNX by torch's exporter, quantised by the runtime's own quantiser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import psutil
import torch
from torch import Tensor, nn

from archbench.measure.runtimes import Engine, Wanted, export_onnx, size_of
from archbench.model.errors import UnsupportedError

PROVIDER = "CPUExecutionProvider"
_FLOAT = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
"""Operators of convolutions and linear layers, as they are before and after the runtime's own fusions."""
_QUANTIZED = frozenset(
    {"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat"}
    | {"DynamicQuantizeMatMul"}
)


def prepare(module: nn.Module, example: Tensor, wanted: Wanted) -> Engine:
    """See `archbench.measure.runtimes.Prepare`. The shape is fixed: nothing is left to be found out while it runs."""
    folder = wanted.folder
    model = folder / "model.onnx"
    found, quantizes = model.exists(), wanted.cell.quantize != "off"
    if not found:
        export_onnx(module, example, model)
        if quantizes:
            _quantize(model, wanted)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = wanted.threads
    options.inter_op_num_threads = 1
    optimized = folder / "optimized.onnx"
    if quantizes and not found:
        options.optimized_model_filepath = str(optimized)  # what really runs, to be counted
        options.log_severity_level = 3  # it warns that such a file is of this machine alone
    before = psutil.Process().num_threads()
    session = onnxruntime.InferenceSession(str(model), options, providers=[PROVIDER])
    pool = psutil.Process().num_threads() - before  # what is asked for is all that it says itself
    active = session.get_providers()
    if active != [PROVIDER]:
        raise UnsupportedError(f"it runs under {', '.join(active)} and not under {PROVIDER}")
    (source,) = session.get_inputs()

    def call(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {source.name: images.numpy()})]

    told = {
        "version": onnxruntime.__version__,
        "provider": ",".join(active),
        "threads": str(1 + pool),
        "precision": "fp32" if source.type == "tensor(float)" else source.type,
    }
    return Engine(
        call=call,
        told=told,
        artifact_bytes=size_of(*folder.glob("model.onnx*")),
        quantized=_counted(optimized) if quantizes and not found else None,
    )


def _quantize(model: Path, wanted: Wanted) -> None:
    """Put the quantised network in place of the other, by what the runtime's documentation advises for CPUs.

    Statically: quantised and dequantised at each operator (QDQ), weights by channel. Dynamically: unsigned weights,
    which its integer convolution asks for.
    """
    from onnxruntime import quantization as ort

    plain = model.with_name("plain.onnx")
    ort.quant_pre_process(str(model), str(plain), skip_symbolic_shape=True)
    for old in model.parent.glob("model.onnx*"):
        old.unlink()
    if wanted.cell.quantize == "int8-static":
        reader = _Batches(onnx.load(str(plain), load_external_data=False).graph.input[0].name, wanted.calibration())
        ort.quantize_static(
            str(plain),
            str(model),
            reader,
            per_channel=True,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
        )
    else:
        ort.quantize_dynamic(str(plain), str(model), weight_type=ort.QuantType.QUInt8)
    for old in plain.parent.glob("plain.onnx*"):
        old.unlink()


def _counted(optimized: Path) -> tuple[int, int]:
    """Of the convolutions and products in what the session runs those in eight bits, and all; then the file goes."""
    operators = Counter(node.op_type for node in onnx.load(str(optimized), load_external_data=False).graph.node)
    for file in optimized.parent.glob("optimized.onnx*"):
        file.unlink()
    taken = sum(operators[name] for name in _QUANTIZED)
    return taken, taken + sum(operators[name] for name in _FLOAT)


class _Batches:
    """Calibration batches as the quantiser reads them, one after the other."""

    def __init__(self, name: str, batches: Any) -> None:
        self._batches: Iterator[dict[str, Any]] = iter([{name: batch.numpy()} for batch in batches])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)
