"""What a session of the profiler may not touch: the times, which are of steps that nobody disturbed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import make_environment

from archbench.model.cell import Cell, Network
from archbench.model.environment import Calibration
from archbench.model.messages import ProfileRequest
from archbench.profiler import boundaries, run
from archbench.profiler.operators import Window
from archbench.profiler.rows import Ceilings


def window(**figures: Any) -> Window:
    known: dict[str, Any] = {"operators": (), "kernels": (), "operators_s": 0.5, "busy_s": None, "events": ()}
    return Window(**{**known, "steps": 3, **figures})


def roofline(step_s: float, seen: Window, *, on_device: bool) -> Any:
    times = SimpleNamespace(plain_s=step_s)
    whole = SimpleNamespace(path="", stage=None, intensity=None, achieved_flops=None)
    found = run._roofline([whole], Ceilings(flops=1e12, bandwidth=1e10), seen, times, on_device=on_device)  # type: ignore[arg-type, list-item]
    assert found is not None
    return found.device_busy_s, found.launch_gap_s, found.host_s


def test_the_launch_gap_is_the_undisturbed_step_less_its_kernels() -> None:
    """120 kernels of 4 us take 1,080 us to issue: however long the profiler makes it, 600 us are waited for."""
    busy, gap, host = roofline(1080e-6, window(busy_s=480e-6), on_device=True)
    assert (busy, host) == (480e-6, None)
    assert gap == pytest.approx(600e-6)
    assert roofline(300e-3, window(busy_s=301e-3), on_device=True)[1] == 0.0, "device-bound: kernels fill the step"


def test_a_session_that_saw_no_kernel_tells_nothing_of_gaps() -> None:
    assert roofline(1e-3, window(), on_device=True) == (None, None, None)
    assert roofline(1.0, window(operators_s=0.75), on_device=False) == (None, None, 0.25)


def test_everything_is_timed_before_the_first_session(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    def told(name: str, original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            happened.append(name)
            return original(*arguments, **options)

        return call

    monkeypatch.setattr(run, "time_by_module", told("time", boundaries.time_by_module))
    monkeypatch.setattr(run, "time_plain", told("time compiled", boundaries.time_plain))
    monkeypatch.setattr(torch.profiler.profile, "__init__", told("session", torch.profiler.profile.__init__))
    monkeypatch.setattr(torch, "compile", told("compile", lambda module, **_: module))
    cell = Cell(network=Network(name="odd_networks:in_place"), batch_size=2, compile_mode="default", threads=1)
    request = ProfileRequest(
        cell=cell,
        environment=make_environment(memory_bytes=16 * 2**30),
        timing_s=0.05,
        calibration=Calibration(matmul_flops={"fp32": 1e11}, copy_bytes_per_s=1e10),
        allow_code=True,
        memory=False,
        gradients=False,
    )
    found = run.profile_cell(request)
    assert found.compiled is not None, found.missing
    assert found.compiled.mapped_share is None, "no graph of inductor's ran: the share is not 0 but unknown"
    timed = [place for place, what in enumerate(happened) if what.startswith("time")]
    sessions = [place for place, what in enumerate(happened) if what == "session"]
    assert len(timed) == len(sessions) == 2
    assert max(timed) < min(sessions)
