"""CUDA_VISIBLE_DEVICES as the driver reads it, and the words that name a device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archbench.device import nvml, resolve_device, visible
from archbench.device.cpu import CpuProbe
from archbench.device.visible import Visible, select
from archbench.model.environment import Gpu
from archbench.model.errors import UsageError

A = Gpu(uuid="GPU-aaaa-1", name="NVIDIA A100")
B = Gpu(uuid="GPU-bbbb-2", name="NVIDIA H200")
C = Gpu(uuid="GPU-bbcc-3", name="NVIDIA H200")
SLICES = tuple(Gpu(uuid="GPU-mmmm-4", name=f"NVIDIA H200 MIG {n}g", mig_uuid=f"MIG-{n}") for n in (1, 2))
ALL = (A, B, C, *SLICES)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, (A, B, C, SLICES[0])),
        ("", ()),
        ("-1", ()),
        ("1", (B,)),
        ("2, 0", (C, A)),
        ("1gpu,0x", (B, A)),
        ("0,-1,1", (A,)),
        ("0,9,1", (A,)),
        ("0,1,0", ()),
        ("GPU-aaaa-1", (A,)),
        ("GPU-bbc,GPU-a", (C, A)),
        ("GPU-b", ()),  # two GPUs begin so
        ("GPU-", ()),
        ("GPU-zz", ()),
        ("GPU-a,1", (A,)),
        ("0,GPU-bbbb", (A,)),
        ("MIG-2", (SLICES[1],)),
        ("3", (SLICES[0],)),
    ],
)
def test_mask(mask: str | None, expected: tuple[Gpu, ...]) -> None:
    assert select(ALL, mask) == expected


@given(st.text(max_size=30))
def test_any_mask_gives_distinct_present_devices(mask: str) -> None:
    chosen = select(ALL, mask)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(ALL)


@given(st.permutations([0, 1, 2]), st.integers(0, 3))
def test_ordinals_choose_in_their_order(order: list[int], length: int) -> None:
    mask = ",".join(map(str, order[:length]))
    assert select(ALL, mask) == tuple(ALL[n] for n in order[:length])


def pretend(monkeypatch: pytest.MonkeyPatch, found: Visible) -> None:
    monkeypatch.setattr(visible, "visible_gpus", lambda: found)


def test_words_on_a_machine_with_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Visible(gpus=(A, B), present=2))
    assert [resolve_device(w) for w in ("auto", "cuda", "CUDA:1", " cpu ")] == ["cuda:0", "cuda:0", "cuda:1", "cpu"]
    with pytest.raises(UsageError, match=r"'cuda:3' does not exist: .*cuda:0 \(NVIDIA A100\), cuda:1 \(NVIDIA H200\)"):
        resolve_device("cuda:3")


def test_words_on_a_machine_without(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Visible(problem="nvml_missing"))
    monkeypatch.setattr(visible, "gpus_by_torch", lambda: ())
    assert resolve_device() == "cpu"
    with pytest.raises(UsageError, match=r"cpu only \(NVML .* not installed"):
        resolve_device("cuda")


def test_on_rocm_nvml_is_not_missing_but_has_nothing_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "ask", lambda function, *arguments: (None, "nvml_missing"))
    monkeypatch.setattr(nvml, "torch_build", lambda: {"hip": "7.1"})
    assert visible.visible_gpus().problem == "rocm_unwatched"
    probe = nvml.NvmlProbe("GPU-0")
    assert {reason for field, reason in probe.read().missing.items() if field not in CpuProbe().read().missing} == {
        "rocm_unwatched"
    }
    monkeypatch.setattr(nvml, "torch_build", dict)
    assert visible.visible_gpus().problem == "nvml_missing"


def test_where_nvml_is_mute_torch_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On ROCm, on a Jetson, in a locked-down container; not on a machine that shows no sign of a GPU."""
    pretend(monkeypatch, Visible(problem="nvml_missing"))
    known = (Gpu(name="AMD Instinct MI300X", uuid=""),)
    monkeypatch.setattr(visible, "gpus_by_torch", lambda: known)
    monkeypatch.setattr(visible, "torch_build", lambda: {"hip": "7.1"})
    monkeypatch.setattr(visible, "_DEVICE_FILES", ("null",))
    assert [resolve_device(word) for word in ("auto", "cuda")] == ["cuda:0", "cuda:0"]
    with pytest.raises(UsageError, match=r"this machine has cpu, cuda:0 \(AMD Instinct MI300X\)"):
        resolve_device("cuda:1")
    monkeypatch.setattr(visible, "_DEVICE_FILES", ())
    assert [resolve_device(word) for word in ("auto", "cuda")] == ["cpu", "cuda:0"]
    monkeypatch.setattr(visible, "torch_build", dict)
    with pytest.raises(UsageError, match="cpu only"):
        resolve_device("cuda")
    monkeypatch.setattr(visible, "torch_build", lambda: {"cuda": "13.0"})
    monkeypatch.setattr(visible, "_driver_loads", lambda: True)
    assert resolve_device("cuda") == "cuda:0"
    monkeypatch.setattr(visible, "_driver_loads", lambda: False)
    with pytest.raises(UsageError, match="cpu only"):
        resolve_device("cuda")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "0")
    assert [resolve_device(word) for word in ("auto", "cuda")] == ["cpu", "cuda:0"]


@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="needs a C compiler on Linux")
def test_a_driver_is_there_where_its_library_loads(tmp_path: Path) -> None:
    """It is looked for by name, and nothing in it is called: an empty one will do."""
    library = str(tmp_path / "libcuda.so.1")
    subprocess.run(["cc", "-shared", "-x", "c", "-o", library, "/dev/null"], check=True, timeout=60)
    code = "from archbench.device import visible; print(visible._driver_loads())"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "True\n"


def test_torch_is_asked_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # whatever this machine has, torch is shown none of it
    assert visible.gpus_by_torch.__wrapped__() == ()
    monkeypatch.setattr(visible, "_ASK_TORCH", "import nowhere")
    assert visible.gpus_by_torch.__wrapped__() == ()


def test_a_mask_that_hides_everything_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    pretend(monkeypatch, Visible(present=2))
    assert resolve_device("auto") == "cpu"
    with pytest.raises(UsageError, match=r"CUDA_VISIBLE_DEVICES='7' hides every GPU \(2 present\)"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("tpu", "did you mean cpu"),
        ("gpu", "did you mean cuda?"),
        ("cuda:x", "did you mean cuda"),
        ("cuda:-1", "cuda"),
        ("", "is not one of auto"),
        ("cuda:٣", "is not one of"),
        ("cuda:0,cuda:1", "is several, and this is measured on one"),
        ("cuda:*", "is several, and this is measured on one"),
    ],
)
def test_no_such_word(word: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        resolve_device(word)
