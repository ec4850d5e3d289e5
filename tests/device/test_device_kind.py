"""The device that steps run on is the one that was named, whatever number CUDA gives it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from msgspec import structs

from archbench.device import collect_environment
from archbench.device.kind import find_device
from archbench.model.environment import Environment, Gpu
from archbench.model.errors import UsageError


def shown(monkeypatch: pytest.MonkeyPatch, *uuids: str | None) -> None:
    """What torch tells of the devices that CUDA shows this process, in CUDA's order."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))

    def properties(device: torch.device) -> SimpleNamespace:
        uuid = uuids[device.index]
        return SimpleNamespace() if uuid is None else SimpleNamespace(uuid=uuid)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)


def named(device: str, *gpus: Gpu) -> Environment:
    return structs.replace(collect_environment("cpu"), device=device, gpus=gpus)


SLOW = Gpu(name="NVIDIA T4", uuid="GPU-aaaa-1")
FAST = Gpu(name="NVIDIA H100", uuid="GPU-bbbb-2")
SLICE = Gpu(name="NVIDIA H100 MIG 1g.10gb", uuid="GPU-bbbb-2", mig_uuid="MIG-cccc-3")


def test_by_uuid_and_not_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, "bbbb-2", "AAAA-1")  # CUDA has the faster one first, NVML the bus
    assert find_device(named("cuda:0", SLOW)) == torch.device("cuda", 1)
    assert find_device(named("cuda:1", FAST)) == torch.device("cuda", 0)
    shown(monkeypatch, "bbbb-2")  # only one is left visible to this process
    assert find_device(named("cuda:1", FAST)) == torch.device("cuda", 0)


@pytest.mark.parametrize("uuid", ["cccc-3", "MIG-cccc-3", "bbbb-2"])
def test_a_slice_by_its_own_uuid_or_the_gpus(uuid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, uuid)
    assert find_device(named("cuda:0", SLICE)) == torch.device("cuda", 0)


@pytest.mark.parametrize("uuids", [(), ("aaaa-1",)])
def test_another_card_is_not_measured_in_its_place(uuids: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, *uuids)
    with pytest.raises(UsageError, match=r"cuda:0 is NVIDIA H100 GPU-bbbb-2, which CUDA does not show .*aaaa-1|none"):
        find_device(named("cuda:0", FAST))


def test_where_nobody_tells_a_uuid_the_number_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, None, None)
    assert find_device(named("cuda:1", FAST)) == torch.device("cuda", 1)
    shown(monkeypatch, "aaaa-1", "bbbb-2")
    assert find_device(named("cuda:1", Gpu(name="AMD Instinct MI300X", uuid=""))) == torch.device("cuda", 1)
    assert find_device(named("cuda:1")) == torch.device("cuda", 1)
    assert find_device(named("cpu")) == torch.device("cpu")


def test_a_device_is_locked_by_what_it_is() -> None:
    keys = [named("cuda:1", gpu).device_key for gpu in (FAST, SLICE, Gpu(name="x", uuid=""))]
    assert keys == ["GPU-bbbb-2", "MIG-cccc-3", "cuda:1"]
    assert (named("cuda:1").device_key, named("cpu").device_key) == ("cuda:1", "cpu")
