"""Every figure of time on a simulated GPU, against what is true of the step."""

from __future__ import annotations

import gc
import itertools

import pytest
import torch
from fakes import ScriptedMonitor
from simulated_gpu import US, WORKLOADS, Part, SimulatedEvent, SimulatedGpu, Workload

from archbench.device.cuda import CudaClock, CudaStopwatch
from archbench.device.kind import Clock, ClockError
from archbench.measure.device_time import host_bound, issue_time, repeated_s, sample_device_time
from archbench.measure.sampling import sample_latency, sample_throughput, warm_up
from archbench.model.protocol import protocol_for

PROTOCOL = protocol_for(
    "cuda",
    {
        "min_sampling_s": 0.05,
        "max_sampling_s": 0.2,
        "warmup_first_cell_s": 0.1,
        "burst_s": 0.05,
        "min_throughput_s": 0.1,
    },
)
CUDA = torch.device("cuda")
SOME = ("launch-bound", "device-bound", "mixed", "graph replay", "scaler, device-bound")
DEFEATED = {
    "scaler, device-bound": "waits_inside",
    "scaler, launch-bound": "waits_inside",
    "more launches than the queue, device-bound": "backlog_lost",
    "more launches than the queue, launch-bound": "backlog_lost",
}
"""Workloads that leave no backlog, and why."""


