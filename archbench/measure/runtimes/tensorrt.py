"""TensorRT: the network exported to ONNX and built into an engine for this very GPU, in the network's own types.

Written by its documentation (Python API of TensorRT 10 and 11) and not yet run: no GPU was at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorrt
import torch
from torch import Tensor, nn

from archbench.measure.runtimes import Engine, Wanted, export_onnx, size_of
from archbench.model.errors import UnsupportedError


class _Logger(tensorrt.ILogger):  # type: ignore[misc]
    """Keeps the last error: a call that fails gives None or False, and says why to the logger alone."""

    def __init__(self) -> None:
        tensorrt.ILogger.__init__(self)
        self.error = ""

    def log(self, severity: Any, msg: str) -> None:
        if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
            self.error = msg
        if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR, tensorrt.ILogger.WARNING):
            print(f"TensorRT: {msg}", file=sys.stderr)


_LOGGER = _Logger()
"""TensorRT keeps the first logger of a process for everything."""


def prepare(module: nn.Module, example: Tensor, wanted: Wanted) -> Engine:
    """See `archbench.measure.runtimes.Prepare`. Strongly typed: nothing is rounded that the network does not round.

    Inputs and outputs stay on the device: the addresses of torch's tensors are bound. It runs on a stream of its own,
    between what torch's stream has done and what it does next, for on the default one it would wait for the device.
    """
    if example.device.type != "cuda":
        raise UnsupportedError("it runs on GPUs of NVIDIA alone")
    plan = wanted.folder / "model.engine"
    if not plan.exists():
        model = wanted.folder / "model.onnx"
        export_onnx(module, example, model)
        plan.write_bytes(_built(model, tf32=wanted.cell.precision == "tf32"))
    runtime = tensorrt.Runtime(_LOGGER)
    engine = _done("its engine cannot be loaded again", runtime.deserialize_cuda_engine, plan.read_bytes())
    context = _done("its engine cannot be made ready", engine.create_execution_context)
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = {name: engine.get_tensor_mode(name) for name in names}
    (source,) = (name for name in names if modes[name] == tensorrt.TensorIOMode.INPUT)
    outputs = {
        name: torch.empty(
            tuple(context.get_tensor_shape(name)), dtype=_dtype(engine.get_tensor_dtype(name)), device=example.device
        )
        for name in names
        if name != source
    }
    for name, output in outputs.items():
        _done(f"it takes no memory for {name}", context.set_tensor_address, name, output.data_ptr())
    own = torch.cuda.Stream(example.device)  # type: ignore[no-untyped-call]

    def call(images: Tensor) -> list[Tensor]:
        torchs = torch.cuda.current_stream()
        _done(f"it takes no memory for {source}", context.set_tensor_address, source, images.data_ptr())
        own.wait_stream(torchs)
        _done("it could not issue the step", context.execute_async_v3, own.cuda_stream)
        torchs.wait_stream(own)
        return list(outputs.values())

    told = {"version": str(tensorrt.__version__), "device": torch.cuda.get_device_name(example.device)}
    return Engine(call=call, told={**told, "precision": wanted.cell.precision}, artifact_bytes=size_of(plan))


def _done(trouble: str, call: Callable[..., Any], *given: object) -> Any:
    """What a call gives. Raises where that is None or False: `torch.OutOfMemoryError`, or `UnsupportedError`."""
    _LOGGER.error = ""
    found = call(*given)
    if found is None or found is False:
        if any(words in _LOGGER.error for words in ("OutOfMemory", "out of memory")):
            raise torch.OutOfMemoryError(f"TensorRT: {_LOGGER.error}")
        raise UnsupportedError(f"{trouble}: {_LOGGER.error}" if _LOGGER.error else trouble)
    return found


def _built(model: Path, *, tf32: bool) -> bytes:
    """The serialized engine of an ONNX file. Raises `UnsupportedError` with the first operator that it cannot take."""
    builder = tensorrt.Builder(_LOGGER)
    # From TensorRT 11 on every network is, and the flag is ignored.
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, _LOGGER)
    if not parser.parse_from_file(str(model)):
        raise UnsupportedError(parser.get_error(0).desc())
    config = builder.create_builder_config()
    (config.set_flag if tf32 else config.clear_flag)(tensorrt.BuilderFlag.TF32)  # on unless told otherwise
    return bytes(_done("its builder found no engine for it", builder.build_serialized_network, network, config))


def _dtype(kind: Any) -> torch.dtype:
    known = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT64": torch.int64}
    return known[kind.name]
