"""TensorRT: the network exported to ONNX and built into an engine for this very GPU, in the network's own types.

Written by its documentation (Python API of TensorRT 10 and 11) and not yet run: no GPU was at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorrt
import torch
from torch import Tensor, nn

from archbench.measure.runtimes import Engine, Wanted, export_onnx, size_of
from archbench.model.errors import UnsupportedError


def prepare(module: nn.Module, example: Tensor, wanted: Wanted) -> Engine:
    """See `archbench.measure.runtimes.Prepare`. Strongly typed: nothing is rounded that the network does not round.

    Inputs and outputs stay on the device: the addresses of torch's tensors are bound. It runs on a stream of its own,
    between what torch's stream has done and what it does next, for on the default one it would wait for the device.
    """
    if example.device.type != "cuda":
        raise UnsupportedError("it runs on GPUs of NVIDIA alone")
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    plan = wanted.folder / "model.engine"
    if not plan.exists():
        model = wanted.folder / "model.onnx"
        export_onnx(module, example, model)
        plan.write_bytes(_built(model, logger, tf32=wanted.cell.precision == "tf32"))
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise UnsupportedError("its engine cannot be loaded again")
    context = engine.create_execution_context()
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
        context.set_tensor_address(name, output.data_ptr())
    own = torch.cuda.Stream(example.device)  # type: ignore[no-untyped-call]

    def call(images: Tensor) -> list[Tensor]:
        torchs = torch.cuda.current_stream()
        context.set_tensor_address(source, images.data_ptr())
        own.wait_stream(torchs)
        if not context.execute_async_v3(own.cuda_stream):
            raise RuntimeError("TensorRT could not issue the step")
        torchs.wait_stream(own)
        return list(outputs.values())

    told = {"version": str(tensorrt.__version__), "device": torch.cuda.get_device_name(example.device)}
    return Engine(call=call, told={**told, "precision": wanted.cell.precision}, artifact_bytes=size_of(plan))


def _built(model: Path, logger: Any, *, tf32: bool) -> bytes:
    """The serialized engine of an ONNX file. Raises `UnsupportedError` with the first operator that it cannot take."""
    builder = tensorrt.Builder(logger)
    # From TensorRT 11 on every network is, and the flag is ignored.
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        raise UnsupportedError(parser.get_error(0).desc())
    config = builder.create_builder_config()
    (config.set_flag if tf32 else config.clear_flag)(tensorrt.BuilderFlag.TF32)  # on unless told otherwise
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise UnsupportedError("its builder found no engine for it")
    return bytes(serialized)


def _dtype(kind: Any) -> torch.dtype:
    known = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT64": torch.int64}
    return known[kind.name]
