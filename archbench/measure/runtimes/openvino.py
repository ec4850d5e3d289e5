"""OpenVINO: the exported network as its own intermediate representation, compiled for the CPU with its latency hint."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import openvino
import torch
from torch import Tensor, nn

from archbench.measure.runtimes import Engine, Wanted, size_of
from archbench.model.axes import Precision
from archbench.model.errors import UnsupportedError

os.environ.setdefault("NNCF_CI", "1")  # or NNCF, when it is imported, would report its use over the network
HINTS: dict[Precision, str] = {"fp32": "f32", "amp-bf16": "bf16", "amp-fp16": "f16"}
"""What it calls them. Unless told otherwise it takes bf16 wherever the CPU has instructions for it."""
_PRODUCTS = frozenset({"Convolution", "GroupConvolution", "FullyConnected", "MatMul"})
"""Of the graph that is executed."""
_GROUP = 32
"""Values that share one dynamic scale: the smallest that its kernels know, and the most exact."""


def prepare(module: nn.Module, example: Tensor, wanted: Wanted) -> Engine:
    """See `archbench.measure.runtimes.Prepare`. Weights stay in fp32 on disk: nothing is rounded that was not asked."""
    path = wanted.folder / "model.xml"
    found, quantizes = path.exists(), wanted.cell.quantize != "off"
    if not found:
        model = _converted(module, example)
        if quantizes:
            model = _quantized(model, wanted)
        openvino.save_model(model, path, compress_to_fp16=False)
    hint = HINTS[wanted.cell.precision]
    settings = {
        "INFERENCE_NUM_THREADS": wanted.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": hint,
        # Where weights are compressed it would quantise activations too unless it is told not to.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP if wanted.cell.quantize == "int8-dynamic" else 0,
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    told = {
        "version": openvino.__version__.partition("-")[0],
        "device": ",".join(compiled.get_property("EXECUTION_DEVICES")),
        "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")),
        "precision": compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
    }
    for what, value in {"device": "CPU", "precision": hint}.items():
        if told[what] != value:
            raise UnsupportedError(f"its {what} is {told[what]} and not {value}")
    request = compiled.create_infer_request()
    outputs = range(len(compiled.outputs))

    def call(images: Tensor) -> list[Tensor]:
        given: Any = request.infer({0: images.numpy()}, share_inputs=True)
        return [torch.from_numpy(given[index]) for index in outputs]

    quantized = _counted(compiled, path, wanted) if quantizes and not found else None
    return Engine(call=call, told=told, artifact_bytes=size_of(*wanted.folder.glob("model.*")), quantized=quantized)


def _converted(module: nn.Module, example: Tensor) -> Any:
    program = torch.export.export(module, (example,))
    root = logging.getLogger()
    level, filters = root.level, root.filters.copy()
    try:
        return openvino.convert_model(program)
    except Exception as error:
        raise UnsupportedError(_cause(str(error))) from error
    finally:  # the converter sets them, and leaves them so where it fails
        root.setLevel(level)
        root.filters = filters


def _quantized(model: Any, wanted: Wanted) -> Any:
    """By NNCF, to which OpenVINO's documentation leaves it."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    if wanted.cell.quantize == "int8-static":
        batches = [batch.numpy() for batch in wanted.calibration()]
        return nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)


def _counted(compiled: Any, path: Path, wanted: Wanted) -> tuple[int, int]:
    """Of the convolutions and products those that are quantised, and all.

    Of weights alone by the file, where they lie in eight bits; else by the precision that each executed operator says.
    """
    nodes = compiled.get_runtime_model().get_ordered_ops()
    info = [node.get_rt_info() for node in nodes]
    products = [one for one in info if str(one["layerType"].astype(str)) in _PRODUCTS]
    if wanted.cell.quantize == "int8-static":
        taken = sum(str(one["runtimePrecision"].astype(str)) in ("i8", "u8") for one in products)
        return taken, len(products)
    stored = openvino.Core().read_model(path).get_ordered_ops()
    compressed = sum(
        one.get_type_name() == "Constant" and one.get_element_type().get_type_name() in ("i8", "u8") for one in stored
    )
    return compressed, max(compressed, len(products))


def _cause(report: str) -> str:
    """The line of a conversion's report that says what it lacks; the first ones name places in OpenVINO's sources."""
    lines = [line.strip(" -") for line in report.splitlines()]
    telling = ("[PyTorch Frontend]", "Conversion is failed for", "No conversion rule")
    return next((line for sign in telling for line in lines if line.startswith(sign)), lines[-1] if lines else report)
