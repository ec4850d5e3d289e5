"""What benchmarks of networks were measured on, and the refusal to compare them with those of another device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from archbench.device import collect_environment, resolve_device
from archbench.model.environment import Environment
from archbench.model.errors import UsageError

DeviceInfo = dict[str, str | None]
"""One device as it stands in pytest-benchmark's JSON."""


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
