"""AOTInductor: the exported network compiled ahead of time into a package that runs without dynamo."""

from __future__ import annotations

from pathlib import Path

import torch
import torch._inductor
from torch import Tensor, nn

from archbench.measure.runtimes import Engine, size_of
from archbench.model.axes import Precision


def prepare(module: nn.Module, example: Tensor, *, precision: Precision, threads: int, folder: Path) -> Engine:
    """See `archbench.measure.runtimes.Prepare`. Weights are in the cell's precision; threads are torch's."""
    package = folder / "model.pt2"
    if not package.exists():
        program = torch.export.export(module, (example,))
        torch._inductor.aoti_compile_and_package(program, package_path=str(package))
    call = torch._inductor.aoti_load_package(str(package))
    told = {"version": str(torch.__version__), "threads": str(torch.get_num_threads()), "precision": precision}
    return Engine(call=call, told=told, artifact_bytes=size_of(package))
