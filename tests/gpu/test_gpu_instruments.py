"""Each instrument on a real GPU, held against something known: a kernel that spins, a tensor of known size."""

from __future__ import annotations

import os
import statistics

import pytest
import torch

from archbench.device import between, open_probe
from archbench.device.kind import open_clock
from archbench.device.nvml import session
from archbench.measure import compiler
from archbench.measure.calibrate import calibrate
from archbench.measure.canary import Canary
from archbench.measure.metrics.memory import measure_memory
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
    made = open_clock(device)
    for _ in range(20):  # the card's clock has to come up before two spins take equally long
        made.latency(spin)
    return made


def test_launching_is_not_what_is_timed(clock):
    timing = clock.latency(spin)
    assert timing.device_s > 1e-3
    assert timing.device_s <= timing.host_s < timing.device_s + 2e-3


def test_three_steps_take_three_times_as_long_waited_for_or_not(clock):
    one = statistics.median(clock.latency(spin).device_s for _ in range(9))
    for many in (clock.burst(spin, 3), clock.latency(spin, 3)):
        assert many.device_s == pytest.approx(3 * one, rel=0.1)


def test_work_that_was_queued_before_is_not_counted(clock):
    one = statistics.median(clock.latency(spin).device_s for _ in range(9))
    for _ in range(5):
        spin()
    assert clock.latency(spin).device_s == pytest.approx(one, rel=0.2)


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


def test_the_canary_and_the_calibration_run_and_leave_the_state(device, clock):
    apply_state("fp32", 1, seed=0)
    torch.set_flush_denormal(False)
    canary = Canary(device, clock)
    assert 0 < canary.time() < 0.1
    ceilings = calibrate(device, clock, threads=1, soak_s=0.0)
    torch.set_flush_denormal(False)
    assert ceilings.matmul_flops["bf16"] > ceilings.matmul_flops["fp32"] > 1e12
    assert ceilings.copy_bytes_per_s > 1e11
    assert not torch.backends.cudnn.allow_tf32 or ceilings.matmul_flops["tf32"] > 0


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
    torch.testing.assert_close(workload.output(), workload.eager_output(), rtol=1e-4, atol=1e-5)
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
    assert torch.isfinite(loss)
    assert not torch.equal(small[0].weight.detach().cpu(), before)


def test_the_probe_reads_this_card_under_load(device, clock):
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    probe = open_probe("cuda:0", uuid=uuid)
    try:
        first = probe.read()
        clock.burst(spin, 300)
        second = probe.read()
    finally:
        probe.close()
    # Whatever a container hides must be explained; what is there must make sense.
    for field in ("sm_clock_mhz", "temperature_c", "power_w", "energy_mj", "event_reasons", "foreign"):
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
