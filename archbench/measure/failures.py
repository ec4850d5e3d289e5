"""What an exception out of a network's step means for its row."""

from __future__ import annotations

import torch

from archbench.measure import compiler
from archbench.model.record import Status

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How allocators other than torch's own say it."""


def status_of(error: Exception) -> Status:
    """Tell what a network's exception means, looking through what compilers wrap around it.

    The CPU's allocator and CUDA's libraries raise a plain RuntimeError; a missing toolchain is the machine's lack.
    """
    causes = (error, error.__cause__, getattr(error, "inner_exception", None))
    if any(isinstance(cause, torch.OutOfMemoryError) or _says_out_of_memory(cause) for cause in causes):
        return "oom"
    return "unsupported" if compiler.lacks_toolchain(error) else "error"


def _says_out_of_memory(cause: object) -> bool:
    return isinstance(cause, RuntimeError) and any(text in str(cause) for text in _OUT_OF_MEMORY)
