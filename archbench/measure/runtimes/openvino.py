"""OpenVINO: the exported network as its own intermediate representation, compiled for the CPU with its latency hint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import openvino
import torch
from torch import Tensor, nn

from archbench.measure.runtimes import Engine, size_of
from archbench.model.axes import Precision
from archbench.model.errors import UnsupportedError

HINTS: dict[Precision, str] = {"fp32": "f32", "amp-bf16": "bf16"}
"""What it calls them. Unless told otherwise it takes bf16 wherever the CPU has instructions for it."""


def prepare(module: nn.Module, example: Tensor, *, precision: Precision, threads: int, folder: Path) -> Engine:
    """See `archbench.measure.runtimes.Prepare`. Weights stay in fp32 on disk: nothing is rounded that was not asked."""
    path = folder / "model.xml"
    if not path.exists():
        program = torch.export.export(module, (example,))
        root = logging.getLogger()
        level, filters = root.level, root.filters.copy()
        try:
            model = openvino.convert_model(program)
        except Exception as error:
            raise UnsupportedError(_cause(str(error))) from error
        finally:  # the converter sets them, and leaves them so where it fails
            root.setLevel(level)
            root.filters = filters
        openvino.save_model(model, path, compress_to_fp16=False)
    hint = HINTS[precision]
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    told = {
        "version": openvino.__version__.partition("-")[0],
        "device": ",".join(compiled.get_property("EXECUTION_DEVICES")),
        "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")),
        "precision": compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
    }
    wanted = {"device": "CPU", "threads": str(threads), "precision": hint}
    for what, value in wanted.items():
        if told[what] != value:
            raise UnsupportedError(f"its {what} is {told[what]} and not {value}")
    request = compiled.create_infer_request()
    outputs = range(len(compiled.outputs))

    def call(images: Tensor) -> list[Tensor]:
        found: Any = request.infer({0: images.numpy()}, share_inputs=True)
        return [torch.from_numpy(found[index]) for index in outputs]

    return Engine(call=call, told=told, artifact_bytes=size_of(*folder.glob("model.*")))


def _cause(report: str) -> str:
    """The line of a conversion's report that says what it lacks; the first ones name places in OpenVINO's sources."""
    lines = [line.strip(" -") for line in report.splitlines()]
    telling = ("[PyTorch Frontend]", "Conversion is failed for", "No conversion rule")
    return next((line for sign in telling for line in lines if line.startswith(sign)), lines[-1] if lines else report)
