"""NVML where every question has a value or the reason for its absence; never a zero, never an exception.

NVML is asked for by name because both sides age: an old driver lacks a symbol, an old binding lacks a function, and
both are `driver_too_old`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pynvml

_REASONS: dict[int, str] = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: "not_on_device",
    pynvml.NVML_ERROR_NOT_FOUND: "not_on_device",
    pynvml.NVML_ERROR_NO_PERMISSION: "no_permission",
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "driver_too_old",
    pynvml.NVML_ERROR_GPU_IS_LOST: "device_lost",
    pynvml.NVML_ERROR_RESET_REQUIRED: "device_lost",
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "nvml_missing",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "driver_not_loaded",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver_mismatch",
}
"""NVML's error numbers as reason codes; any other becomes `monitor_error`."""


class NvmlError(Exception):
    """NVML as a whole cannot be used; `reason` is a code of `_REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@contextmanager
def session() -> Iterator[None]:
    """Hold NVML open. Nests, and leaves no handle behind that a fork could inherit.

    Raises `NvmlError` where the library or the driver is missing or refuses.
    """
    _, reason = ask("nvmlInit")
    if reason is not None:
        raise NvmlError(reason)
    try:
        yield
    finally:
        ask("nvmlShutdown")  # A driver that died meanwhile has nothing left to shut down.


def ask(function: str, *arguments: Any, nothing: Any = None) -> tuple[Any, str | None]:
    """Call a function of the binding: `(value, None)`, or `(None, reason)` where NVML does not answer.

    With `nothing`, that is the value where NVML says that it has found nothing.
    """
    call = getattr(pynvml, function, None)
    if call is None:
        return None, "driver_too_old"
    try:
        return call(*arguments), None
    except pynvml.NVMLError as error:
        # The binding raises a success, too, where it expected NVML to ask for more room than none.
        if nothing is not None and error.value in (pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND):
            return nothing, None
        return None, _REASONS.get(error.value, "monitor_error")


def value(function: str, *arguments: Any) -> Any:
    """The same for callers to whom the reason does not matter: the value, or `None`."""
    return ask(function, *arguments)[0]