@pytest.fixture(autouse=True, scope="module")
def _frozen():
    """As in a worker: what is imported is not walked by each collection."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch):
    """A stretch costs real time for every simulated launch."""
    monkeypatch.setattr("archbench.measure.sampling.STRETCH_S", 0.01)


def busy_host():
    return SimulatedGpu(host_jitter=0.05, kernel_jitter=0.02, hiccups=1e-3, hiccup_s=300 * US)


def measured(workload, gpu):
    """What archbench makes of a step: latency, issue time, device time, host_bound."""
    clock, step = CudaClock(CUDA), workload.step_on(gpu)
    step_s = clock.latency(step).host_s
    sampled = sample_latency(step, clock, PROTOCOL, ScriptedMonitor(), step_s=step_s, min_samples=0)
    issue_s = issue_time(sampled)
    assert issue_s is not None
    found = sample_device_time(step, clock, steps=sampled.steps, issue_s=issue_s)
    return sampled, issue_s, found, host_bound(issue_s, found, PROTOCOL.host_bound_ratio)


def truly_host_bound(workload, gpu):
    return workload.issue_s(gpu) > PROTOCOL.host_bound_ratio * workload.device_s()


@pytest.mark.parametrize("name", WORKLOADS)
def test_device_time_is_within_two_percent_of_the_truth_and_host_bound_right(name, monkeypatch):
    workload, gpu = WORKLOADS[name], busy_host()
    gpu.install(monkeypatch)
    _, issue_s, found, bound = measured(workload, gpu)
    assert bound is truly_host_bound(workload, gpu)
    assert found.defeat == DEFEATED.get(name)
    if found.defeat is None:
        assert found.step_s == pytest.approx(workload.device_s(), rel=0.02)
    else:
        assert found.step_s is None
        assert found.at_most_s >= 0.98 * workload.device_s()
    if not workload.synchronises and name not in DEFEATED:
        assert issue_s == pytest.approx(workload.issue_s(gpu), rel=0.03)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_queue_of_eight_yields_no_wrong_answer(name, monkeypatch):
    workload, gpu = WORKLOADS[name], SimulatedGpu(depth=8)
    gpu.install(monkeypatch)
    _, _, found, bound = measured(workload, gpu)
    assert bound in (truly_host_bound(workload, gpu), None)
    if found.defeat is None:
        assert found.step_s == pytest.approx(workload.device_s(), rel=0.02)
    else:
        assert found.defeat == ("waits_inside" if workload.synchronises else "backlog_lost")
    assert (found.defeat is None) == (name == "graph replay")


@pytest.mark.parametrize("name", WORKLOADS)
def test_reading_the_device_time_costs_little(name, monkeypatch):
    workload, gpu = WORKLOADS[name], SimulatedGpu()
    gpu.install(monkeypatch)
    clock, step = CudaClock(CUDA), workload.step_on(gpu)
    timing = clock.latency(step)
    assert timing.issue_s is not None
    start = gpu.now
    sample_device_time(step, clock, steps=1, issue_s=timing.issue_s)
    assert gpu.now - start < max(0.32, 5 * timing.host_s)


@pytest.mark.parametrize("name", SOME)
def test_latency_is_the_steps_and_little_more(name, monkeypatch):
    """From the first launch to the end of the last kernel, and then what it costs to notice the end."""
    workload, gpu = WORKLOADS[name], SimulatedGpu()
    gpu.install(monkeypatch)
    step = workload.step_on(gpu)
    start = gpu.now
    step()
    true_s = max(gpu.now, gpu._free_at) - start
    sampled, *_ = measured(workload, gpu)
    assert true_s <= sampled.interval.median <= true_s + gpu.record_s + gpu.wait_s + 1e-9


@pytest.mark.parametrize("name", SOME)
def test_throughput_is_the_pace_of_the_slower_side(name, monkeypatch):
    """Steps that do not wait run at the pace of the host or of the device; what begins and ends a burst is little."""
    workload, gpu = WORKLOADS[name], SimulatedGpu(kernel_jitter=0.01)
    gpu.install(monkeypatch)
    clock, step = CudaClock(CUDA), workload.step_on(gpu)
    step_s = clock.latency(step).host_s
    sampled = sample_throughput(step, clock, PROTOCOL, ScriptedMonitor(), step_s=step_s)
    assert sampled.steps >= 3
    assert sampled.interval.half_width is not None
    if not workload.synchronises:
        pace = max(workload.issue_s(gpu), workload.device_s())
        assert sampled.interval.median == pytest.approx(pace, rel=0.02)


def test_the_warm_up_hears_the_hosts_clock(monkeypatch):
    gpu = SimulatedGpu()
    gpu.install(monkeypatch)
    step = WORKLOADS["launch-bound"].step_on(gpu)
    warm = warm_up(step, CudaClock(CUDA), PROTOCOL, first_cell=True)
    assert warm.level
    assert warm.step_s == pytest.approx(120 * 9 * US, rel=0.02)


def test_a_spin_lasts_as_long_on_a_card_of_any_clock(monkeypatch):
    """The first spin knows no clock; from the second on it lasts what was asked for, also where the clock has moved."""
    gpu = SimulatedGpu()
    gpu.install(monkeypatch)
    clock = CudaClock(CUDA)

    def kernel():
        gpu.launch(50 * US)

    for clock_hz in (0.345e9, 1.98e9, 2.9e9):
        gpu.clock_hz = clock_hz
        clock.backlogged(kernel, 1, 1e-3)
        start = gpu.now
        assert clock.backlogged(kernel, 1, 1e-3).held
        assert gpu.now - start == pytest.approx(1e-3 + 50 * US, rel=0.05)


def test_a_backlog_that_ends_too_soon_is_noticed(monkeypatch):
    gpu = SimulatedGpu()
    gpu.install(monkeypatch)
    clock, step = CudaClock(CUDA), WORKLOADS["launch-bound"].step_on(gpu)
    assert not clock.backlogged(step, 1, 0.5e-3).held
    assert clock.backlogged(step, 1, 2e-3).held


def test_an_event_span_without_a_backlog_is_not_device_time(monkeypatch):
    """What was wrong before: on an idle stream it is the host's time, whatever the device does."""
    gpu = SimulatedGpu()
    gpu.install(monkeypatch)
    workload = WORKLOADS["launch-bound"]
    timing = CudaClock(CUDA).burst(workload.step_on(gpu), 1)
    assert timing.device_s > 2 * workload.device_s()
    assert CudaClock(CUDA).latency(workload.step_on(gpu)).device_s is None


