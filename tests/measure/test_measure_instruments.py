"""Canary, calibration and energy on a simulated GPU, against what is true of its kernels."""

from __future__ import annotations

import random
import weakref
from statistics import median

import msgspec
import pytest
import torch
from msgspec import structs
from simulated_gpu import US, WORKLOADS, SimulatedGpu

from archbench.device.cuda import Cuda, CudaClock
from archbench.device.health import Reading
from archbench.device.kind import Clock, ClockError, kind_named, kind_of
from archbench.measure import machine_speed
from archbench.measure.machine_speed import MOST_TIMES, SETTLED, Canary, settled
from archbench.measure.metrics.timing import Energy, measure_energy
from archbench.model.environment import Calibration
from archbench.model.protocol import protocol_for

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def busy_host():
    return SimulatedGpu(host_jitter=0.1, kernel_jitter=0.01, hiccups=0.02, hiccup_s=300 * US)


class OnPaper(Cuda):
    """CUDA's kind, where tensors are the CPU's: `released` counts how often memory was given back."""

    def __init__(self):
        self.released = 0

    def synchronize(self, device):
        return None

    def release(self):
        self.released += 1


@pytest.fixture
def kind(monkeypatch):
    made = OnPaper()
    monkeypatch.setattr(machine_speed, "kind_of", lambda device: made)
    return made


def test_the_canary_tells_its_kernels_and_not_its_launches(kind, monkeypatch):
    gpu = busy_host()
    gpu.install(monkeypatch)
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *_, **__: gpu.launch(200 * US))
    monkeypatch.setattr(torch, "mm", lambda *_: gpu.launch(5 * US))
    bird = Canary(CPU, CudaClock(CUDA))
    start = gpu.now
    times = [bird.time() for _ in range(100)]
    assert max(abs(one / (205 * US) - 1) for one in times) < 0.02
    assert gpu.now - start < 100 * 5 * 6e-3
    slower = 1.25

    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *_, **__: gpu.launch(200 * US * slower))
    monkeypatch.setattr(torch, "mm", lambda *_: gpu.launch(5 * US * slower))
    assert bird.time() / sorted(times)[50] == pytest.approx(slower, rel=0.02)


@pytest.mark.parametrize(("worse", "wears_off"), [(0.0, 0.0), (0.2, 0.2), (0.7, 0.25), (0.9, 0.5), (2.0, 0.7)])
def test_a_reading_does_not_depend_on_what_ran_before(worse, wears_off):
    """A cache that warms up: the n-th time after a network is worse by `worse`, of which a share stays each time."""
    times: list[float] = []

    def once():
        times.append(1e-3 * (1 + worse * wears_off ** len(times)))
        return times[-1]

    assert settled(once) == pytest.approx(1e-3, rel=0.025)
    assert len(times) == SETTLED + 1 if not worse else len(times) <= MOST_TIMES
    assert times[0] / 1e-3 == 1 + worse


def test_a_reading_is_one_however_the_machine_jumps():
    """It ends on a machine that gets faster for ever, and tells the middle of one that is merely noisy."""
    rng = random.Random(7)
    faster = iter([1e-3 * 0.9**n for n in range(1000)])
    assert settled(lambda: next(faster)) == pytest.approx(1e-3 * 0.9 ** (MOST_TIMES - 2.5), rel=0.01)
    stalled = iter([0.1] * 1000)
    assert settled(lambda: next(stalled)) == 0.1
    assert len(list(stalled)) == 1000 - 2, "a stalled canary holds the cell up no longer"
    readings = [settled(lambda: 1e-3 * rng.lognormvariate(0, 0.02)) for _ in range(200)]
    assert median(readings) == pytest.approx(1e-3, rel=0.01)


def test_the_ceiling_of_a_cell_is_the_best_that_was_measured():
    stored = b'{"matmul_flops": {"fp32": 1e11, "bf16": 4e11}, "copy_bytes_per_s": 1e10}'
    old = msgspec.json.decode(stored, type=Calibration)
    assert (old.peak("fp32"), old.peak("amp-bf16"), old.peak("fp16")) == (1e11, 4e11, None)
    new = structs.replace(old, conv_flops={"fp32": 1.5e11, "bf16": 3e11})
    assert (new.peak("fp32"), new.peak("amp-bf16"), new.peak("fp16")) == (1.5e11, 4e11, None)


def test_no_network_has_the_canarys_image_where_kernels_are_remembered():
    """Images of the catalogue are square, and so are all feature maps that are made of them by square kernels."""
    for sizes in (kind_named("cuda").canary, kind_named("cuda").calibration):
        height, width = sizes.image[2:]
        assert height != width


