"""AOTInductor: the exported network compiled ahead of time into a package that runs without dynamo."""

from __future__ import annotations

import torch
import torch._inductor
from torch import Tensor, nn

from archbench.measure.runtimes import Engine, Wanted, note_quantized, noted_quantized, size_of
from archbench.measure.runtimes.pytorch import counted, quantized_statically


def prepare(module: nn.Module, example: Tensor, wanted: Wanted) -> Engine:
    """See `archbench.measure.runtimes.Prepare`. Weights are in the cell's precision; threads are torch's."""
    package = wanted.folder / "model.pt2"
    if not package.exists():
        if wanted.quantize != "off":
            module = quantized_statically(module, example, wanted)
            note_quantized(wanted.folder, counted(module))
        program = torch.export.export(module, (example,))
        frozen = {"freezing": wanted.quantize != "off"}  # only constants are packed for int8 kernels
        torch._inductor.aoti_compile_and_package(program, package_path=str(package), inductor_configs=frozen)
    call = torch._inductor.aoti_load_package(str(package))
    told = {"version": str(torch.__version__), "threads": str(torch.get_num_threads()), "precision": wanted.precision}
    quantized = noted_quantized(wanted.folder)
    return Engine(call=call, told=told, artifact_bytes=size_of(package), quantized=quantized)
