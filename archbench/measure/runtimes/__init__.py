"""Runtimes beside eager PyTorch: each turns a built network into a call that takes and gives what the network does.

One file a runtime, with a function `prepare` as `Prepare` describes it. What it gives is called with a torch tensor and
returns torch tensors: a caller's copies in and out are part of the time, as they are of whoever serves the network.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from msgspec import Struct
from torch import Tensor, nn

from archbench.model.axes import Precision, Runtime
from archbench.model.errors import UnsupportedError, first_line

Call = Callable[[Tensor], object]


class Engine(Struct, frozen=True, kw_only=True):
    """A network prepared by a runtime, for inputs of one shape."""

    call: Call
    told: dict[str, str]
    """What the runtime says of itself: its version, the threads, provider and precision that it was given."""
    artifact_bytes: int
    """Of what it keeps on disk, weights included."""


class Prepare(Protocol):
    """How a network is prepared: from an artifact in `folder` where there is one, else anew, leaving one there."""

    def __call__(
        self, module: nn.Module, example: Tensor, *, precision: Precision, threads: int, folder: Path
    ) -> Engine:
        """`module` is in evaluation mode and stays as it is. Whatever goes wrong may raise what it likes."""


class Prepared:
    """The forward call of a cell under a runtime: the first one prepares it, as torch.compile's does.

    `folder` outlives it, and may hold what an earlier process left.
    """

    def __init__(self, name: Runtime, module: nn.Module, *, precision: Precision, threads: int, folder: Path) -> None:
        self._name = name
        self._module = module
        self._options: Any = {"precision": precision, "threads": threads, "folder": folder}
        self.engine: Engine | None = None
        """`None` until the first call."""

    def __call__(self, images: Tensor) -> object:
        """The network's output. Raises `UnsupportedError` where the runtime cannot take the network."""
        if self.engine is None:
            self.engine = self._made(images)
        return self.engine.call(images)

    def _made(self, images: Tensor) -> Engine:
        prepare = load(self._name)
        try:
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
                return prepare(self._module, images, **self._options)
        except MemoryError:
            raise
        except Exception as error:  # exporters raise whatever they meet: it is this network that they cannot take
            raise UnsupportedError(f"{self._name} cannot take this network: {first_line(error)}") from error


def load(name: Runtime) -> Prepare:
    """Import a runtime, which takes seconds. Raises what the import of a broken one raises."""
    return cast(Prepare, importlib.import_module(module_of(name)).prepare)


def module_of(name: Runtime) -> str:
    """The file of a runtime, as it is imported."""
    return f"{__name__}.{name.replace('-', '_')}"


def size_of(*files: Path) -> int:
    """Bytes of an artifact's files."""
    return sum(file.stat().st_size for file in files)