def test_several_steps_a_sample_are_reported_singly(monkeypatch):
    workload, gpu = WORKLOADS["steps of 0.25 ms"], SimulatedGpu()
    gpu.install(monkeypatch)
    sampled, issue_s, found, _ = measured(workload, gpu)
    assert sampled.steps == found.steps == 4
    assert found.step_s == pytest.approx(250 * US, rel=0.02)
    assert issue_s == pytest.approx(125 * US, rel=0.02)


def test_where_several_steps_are_more_than_the_queue_holds_one_is_taken(monkeypatch):
    workload, gpu = WORKLOADS["steps of 0.25 ms"], SimulatedGpu(depth=40)
    gpu.install(monkeypatch)
    _, _, found, bound = measured(workload, gpu)
    assert found.steps == 1
    assert found.step_s == pytest.approx(250 * US, rel=0.02)
    assert bound is False


def test_repeated_work_is_told_by_the_device_even_where_its_launches_cost_more(monkeypatch):
    gpu = SimulatedGpu(hiccups=0.01, hiccup_s=1e-3)
    gpu.install(monkeypatch)
    clock = CudaClock(CUDA)

    def work():
        gpu.launch(30 * US)
        gpu.launch(4 * US)

    times = [repeated_s(work, clock, 10) for _ in range(50)]
    assert sorted(times)[25] == pytest.approx(34 * US, rel=0.01)
    gpu.depth = 8
    assert repeated_s(lambda: gpu.launch(90 * US), clock, 20) == pytest.approx(90 * US, rel=0.02)


def test_a_cpu_has_no_gaps(monkeypatch):
    gpu = SimulatedGpu()
    gpu.install(monkeypatch)
    one = Clock().backlogged(lambda: gpu.host(0.25), 2, 1.0)
    assert one.held
    assert one.device_s == one.host_s == pytest.approx(0.5)
    assert repeated_s(lambda: gpu.host(0.25), Clock(), 2) == pytest.approx(0.25)


@pytest.mark.parametrize("how", ["burst", "backlogged"])
def test_a_device_whose_clock_runs_backwards_is_refused(how, monkeypatch):
    gpu = SimulatedGpu()
    gpu.install(monkeypatch)
    clock = CudaClock(CUDA)
    real = type(clock._start).elapsed_time
    monkeypatch.setattr(SimulatedEvent, "elapsed_time", lambda self, later: real(later, self))
    with pytest.raises(ClockError):
        getattr(clock, how)(lambda: gpu.launch(1e-3), 1, *([1e-3] if how == "backlogged" else []))


def test_jitter_of_the_step_is_the_intervals(monkeypatch):
    """A step that is slow now and then is told by its median."""
    gpu = SimulatedGpu(hiccups=0.2, hiccup_s=2e-3)
    gpu.install(monkeypatch)
    workload = Workload("one kernel", Part(1, 2e-3))
    _, _, found, bound = measured(workload, gpu)
    assert found.step_s == pytest.approx(2e-3, rel=0.02)
    assert bound is False


def test_a_stopwatch_tells_what_the_device_did_between_its_moments(monkeypatch):
    gpu = SimulatedGpu()
    gpu.install(monkeypatch)
    stopwatch = CudaStopwatch()
    made: set[int] = set()
    for _ in range(3):
        gpu.launch(5e-3)  # what was queued before, and what the host does meanwhile, is nobody's
        moments = [stopwatch.read()]
        for kernel_s in (50 * US, 300 * US):
            gpu.launch(kernel_s)
            moments.append(stopwatch.read())
        gpu.synchronize()
        first, second = (stopwatch.seconds(*pair) for pair in itertools.pairwise(moments))
        assert (first, second) == pytest.approx((50 * US, 300 * US))
        stopwatch.restart()
        made.update(map(id, moments))
    assert len(made) == 3  # events are used again
