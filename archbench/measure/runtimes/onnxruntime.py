"""ONNX Runtime: the network exported to ONNX by torch's exporter, run by one of the runtime's execution providers."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from archbench.measure.runtimes import Engine, size_of
from archbench.model.axes import Precision
from archbench.model.errors import UnsupportedError

PROVIDER = "CPUExecutionProvider"


def prepare(module: nn.Module, example: Tensor, *, precision: Precision, threads: int, folder: Path) -> Engine:
    """See `archbench.measure.runtimes.Prepare`. The shape is fixed: nothing is left to be found out while it runs."""
    model = folder / "model.onnx"
    if not model.exists():
        exported = torch.onnx.export(torch.export.export(module, (example,)), (), dynamo=True, verbose=False)
        assert exported is not None, "the exporter gives a program unless it is told to write a file"
        exported.save(str(model))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=[PROVIDER])
    active = session.get_providers()
    if active != [PROVIDER]:
        raise UnsupportedError(f"it runs under {', '.join(active)} and not under {PROVIDER}")
    (name,) = (one.name for one in session.get_inputs())

    def call(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {name: images.numpy()})]

    told = {"version": onnxruntime.__version__, "provider": PROVIDER, "threads": str(threads), "precision": precision}
    return Engine(call=call, told=told, artifact_bytes=size_of(*folder.glob("model.onnx*")))
