"""What pytest-benchmark is given: timers, what was measured on, and a refusal to compare with another device's figures.

It calls a timer before and after the work and takes the difference as seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from archbench.device import collect_environment, resolve_device
from archbench.device.kind import MS, checked, kind_of
from archbench.model.environment import Environment
from archbench.model.errors import UsageError

if TYPE_CHECKING:
    import torch

DeviceInfo = dict[str, str | None]
"""One device as it stands in pytest-benchmark's JSON."""


class DeviceTimer:
    """The host's clock, until it is given a CUDA device: from then on that device's own, by events.

    Stamps of a device subtract to the seconds between them on the device, the gaps in which it waited for the host
    included. Subtracting waits for the later one, so that the next round begins with an empty queue.
    """

    __name__ = "archbench"  # what pytest-benchmark stores as the timer's name

    def __init__(self) -> None:
        self._device: torch.device | None = None

    def use(self, device: torch.device) -> None:
        """Time work on this device."""
        self._device = device if kind_of(device).own_clock else None

    def __call__(self) -> float | _Stamp:
        return time.perf_counter() if self._device is None else _Stamp(self._device)


class _Stamp:
    """A moment on a CUDA device's own clock."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._device = device
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        # Without a stream it would be that of the current device, which need not be this one.
        self._event.record(torch.cuda.current_stream(device))

    def __sub__(self, earlier: _Stamp) -> float:
        """Seconds since `earlier`. Raises `ClockError` for stamps in the wrong order."""
        import torch

        torch.cuda.synchronize(self._device)
        return checked(earlier._event.elapsed_time(self._event) * MS)


class ReplayTimer:
    """Gives pytest-benchmark durations that were measured elsewhere: seconds for each of its rounds."""

    __name__ = "archbench"

    def __init__(self) -> None:
        self._stamps: Iterator[float] = iter(())

    def load(self, durations: Iterable[float]) -> None:
        """The durations of the rounds to come."""
        self._stamps = (stamp for duration in durations for stamp in (0.0, duration))

    def __call__(self) -> float:
        return next(self._stamps)


def mark_timer(item: pytest.Item, timer: Any) -> None:
    """Have pytest-benchmark use `timer` for this test; what the test's own marker says besides stays."""
    own = item.get_closest_marker("benchmark")
    options = dict(own.kwargs) if own else {}
    item.add_marker(pytest.mark.benchmark(**{**options, "timer": timer}), append=False)


def describe_devices(devices: Iterable[str]) -> dict[str, DeviceInfo]:
    """The devices (`cpu`, `cuda:0`) by their kind: hardware class, GPU, driver, torch."""
    return {_kind(device): _describe(collect_environment(device)) for device in sorted(devices, reverse=True)}


def refuse_others(stored: Mapping[str, Mapping[str, Any]], device: str) -> dict[str, DeviceInfo]:
    """This machine's devices of the kinds that `stored` knows, if those benchmarks may be compared with this session.

    `device` is where the session benchmarks. Raises `pytest.UsageError` where a device is another, or of another kind.
    """
    try:
        kind = _kind(resolve_device(device))
    except UsageError as error:
        raise pytest.UsageError(f"--archbench-device: {error}") from None
    if kind not in stored:
        known = ", ".join(f"{name} ({info.get('hardware_class')})" for name, info in stored.items())
        raise pytest.UsageError(
            f"the stored benchmarks were measured on {known}, and this session measures on {kind}: "
            "give --archbench-device, or leave --benchmark-compare out"
        )
    here: dict[str, DeviceInfo] = {}
    for name, info in stored.items():
        try:
            ours = describe_devices([resolve_device(name)])[name]
        except UsageError:
            continue  # no such device here, so nothing of it will be compared
        if ours["hardware_class"] != info.get("hardware_class"):
            raise pytest.UsageError(
                f"the stored benchmarks were measured on {info.get('hardware_class')}, and this is "
                f"{ours['hardware_class']}: times of different hardware say nothing about the code; "
                "measure a baseline here, or leave --benchmark-compare out"
            )
        here[name] = ours
    return here


def _kind(device: str) -> str:
    return device.partition(":")[0]


def _describe(environment: Environment) -> DeviceInfo:
    return {
        "hardware_class": environment.hardware_class,
        "gpu": environment.gpus[0].name if environment.gpus else None,
        "driver": environment.driver_version,
        "torch": environment.torch_version,
        "cuda": environment.cuda_version,
    }
