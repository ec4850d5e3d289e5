"""What the host imports before it forks, so that no child has to: seconds each, and none of it may start a thread.

Measured on two cores (torch 2.15): torch 3 s, dynamo 2-4 s, timm 1 s, inductor 3 s. A module is imported once, before
the first task that needs it: a quick look at one torchvision network does not wait for timm.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType

from archbench.model.cell import Cell
from archbench.model.errors import UsageError
from archbench.model.messages import Request, Task

_DYNAMO = "torch._dynamo"
"""Of which a training step's optimizer wants a decorator, and tensors without data its configuration."""
_COUNTS = "archbench.analyze.memory"
_LIBRARIES = ("torchvision", "timm")
_FOR_COMPILE = "torch._inductor.compile_fx"


def import_torch() -> None:
    """Import torch as a process must that is going to fork: without a thread, without a look at CUDA.

    Raises whatever the import of a broken torch raises. From here on this process collects no garbage: to look through
    all of torch again and again would take a sixth of the import, and what a child collected, writing to the header of
    every object, it would have to copy.
    """
    gc.disable()
    # Whoever asks, during an import, whether there is a GPU must not create a context: a child could not use it.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    # numpy's own OpenBLAS starts its threads when it is loaded. That of torch, on Arm, reads the same variable and
    # must not be held to one thread: so numpy first, alone.
    threads = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import numpy  # noqa: F401

    if threads is None:
        del os.environ["OPENBLAS_NUM_THREADS"]
    else:
        os.environ["OPENBLAS_NUM_THREADS"] = threads
    import torch  # noqa: F401


def import_for(request: Request) -> None:
    """Import what the child of this request will need, unless that has been tried already."""
    global _served
    cell = request.group.cells[0] if isinstance(request, Task) else request.cell
    for name in _modules_for(cell):
        _import_once(name)
    # What counts, predicts or follows memory loads triton, and dynamo, in a child that has shown its first figure
    # before: the first child does so itself, and later ones find them here.
    if _served and isinstance(request, Task):
        _import_once(_COUNTS)
        if _counts_or_predicts(request):
            _import_once(_DYNAMO)
    _served += 1


_served = 0
"""Requests so far."""


def _counts_or_predicts(task: Task) -> bool:
    cell = task.group.cells[0]
    predicts = "memory" in task.metrics and cell.is_eager and cell.group_id not in task.carried.memory
    return predicts or ("static" in task.metrics and task.carried.counts is None)


@contextmanager
def _dynamo_when_asked() -> Iterator[None]:
    """Inside, `from torch._dynamo.utils import is_compile_supported` does not import dynamo.

    torchvision's RoIAlign has that line for a question which it asks of detectors alone; dynamo with its 600 modules is
    half of what an eager quick look would wait for. Whatever else is asked of dynamo meanwhile imports it.
    """
    names = (_DYNAMO, f"{_DYNAMO}.utils")
    if any(name in sys.modules for name in names):
        yield
        return
    sys.modules.update({name: _Later(name) for name in names})
    try:
        yield
    finally:
        _Later.give_way()


class _Later(ModuleType):
    """Stands for a module until something is asked of it, or a module inside of it is imported."""

    def __getattr__(self, attribute: str) -> object:
        if attribute == "is_compile_supported":
            return lambda device: getattr(importlib.import_module(self.__name__), attribute)(device)
        if attribute.startswith("__") and (self.__name__, attribute) != (_DYNAMO, "__path__"):
            raise AttributeError(attribute)
        self.give_way()
        return getattr(importlib.import_module(self.__name__), attribute)

    @staticmethod
    def give_way() -> None:
        """Leave the place to the modules themselves."""
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Later)]:
            del sys.modules[name]


@functools.cache
def _import_once(name: str) -> None:
    """A package that cannot be imported is left to the child, where it becomes the row of each cell that needs it."""
    try:
        with _dynamo_when_asked() if name in _LIBRARIES else nullcontext():
            importlib.import_module(name)
    except Exception:
        traceback.print_exc()
    gc.freeze()


def _modules_for(cell: Cell) -> Iterator[str]:
    from archbench.catalog import facts

    try:
        source = facts(cell.network).source
    except UsageError:
        source = None  # this interpreter's libraries lack the network, which its child will say in every row
    if source in _LIBRARIES:
        yield source
    if cell.phase == "training":
        yield _DYNAMO
    if cell.compile_mode != "off":
        yield _FOR_COMPILE
    if cell.is_converted:
        from archbench.measure.runtimes import module_of

        yield module_of(cell.runtime)
