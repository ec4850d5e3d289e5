"""AOTInductor: the exported network compiled ahead of time into a package that runs without dynamo."""

from __future__ import annotations

import torch
import torch._inductor
from torch import Tensor, nn

from archbench.measure.runtimes import Engine, Wanted, size_of
from archbench.measure.runtimes.pytorch import counted, quantized_statically


def prepare(module: nn.Module, example: Tensor, wanted: Wanted) -> Engine:
    """See `archbench.measure.runtimes.Prepare`. Weights are in the cell's precision; threads are torch's."""
    package, quantized = wanted.folder / "model.pt2", None
    if not package.exists():
        if wanted.cell.quantize != "off":
            module = quantized_statically(module, example, wanted)
            quantized = counted(module)
        program = torch.export.export(module, (example,))
        frozen = {"freezing": wanted.cell.quantize != "off"}  # only constants are packed for int8 kernels
        torch._inductor.aoti_compile_and_package(program, package_path=str(package), inductor_configs=frozen)
    call = torch._inductor.aoti_load_package(str(package))
    told = {"version": str(torch.__version__), "threads": str(torch.get_num_threads())}
    told["precision"] = wanted.cell.precision
    return Engine(call=call, told=told, artifact_bytes=size_of(package), quantized=quantized)
