"""As much of TensorRT's Python API (version 10) as archbench calls, with a truth of its own: ONNX Runtime on the CPU.

An engine is the ONNX file with all its weights, and runs on the memory whose addresses it was given. What TensorRT
answers with None or False is answered so here, and told to the logger, in words of its own logs. With TF32, which is on
unless told otherwise, inputs are rounded to its ten bits. STUB_TENSORRT_LOADS=VERSION: the runtime is of that version,
and takes no engines of another; STUB_TENSORRT_STREAM=N: it knows that stream alone; STUB_TENSORRT_WANTS=BYTES: so many
must be free for a context.
"""

from __future__ import annotations

import ctypes
import math
import os
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from card import CARD, MEMORY_BYTES, Stream

__version__ = "10.99.0"
KNOWN = {"Conv", "BatchNormalization", "Relu", "GlobalAveragePool", "ReduceMean", "Flatten", "Reshape", "Gemm"}
"""Operators that its parser takes."""


class NetworkDefinitionCreationFlag(IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


BuilderFlag = Enum("BuilderFlag", ["FP16", "TF32"])
TensorIOMode = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
DataType = Enum("DataType", ["FLOAT", "HALF", "INT64"])
_TYPES = {
    "tensor(float)": (DataType.FLOAT, np.float32),
    "tensor(float16)": (DataType.HALF, np.float16),
    "tensor(int64)": (DataType.INT64, np.int64),
}


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)

    def log(self, severity: int, msg: str) -> None:
        raise NotImplementedError("is the user's")


class Builder:
    def __init__(self, logger: ILogger) -> None:
        logger.log(ILogger.WARNING, "a builder's usual warning")

    def create_network(self, flags: int = 0) -> SimpleNamespace:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED, "another would round as it likes"
        return SimpleNamespace(model=None)

    def create_builder_config(self) -> SimpleNamespace:
        flags = {BuilderFlag.TF32}
        return SimpleNamespace(flags=flags, set_flag=flags.add, clear_flag=flags.discard)

    def build_serialized_network(self, network: SimpleNamespace, config: SimpleNamespace) -> memoryview | None:
        if network.model is None:
            return None
        head = f"{__version__} {BuilderFlag.TF32 in config.flags}\n"
        return memoryview(head.encode() + network.model.SerializeToString())


class OnnxParser:
    def __init__(self, network: SimpleNamespace, logger: ILogger) -> None:
        self._network = network
        self._errors: list[str] = []

    def parse_from_file(self, model: str) -> bool:
        parsed = onnx.load(model)  # with the weights beside it
        self._errors = [f"no importer for {node.op_type}" for node in parsed.graph.node if node.op_type not in KNOWN]
        self._network.model = None if self._errors else parsed
        return not self._errors

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(desc=lambda: self._errors[index])


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        head, _, model = serialized_engine.partition(b"\n")
        version, tf32 = head.decode().split()
        if version != os.environ.get("STUB_TENSORRT_LOADS", version):
            self._logger.log(ILogger.ERROR, f"Error Code 1: the engine is of version {version}")
            return None
        return Engine(model, tf32 == "True", self._logger)


class Engine:
    def __init__(self, model: bytes, tf32: bool, logger: ILogger) -> None:
        CARD.use()
        self._logger = logger
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.tf32 = tf32
        self._inputs = self.session.get_inputs()
        self.tensors = {one.name: one for one in (*self._inputs, *self.session.get_outputs())}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in [one.name for one in self._inputs] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return _TYPES[self.tensors[name].type][0]

    def create_execution_context(self) -> Context | None:
        if int(os.environ.get("STUB_TENSORRT_WANTS", "0")) > MEMORY_BYTES - CARD.ledger.live():
            self._logger.log(ILogger.ERROR, "Error Code 2: OutOfMemory (no further information)")
            return None
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._at: dict[str, int] = {}

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._engine.tensors[name].shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        known = name in self._engine.tensors
        if known:
            self._at[name] = memory
        return known

    def execute_async_v3(self, stream_handle: int) -> bool:
        CARD.use()
        stream = int(os.environ.get("STUB_TENSORRT_STREAM", Stream.cuda_stream))
        if stream_handle != stream or self._at.keys() != self._engine.tensors.keys():
            return False
        bound = {name: self._memory(name) for name in self._at}
        outputs = [name for name in bound if self._engine.get_tensor_mode(name) is TensorIOMode.OUTPUT]
        given = {name: self._rounded(memory) for name, memory in bound.items() if name not in outputs}
        for name, found in zip(outputs, self._engine.session.run(outputs, given), strict=True):
            bound[name][...] = found
        return True

    def _memory(self, name: str) -> Any:
        shape, dtype = self.get_tensor_shape(name), np.dtype(_TYPES[self._engine.tensors[name].type][1])
        there = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(self._at[name])
        return np.frombuffer(memoryview(there), dtype).reshape(shape)

    def _rounded(self, given: Any) -> Any:
        if not (self._engine.tf32 and given.dtype == np.float32):
            return given
        return ((given.view(np.int32) + 0x1000) & ~0x1FFF).view(np.float32)
