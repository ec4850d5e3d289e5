"""The simulated GPU against cases that can be solved by hand."""

from __future__ import annotations

import pytest
import torch
from simulated_gpu import US, WORKLOADS, HungError, SimulatedGpu


def exactly(seconds):
    return pytest.approx(seconds, abs=1e-10)


@pytest.fixture
def gpu(monkeypatch):
    made = SimulatedGpu(launch_s=9 * US, start_s=3 * US, record_s=1 * US, wait_s=4 * US, wait_device_s=12 * US)
    made.install(monkeypatch)
    return made


def taken(gpu, work):
    start = gpu.now
    work()
    return gpu.now - start


def event():
    made = torch.cuda.Event(enable_timing=True)
    made.record()
    return made


def test_a_launch_costs_the_host_the_same_however_long_the_kernel(gpu):
    assert taken(gpu, lambda: gpu.launch(1.0)) == exactly(9 * US)


def test_short_kernels_leave_the_stream_idle_and_the_host_sets_the_pace(gpu):
    def step():
        for _ in range(120):
            gpu.launch(4 * US)
        torch.cuda.synchronize()

    # 120 launches; then the last kernel begins and runs; then the wait itself.
    assert taken(gpu, step) == exactly((120 * 9 + 3 + 4 + 12) * US)


def test_long_kernels_hide_the_launches(gpu):
    def step():
        for _ in range(10):
            gpu.launch(100 * US)
        torch.cuda.synchronize()

    assert taken(gpu, step) == exactly((9 + 3 + 10 * 100 + 12) * US)


def test_an_event_on_an_idle_stream_stamps_at_once_so_that_a_span_contains_the_launches(gpu):
    begun = event()
    for _ in range(120):
        gpu.launch(4 * US)
    ended = event()
    ended.synchronize()
    assert begun.elapsed_time(ended) * 1e-3 == exactly((120 * 9 + 3 + 4) * US)


def test_behind_a_spin_a_span_is_the_kernels_alone(gpu):
    torch.cuda._sleep(3_000_000)  # 2 ms
    begun = event()
    for _ in range(120):
        gpu.launch(4 * US)
    ended = event()
    assert not begun.query()
    ended.synchronize()
    assert begun.query()
    assert begun.elapsed_time(ended) * 1e-3 == exactly(120 * 4 * US)


def test_waiting_for_an_event_ends_with_it_and_not_with_what_was_queued_later(gpu):
    start = gpu.now
    gpu.launch(50 * US)
    ended = event()
    gpu.launch(1.0)
    ended.synchronize()
    assert gpu.now - start == exactly((9 + 3 + 50 + 4) * US)


def test_a_full_queue_blocks_the_host_until_a_kernel_has_ended(monkeypatch):
    gpu = SimulatedGpu(launch_s=1 * US, start_s=0.0, depth=8)
    gpu.install(monkeypatch)

    def eight():
        for _ in range(8):
            gpu.launch(100 * US)

    assert taken(gpu, eight) == exactly(8 * US)
    assert taken(gpu, lambda: gpu.launch(100 * US)) == exactly((101 - 8) * US)  # the first ended 101 us after the start
    assert taken(gpu, lambda: gpu.launch(100 * US)) == exactly(100 * US)


def test_events_take_places_in_the_queue_too(monkeypatch):
    gpu = SimulatedGpu(launch_s=1 * US, start_s=0.0, record_s=1 * US, depth=2)
    gpu.install(monkeypatch)
    gpu.launch(100 * US)
    event()
    assert taken(gpu, event) == exactly((101 - 2) * US)


def test_a_sync_inside_waits_for_all_that_came_before(gpu):
    gpu.launch(500 * US)
    # Its own launch is hidden behind the kernel; then the copy; then the wait.
    assert taken(gpu, gpu.synchronize_inside) == exactly((3 + 500 + 2 + 4) * US)


def test_torch_warns_of_a_sync_where_it_was_told_to(gpu, recwarn):
    gpu.synchronize_inside()
    assert not recwarn
    torch.cuda.set_sync_debug_mode("warn")
    gpu.synchronize_inside()
    torch.cuda.set_sync_debug_mode("default")
    gpu.synchronize_inside()
    assert len(recwarn) == 1


def test_events_are_refused_where_cuda_refuses_them(gpu):
    fresh, untimed = torch.cuda.Event(enable_timing=True), torch.cuda.Event()
    untimed.record()
    assert fresh.query()
    for first, second in ((fresh, event()), (untimed, event())):
        with pytest.raises(ValueError, match="events must be"):
            first.elapsed_time(second)
    earlier = event()
    gpu.launch(1.0)
    later = event()
    with pytest.raises(RuntimeError, match="not ready"):
        earlier.elapsed_time(later)
    later.synchronize()
    assert later.elapsed_time(earlier) == pytest.approx(-1e3, rel=1e-3)


def test_waiting_for_what_never_ends_hangs(gpu):
    gpu.launch(float("inf"))
    with pytest.raises(HungError):
        event().synchronize()


def test_jitter_scatters_by_as_much_as_it_says(monkeypatch):
    gpu = SimulatedGpu(start_s=0.0, kernel_jitter=0.05, host_jitter=0.05)
    gpu.install(monkeypatch)
    times = []
    for _ in range(2000):
        torch.cuda._sleep(3_000_000)
        begun = event()
        gpu.launch(100 * US)
        ended = event()
        ended.synchronize()
        times.append(begun.elapsed_time(ended) * 1e-3)
    mean = sum(times) / len(times)
    spread = (sum((one - mean) ** 2 for one in times) / len(times)) ** 0.5
    assert mean == pytest.approx(100 * US, rel=0.005)
    assert spread == pytest.approx(5 * US, rel=0.1)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workloads_truth_is_what_it_does(name, monkeypatch):
    """Issued onto a queue without end, a step costs the host its issue time; behind a long spin it is its kernels."""
    workload = WORKLOADS[name]
    gpu = SimulatedGpu(start_s=0.0, wait_s=0.0, wait_device_s=0.0, record_s=0.0, depth=10**6)
    gpu.install(monkeypatch)
    step = workload.step_on(gpu)
    if workload.synchronises:
        host_s = taken(gpu, step)
        assert host_s >= max(workload.issue_s(gpu), workload.device_s()) - 1e-9 - 12 * 30 * US
        return
    assert taken(gpu, step) == pytest.approx(workload.issue_s(gpu), abs=1e-9)
    torch.cuda.synchronize()
    torch.cuda._sleep(10 * int(gpu.clock_hz))
    begun = event()
    step()
    ended = event()
    ended.synchronize()
    assert begun.elapsed_time(ended) * 1e-3 == pytest.approx(workload.device_s(), abs=1e-9)
