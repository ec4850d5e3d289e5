"""Each instrument on a real GPU, held against something known: a kernel that spins, a tensor of known size."""

from __future__ import annotations

import os
import statistics
import time

import pytest
import torch

from archbench.device import between, open_probe
from archbench.device.kind import Clock, ClockError, kind_of
from archbench.device.nvml import session
from archbench.measure import compiler
from archbench.measure.device_time import host_bound, sample_device_time
from archbench.measure.machine_speed import Canary, calibrate
from archbench.measure.metrics.footprint import measure_memory
from archbench.measure.state import apply_state, plain_fp32, restored_state
from archbench.measure.workload import Workload
from archbench.model.cell import Cell, Network

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

MIB = 2**20
SPIN_CYCLES = 5_000_000
"""A few milliseconds at the clocks of any card: far above what launching and waiting cost."""


def spin():
    torch.cuda._sleep(SPIN_CYCLES)


@pytest.fixture
def clock(device):
    made = kind_of(device).clock(device)
    for _ in range(20):  # the card's clock has to come up before two spins take equally long
        made.latency(spin)
    return made


def spin_s(clock):
    """How long the spin takes on the device."""
    return statistics.median(clock.backlogged(spin, 1, 1e-3).device_s for _ in range(9))


def device_time(clock, step):
    """As the latency of a cell has it: seconds in which the host issues the step, and its device time."""
    for _ in range(20):
        clock.latency(step)
    issue_s = statistics.median(clock.latency(step).issue_s for _ in range(50))
    return issue_s, sample_device_time(step, clock, steps=1, issue_s=issue_s)


def test_a_launch_is_issued_long_before_it_is_done(clock):
    timing, one = clock.latency(spin), spin_s(clock)
    assert one > 1e-3
    assert timing.issue_s < 0.2 * one
    assert one <= 1.05 * timing.host_s < 1.05 * (one + 2e-3)


def test_three_steps_take_three_times_as_long_waited_for_or_not(clock):
    one = spin_s(clock)
    assert clock.burst(spin, 3).device_s == pytest.approx(3 * one, rel=0.1)
    assert clock.latency(spin, 3).host_s == pytest.approx(3 * one, rel=0.1)


def test_work_that_was_queued_before_is_not_counted(clock):
    one = spin_s(clock)
    for measured in (lambda: clock.latency(spin).host_s, lambda: clock.backlogged(spin, 1, 1e-3).device_s):
        for _ in range(5):
            spin()
        assert measured() == pytest.approx(one, rel=0.2)


def test_a_backlog_lasts_as_long_as_was_asked_for(clock):
    """However fast the clock of the card is: what takes 2 ms to issue finds it still there, and it ends soon after."""

    def slow_to_issue():
        spin()
        end = time.perf_counter() + 2e-3
        while time.perf_counter() < end:
            pass

    for _ in range(3):
        assert not clock.backlogged(slow_to_issue, 1, 1e-3).held
        assert clock.backlogged(slow_to_issue, 1, 4e-3).held
    start = time.perf_counter()
    clock.backlogged(spin, 1, 20e-3)
    assert time.perf_counter() - start == pytest.approx(20e-3 + spin_s(clock), rel=0.25)


def test_small_kernels_are_host_bound_and_their_gaps_no_device_time(device, clock):
    tensor = torch.zeros(1000, device=device)

    def step():
        for _ in range(200):
            tensor.add_(1.0)

    issue_s, found = device_time(clock, step)
    assert found.defeat is None
    assert found.step_s < 0.9 * clock.burst(step, 1).device_s
    assert host_bound(issue_s, found, 1.1) is True


def test_large_kernels_are_not_and_agree_with_a_burst(device, clock):
    left, right = (torch.randn(4096, 4096, device=device) for _ in range(2))

    def step():
        for _ in range(4):
            torch.mm(left, right)

    issue_s, found = device_time(clock, step)
    assert found.step_s == pytest.approx(clock.burst(step, 20).device_s / 20, rel=0.1)
    assert host_bound(issue_s, found, 1.1) is False


