"""The device that steps run on is the one that was named, whatever number CUDA gives it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
import torch
from msgspec import structs

from archbench.analyze.memory import predict_cell
from archbench.device import collect_environment, kind, resolve_device
from archbench.device.cpu import Cpu
from archbench.device.kind import find_device, kind_named
from archbench.model.cell import Cell, Network
from archbench.model.environment import Environment, Gpu
from archbench.model.errors import UnfitError, UsageError


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


class Xpu(Cpu):
    """What a new file in `archbench/device/` would hold: an accelerator of which there are two."""

    name = "xpu"  # type: ignore[assignment]
    numbered = True
    granule = None  # type: ignore[assignment]
    blocked_convolutions = False

    def resolve(self, number: int | None, asked: str) -> str:
        if (number or 0) > 1:
            raise UsageError(f"device {asked!r} does not exist: this machine has xpu:0, xpu:1")
        return f"xpu:{number or 0}"

    def first(self) -> str:
        return "xpu:0"


@pytest.fixture
def xpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Xpu]]:
    home = ModuleType("archbench.device.xpu")
    home.Xpu = Xpu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, home.__name__, home)
    monkeypatch.setattr(kind, "_KINDS", ("xpu", *kind._KINDS))
    yield Xpu
    kind_named.cache_clear()


@pytest.mark.usefixtures("xpu")
def test_a_further_kind_is_one_file_and_its_name() -> None:
    assert resolve_device("auto") == "xpu:0"
    assert resolve_device("xpu:1") == "xpu:1"
    with pytest.raises(UsageError, match="this machine has xpu:0, xpu:1"):
        resolve_device("xpu:2")
    with pytest.raises(UsageError, match=r"auto, cpu, cuda, cuda:N, xpu, xpu:N"):
        resolve_device("tpu")
    environment = structs.replace(collect_environment("xpu:1"), device="xpu:1")
    assert str(environment.kind) == "xpu"
    assert find_device(environment) == torch.device("cpu")


def test_memory_is_predicted_once_it_is_known_how_a_kind_rounds(
    xpu: type[Xpu], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell(network=Network(name="toy_residual_block"), batch_size=1, device="xpu")  # type: ignore[arg-type]
    with pytest.raises(UnfitError, match="xpu: how its allocator rounds is not known"):
        predict_cell(cell)
    monkeypatch.setattr(xpu, "granule", 1 << 16)
    model = predict_cell(cell)
    # Two matrices of 64 x 64 x 4 bytes: a quarter of a granule each.
    assert {line.base_bytes for line in model.lines} == {2 << 16}