def test_ceilings_are_those_of_the_kernels(kind, monkeypatch):
    gpu = busy_host()
    gpu.install(monkeypatch)
    monkeypatch.setattr(kind, "calibration", kind.calibration.__class__(**SMALL))
    side = kind.calibration.matrix
    peaks = {torch.float32: 50e12, torch.bfloat16: 800e12, torch.float16: 700e12}
    work = 2 * 8192**3
    monkeypatch.setattr(torch, "mm", lambda left, right: gpu.launch(work / peaks[left.dtype]))
    conv_work = 2 * 5 * 7 * 4 * 4 * 9

    def convolve(images, kernel, padding):
        """Three times as fast in channels_last."""
        assert (tuple(images.shape), tuple(kernel.shape), padding) == ((1, 4, 5, 7), (4, 4, 3, 3), 1)
        last = images.is_contiguous(memory_format=torch.channels_last)
        assert kernel.is_contiguous(memory_format=torch.channels_last) == last
        gpu.launch(1e-3 if last else 3e-3)

    monkeypatch.setattr(torch.nn.functional, "conv2d", convolve)
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, source: gpu.launch(2e-3))
    found = machine_speed.calibrate(CPU, CudaClock(CUDA), threads=torch.get_num_threads(), soak_s=0.1)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        assert found.matmul_flops[precision] == pytest.approx(peaks[dtype] * (side / 8192) ** 3, rel=0.02)
        assert found.conv_flops[precision] == pytest.approx(conv_work / 1e-3, rel=0.02)
    assert found.copy_bytes_per_s == pytest.approx(2 * kind.calibration.copy_bytes / 2e-3, rel=0.02)
    assert kind.released == 1


SMALL = {"matrix": 8, "image": (1, 4, 5, 7), "copy_bytes": 64, "precisions": ("fp32", "tf32", "bf16", "fp16")}


def state():
    cudnn = torch.backends.cudnn
    switches = (torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark, torch.get_num_threads())
    return switches, torch.get_rng_state().tolist()


@pytest.mark.parametrize("failing", range(1, 8))
def test_a_calibration_that_fails_anywhere_leaves_state_and_memory(kind, failing, monkeypatch):
    calls = iter(range(1, 1000))

    class Stops(Clock):
        def __getattr__(self, name):
            return getattr(kind_of(CPU).clock(CPU), name)

        def burst(self, step, steps):
            if next(calls) == failing:
                raise ClockError("stopped")
            return kind_of(CPU).clock(CPU).burst(step, steps)

    monkeypatch.setattr(kind, "calibration", kind.calibration.__class__(**SMALL, repeats=1))
    drawn = []
    draw = machine_speed._random

    def watched(*of):
        matrix = draw(*of)
        drawn.append(weakref.ref(matrix))
        return matrix

    monkeypatch.setattr(machine_speed, "_random", watched)
    before = state()
    with pytest.raises(ClockError) as failure:
        machine_speed.calibrate(CPU, Stops(), threads=1, soak_s=0.0)
    assert state() == before
    assert kind.released == 1
    assert drawn
    assert all(matrix() is None for matrix in drawn), failure  # though the traceback is still there


class Meter:
    """A counter of energy that runs by the simulated clock, and moves ten times a second."""

    def __init__(self, gpu, watts):
        self._gpu, self._watts = gpu, watts

    def read(self):
        ticks = int(self._gpu.now * 10)
        return Reading(at_s=self._gpu.now, energy_mj=int(ticks * 100 * self._watts))


@pytest.mark.parametrize("name", ["launch-bound", "device-bound", "graph replay", "steps of 300 ms"])
def test_energy_is_that_of_steps_that_do_not_wait(name, monkeypatch):
    workload, gpu = WORKLOADS[name], SimulatedGpu()
    gpu.install(monkeypatch)
    clock, step = CudaClock(CUDA), workload.step_on(gpu)
    protocol = protocol_for("cuda", {"energy_window_s": 2.0})
    found = measure_energy(step, clock, Meter(gpu, 350.0), protocol, step_s=clock.latency(step).host_s)
    assert isinstance(found, Energy)
    pace = max(workload.issue_s(gpu), workload.device_s())
    # The counter's steps of 0.1 s over two seconds, and what begins and ends each burst.
    assert found.joules / found.steps == pytest.approx(350.0 * pace, rel=0.07)