def test_a_graph_is_one_launch(device, clock):
    tensor = torch.zeros(1000, device=device)
    tensor.add_(1.0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(200):
            tensor.add_(1.0)
    issue_s, found = device_time(clock, graph.replay)
    assert found.step_s <= clock.latency(graph.replay).host_s
    assert host_bound(issue_s, found, 1.1) is False


def test_a_step_that_waits_leaves_no_backlog_and_says_so(device, clock):
    left, right = (torch.randn(2048, 2048, device=device) for _ in range(2))

    def step():
        torch.mm(left, right).sum().item()

    assert clock.waits_inside(step)
    assert not clock.waits_inside(spin)
    _, found = device_time(clock, step)
    assert (found.step_s, found.defeat) == (None, "waits_inside")


def test_more_launches_than_the_queue_holds_block_the_host(device, clock):
    tensor = torch.zeros(1000, device=device)

    def step():
        for _ in range(20_000):
            tensor.add_(1.0)

    _, found = device_time(clock, step)
    assert (found.step_s, found.defeat) == (None, "backlog_lost")


def test_the_peak_is_that_of_the_step(device):
    kept = torch.empty(64 * MIB, dtype=torch.uint8, device=device)
    before = torch.cuda.memory_allocated(device)

    def step():
        temporary = torch.empty(256 * MIB, dtype=torch.uint8, device=device)
        return temporary.shape

    earlier = torch.empty(512 * MIB, dtype=torch.uint8, device=device)  # a larger peak, and what the cache keeps of it
    del earlier
    reading = measure_memory(step, device, None)
    assert reading.peak_allocated == before + 256 * MIB
    assert reading.peak_reserved >= reading.peak_allocated
    assert reading.peak_reserved < before + 512 * MIB + 64 * MIB
    assert kept.numel() == 64 * MIB


def product_error(device):
    """How far a product in fp32 is off, against fp64: TF32 keeps 10 bits of 23."""
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(512, 512, device=device, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    return ((left @ right).double() - exact).norm().item() / exact.norm().item()


def test_tf32_is_on_where_asked_for_and_nowhere_else(device):
    try:
        apply_state("tf32", 1, seed=0)
        with_tf32 = product_error(device)
        with plain_fp32():
            assert product_error(device) < 1e-5
        assert product_error(device) == pytest.approx(with_tf32)
        apply_state("fp32", 1, seed=0)
        without = product_error(device)
    finally:
        torch.set_flush_denormal(False)
    assert without < 1e-5
    if torch.cuda.get_device_capability(device) >= (8, 0):
        assert with_tf32 > 10 * without


def test_lent_state_gives_the_devices_random_numbers_back(device):
    before = torch.cuda.get_rng_state(device)
    with restored_state("tf32", threads=1, seed=7):
        torch.randn(8, device=device)
    assert torch.equal(torch.cuda.get_rng_state(device), before)


def test_the_canary_repeats_itself(device, clock):
    canary = Canary(device, clock)
    first = [canary.time() for _ in range(10)]
    torch.mm(*(torch.randn(4096, 4096, device=device) for _ in range(2)))
    later = [canary.time() for _ in range(10)]
    assert 0 < statistics.median(first) < 0.1
    assert statistics.median(later) == pytest.approx(statistics.median(first), rel=0.05)


class Stops(Clock):
    """A clock that fails in the middle of the calibration."""

    def __init__(self, clock):
        self._clock = clock
        self.left = 6

    def __getattr__(self, name):
        return getattr(self._clock, name)

    def burst(self, step, steps):
        self.left -= 1
        if not self.left:
            raise ClockError("stopped")
        return self._clock.burst(step, steps)


@pytest.mark.parametrize("fails", [False, True])
def test_the_calibration_leaves_state_and_memory_as_they_were(device, clock, fails):
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    torch.cuda.empty_cache()
    random, reserved = torch.cuda.get_rng_state(device), torch.cuda.memory_reserved(device)
    if fails:
        with pytest.raises(ClockError):
            calibrate(device, Stops(clock), threads=1, soak_s=0.0)
    else:
        ceilings = calibrate(device, clock, threads=1, soak_s=0.0)
        assert ceilings.matmul_flops["bf16"] > ceilings.matmul_flops["fp32"] > 1e12
        assert ceilings.copy_bytes_per_s > 1e11
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.equal(torch.cuda.get_rng_state(device), random)
    assert torch.cuda.memory_reserved(device) <= reserved


@pytest.fixture
def small():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )


def test_a_step_in_graphs_gives_what_eager_gives_and_launches_one(device, small):
    pytest.importorskip("triton")
    compiler.reset()
    cell = Cell(network=Network(name="small"), batch_size=2, compile_mode="reduce-overhead", device="cuda")
    apply_state("fp32", 1, seed=0)
    torch.set_flush_denormal(False)
    workload = Workload(cell, small, (3, 32, 32), device, ring=3, seed=0)
    try:
        for _ in range(5):
            workload.step()
    except Exception as error:
        if compiler.lacks_toolchain(error):
            pytest.skip(f"nothing to compile with: {error}")
        raise
    with compiler.no_recompiles():
        workload.step()
        assert compiler.cuda_graph_launches(workload.step) >= 1
    batch = workload.inputs[0]
    torch.testing.assert_close(workload.output(batch), workload.output(batch, eager=True), rtol=1e-4, atol=1e-5)
    eager = Workload(
        Cell(network=Network(name="small"), batch_size=2, device="cuda"), small, (3, 32, 32), device, ring=3, seed=0
    )
    assert compiler.cuda_graph_launches(eager.step) == 0


def test_training_with_loss_scaling_moves_the_weights(device, small):
    cell = Cell(network=Network(name="small"), batch_size=4, phase="training", precision="amp-fp16", device="cuda")
    before = small[0].weight.detach().clone()
    workload = Workload(cell, small, (3, 32, 32), device, ring=3, seed=0)
    workload.require(workload.applied())
    for _ in range(5):
        loss = workload.step()
    assert isinstance(loss, torch.Tensor)
    assert torch.isfinite(loss)
    assert not torch.equal(small[0].weight.detach().cpu(), before)


def test_the_probe_reads_this_card_under_load(device, clock):
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    probe = open_probe("cuda:0", uuid=uuid)
    first = probe.read()
    clock.burst(spin, 300)
    second = probe.read()
    # Whatever a container hides must be explained; what is there must make sense.
    for field in ("sm_clock_mhz", "power_w", "energy_mj", "event_reasons", "foreign"):
        value = getattr(second, field)
        assert (value is not None) != (field in second.missing), field
    if second.sm_clock_mhz is not None:
        assert 100 < second.sm_clock_mhz < 5000
    if first.energy_mj is not None:
        assert second.energy_mj >= first.energy_mj
    if second.foreign is not None:
        assert os.getpid() not in {process.pid for process in second.foreign}
    health = between(first, second)
    assert not health.lost
    assert health.wall_s > 0


def test_nvml_and_torch_mean_the_same_card(device):
    from archbench.device import collect_environment, nvml

    environment = collect_environment("cuda:0")
    try:
        with session():
            assert nvml.value("nvmlDeviceGetCount") >= 1
    except nvml.NvmlError as error:
        pytest.skip(f"NVML says nothing here: {error.reason}")
    gpu = environment.gpus[0]
    properties = torch.cuda.get_device_properties(device)
    assert str(properties.uuid) in (gpu.uuid.removeprefix("GPU-"), (gpu.mig_uuid or "").removeprefix("MIG-"))
    assert gpu.name == torch.cuda.get_device_name(device) or gpu.mig_uuid is not None
    assert gpu.compute_capability == f"{properties.major}.{properties.minor}"
    assert environment.hardware_class == gpu.name
