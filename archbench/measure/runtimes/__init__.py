"""Runtimes and formats beside eager PyTorch: each makes of a built network a call that takes and gives what it does.

One file a runtime, with a function `prepare` as `Prepare` describes it. What it gives is called with a torch tensor and
returns torch tensors: a caller's copies in and out are part of the time, as they are of whoever serves the network.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from msgspec import Struct
from msgspec.structs import replace
from torch import Tensor, nn

from archbench.device.environment import version_of
from archbench.model.axes import FORMATS, RUNTIMES, Runtime
from archbench.model.cell import Cell
from archbench.model.errors import UnsupportedError, first_line


class Wanted(Struct, frozen=True, kw_only=True):
    """What a runtime is asked for."""

    cell: Cell
    threads: int
    folder: Path
    """Where there is an artifact of the very same making, or where one is to be left."""
    calibration: Callable[[], Sequence[Tensor]]
    """Batches like the example, from which ranges of activations are taken."""


class Engine(Struct, frozen=True, kw_only=True):
    """A network prepared by a runtime, for inputs of one shape."""

    call: Callable[[Tensor], object]
    told: dict[str, str]
    """What the runtime says of itself, read back: its version, threads, and what it runs on and in."""
    artifact_bytes: int | None = None
    """Of what it keeps on disk, weights included; `None` where it keeps nothing."""
    quantized: tuple[int, int] | None = None
    """How many of the convolutions and linear layers are quantised in what runs, and how many there are.

    Counted where it was made; `None` where none was to be quantised, or the artifact was found.
    """


Prepare = Callable[[nn.Module, Tensor, Wanted], Engine]
"""How a network is prepared, from an example of its input: from the artifact in the folder where there is one, else
anew, leaving one there. The module is in evaluation mode and stays as it is. Whatever goes wrong may raise what it
likes."""


class Prepared:
    """The forward call of a converted cell: the first one prepares it, as torch.compile's does.

    `artifacts` outlives it, and may hold what an earlier process left.
    """

    def __init__(
        self, cell: Cell, module: nn.Module, *, threads: int, artifacts: Path, calibration: Callable[[], list[Tensor]]
    ) -> None:
        self._module = module
        self._wanted = Wanted(cell=cell, threads=threads, folder=artifacts, calibration=calibration)
        self.engine: Engine | None = None
        """`None` until the first call."""

    def __call__(self, *inputs: object, **named: object) -> object:
        """The network's output. Raises `UnsupportedError` where the runtime cannot take the network."""
        images = inputs[0] if len(inputs) == 1 and not named else None
        if not isinstance(images, Tensor):
            runtime = self._wanted.cell.runtime
            raise UnsupportedError(f"{runtime} is given networks that take one tensor, and this one takes more")
        if self.engine is None:
            self.engine, output = self._made(images)
            return output
        return self.engine.call(images)

    def _made(self, images: Tensor) -> tuple[Engine, object]:
        """What the runtime makes of the network, and its first output: whether it runs shows only then."""
        cell, threads = self._wanted.cell, self._wanted.threads
        name = cell.runtime if cell.quantize == "off" else f"{cell.runtime} {cell.quantize}"
        prepare = load(cell)
        wanted = replace(self._wanted, folder=self._wanted.folder / making_of(cell, images))
        wanted.folder.mkdir(parents=True, exist_ok=True)
        try:
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
                engine = prepare(self._module, images, wanted)
            output = engine.call(images)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # exporters raise whatever they meet: it is this network that they cannot take
            raise UnsupportedError(f"{name} cannot take this network: {first_line(error)}") from error
        if engine.quantized is not None and engine.quantized[0] == 0:
            raise UnsupportedError(f"{name} cannot take this network: its quantiser took none of its layers")
        if (has := engine.told.get("threads", str(threads))) != str(threads):
            raise UnsupportedError(f"{name} runs on {has} threads and not on {threads}")
        return engine, output


def making_of(cell: Cell, images: Tensor) -> str:
    """The name of the folder of an artifact: another for whatever makes it another, other versions above all.

    So one that an older version has left in the cache is never taken for one of today's.
    """
    facts, form = RUNTIMES.get(cell.runtime), FORMATS.get(cell.runtime, {}).get(cell.quantize)
    packages = ("archbench", "torch", *(facts.packages if facts else ()), *(form.packages if form else ()))
    # A checkout that is not installed has no version.
    made = [f"{package} {version_of(package) or 'unknown'}" for package in packages]
    made += [cell.runtime, cell.precision, cell.quantize, cell.compile_mode, str(tuple(images.shape))]
    return hashlib.sha256("\n".join(made).encode()).hexdigest()[:16]


def load(cell: Cell) -> Prepare:
    """Import a cell's runtime and quantiser, which takes seconds. Raises what the import of a broken one raises."""
    prepare = importlib.import_module(module_of(cell.runtime)).prepare
    form = FORMATS.get(cell.runtime, {}).get(cell.quantize)
    for module in form.modules if form else ():
        importlib.import_module(module)
    return cast(Prepare, prepare)


def module_of(name: Runtime) -> str:
    """The file of a runtime, as it is imported. A module `torch` in here would stand for torch itself in this file."""
    return f"{__name__}.{'pytorch' if name in ('torch', 'aot-inductor') else name}"


def export_onnx(module: nn.Module, example: Tensor, model: Path) -> None:
    """Write the network as ONNX, for inputs of the example's shape and type, with weights in a file beside it."""
    program = torch.export.export(module, (example,))
    try:
        exported = torch.onnx.export(program, (), dynamo=True, verbose=False)
    except torch.onnx.errors.OnnxExporterError as error:  # it names its own steps: what is lacking is what it came of
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UnsupportedError(first_line(cause)) from error
    assert exported is not None, "the exporter gives a program unless it is told to write a file"
    exported.save(str(model))


def size_of(*files: Path) -> int:
    """Bytes of an artifact's files."""
    return sum(file.stat().st_size for file in files)
