"""Loaded by every Python that finds this folder first: sends `cuda` to the CPU once torch is imported.

Nothing is imported before it is asked for, so that a process that does without torch still does without it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType


def _torch(module: ModuleType) -> None:
    import on_card

    on_card.install()


def _measure(module: ModuleType) -> None:
    """The card hears which phase is being measured: faults are told by it."""
    from card import CARD

    measure = module.measure

    def told(request: object, emit: Callable[[object], None], hear: object) -> None:
        def telling(event: object) -> None:
            emit(event)
            if type(event).__name__ == "PhaseStarted":
                CARD.enter(event.cell_id, event.phase)  # type: ignore[attr-defined]

        measure(request, telling, hear)

    module.measure = told  # type: ignore[attr-defined]


def _cuda(module: ModuleType) -> None:
    """What takes a card a second would take this one minutes."""
    from msgspec import structs

    kind = module.Cuda
    kind.canary = structs.replace(kind.canary, image=(1, 64, 56, 56), repeats=1)
    kind.calibration = structs.replace(kind.calibration, matrix=192, image=(1, 8, 5, 7), copy_bytes=4 << 20, repeats=3)


def _tensorrt(module: ModuleType) -> None:
    """It looks where its input is, which is on the card as far as it can tell; the exporter finds it on the CPU."""
    import torch

    class OnCard(torch.Tensor):
        device = property(lambda self: torch.device("cuda", 0))  # type: ignore[assignment]

    prepare, export = module.prepare, module.export_onnx

    def prepared(network: object, example: torch.Tensor, wanted: object) -> object:
        return prepare(network, example.as_subclass(OnCard), wanted)

    def exported(network: object, example: torch.Tensor, model: object) -> None:
        export(network, example.as_subclass(torch.Tensor), model)

    module.prepare, module.export_onnx = prepared, exported  # type: ignore[attr-defined]


LINES = os.environ.get("CUDA_LINES")
ON_CARD = "ledger.so" in os.environ.get("LD_PRELOAD", "")
"""Without the ledger a process only notes which lines it reaches."""
AFTER = {
    "torch": _torch,
    "archbench.measure": _measure,
    "archbench.device.cuda": _cuda,
    "archbench.measure.runtimes.tensorrt": _tensorrt,
}


class _Then(importlib.abc.Loader):
    """Loads as the loader does that it stands for, and then does something to the module."""

    def __init__(self, loader: importlib.abc.Loader, then: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._then(module)

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self._looking = False

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        counted = bool(LINES) and name.startswith("archbench.")
        then = AFTER.get(name) if ON_CARD else None
        if self._looking or not (then or counted):
            return None
        self._looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking = False
        if spec is None or spec.loader is None:
            return spec
        if counted and spec.origin is not None:
            from cuda_lines import Loader

            spec.loader = Loader(name, spec.origin)
        if then is not None:
            spec.loader = _Then(spec.loader, then)
        return spec


if LINES:
    from cuda_lines import note_to

    note_to(LINES)
sys.meta_path.insert(0, _Finder())
