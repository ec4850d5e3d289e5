"""Whole groups, in this process, on networks of microseconds: every figure in its column, every null explained."""

from __future__ import annotations

import json
import time

import pytest
import torch
from msgspec import structs
from replay import ReplayProbe
from set_aside import ASIDE

from archbench.device import collect_environment
from archbench.device.cpu import Cpu
from archbench.device.health import GpuProcess, Reading
from archbench.device.kind import Clock
from archbench.measure import machine_speed, measure_group
from archbench.measure.group import GroupContext
from archbench.measure.machine_speed import Canary
from archbench.measure.metrics import timing
from archbench.measure.metrics.timing import measure_energy
from archbench.measure.record_builder import RecordBuilder
from archbench.measure.state import default_threads
from archbench.measure.workload import Workload
from archbench.model.axes import ROLES
from archbench.model.cell import Cell, Group, Network
from archbench.model.counts import Carried, MemoryLine, MemoryModel
from archbench.model.messages import (
    Calibrated,
    CellFinished,
    CellStarted,
    Event,
    PhaseStarted,
    Proceed,
    StepGlimpsed,
    Task,
)
from archbench.model.protocol import protocol_for
from archbench.model.reasons import explain
from archbench.model.record import Facts, RunContext, empty_record

QUICK = {
    "warmup_first_cell_s": 0.01,
    "warmup_later_cell_s": 0.01,
    "warmup_cap_s": 0.1,
    "min_sampling_s": 0.01,
    "max_sampling_s": 0.1,
    "burst_s": 0.01,
    "min_throughput_s": 0.01,
    "max_throughput_s": 0.1,
}
ALL = ("static", "latency", "throughput", "memory", "energy", "numerics")


@pytest.fixture(autouse=True)
def _restored_state(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two threads beside the tests of another process wait for each other
    monkeypatch.setattr("archbench.measure.group.FreshProcesses", lambda: ASIDE)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.set_float32_matmul_precision("highest")


def task_for(
    network="convolution",
    batches=(1,),
    metrics=ALL,
    calibrate=False,
    protocol=None,
    carried=None,
    precisions=(),
    **axes,
):
    cells = tuple(
        Cell(network=Network(name=f"tiny_networks:{network}", input_size=16), batch_size=batch, **axes)
        for batch in batches
    )
    if precisions:  # as a plan groups them; the switch of TF32 can be set on a CPU, too
        cells = tuple(structs.replace(cell, precision=precision) for cell in cells for precision in precisions)
    return Task(
        group=Group(cells=cells),
        context=RunContext(run_id="test", round=0, environment=collect_environment("cpu")),
        protocol=protocol_for("cpu", {**QUICK, **(protocol or {})}),
        metrics=metrics,
        allow_code=True,
        carried=carried or Carried(),
        calibrate=calibrate,
    )


def measure(network="convolution", **options):
    events: list[Event] = []
    measure_group(task_for(network, **options), events.append)
    return events


def rows(events):
    return [event.record for event in events if isinstance(event, CellFinished)]


def test_a_group_tells_its_story_in_order():
    events = measure(batches=(1, 2))
    assert [type(event) for event in events if not isinstance(event, PhaseStarted)] == [
        *(CellStarted, StepGlimpsed, StepGlimpsed, CellFinished),  # after a few steps, and once it is warm
        *(CellStarted, StepGlimpsed, StepGlimpsed, CellFinished),
    ]
    phases = [event.phase for event in events if isinstance(event, PhaseStarted) and ", " not in event.phase]
    assert phases[:5] == ["count", "build", "first call", "warmup", "latency"]
    # Nothing that is timed runs after the memory pass, and counting precedes everything.
    assert phases.index("memory") > phases.index("latency")
    # A CPU's steps back to back are those that latency timed: they have a phase of their own where nothing else did.
    assert "throughput" not in phases
    alone = measure(batches=(1,), metrics=("throughput",))
    assert "throughput" in [event.phase for event in alone if isinstance(event, PhaseStarted)]
    assert rows(alone)[0].throughput_img_s > 0


@pytest.mark.parametrize("compile_mode", ["off", pytest.param("default", marks=pytest.mark.slow)])
def test_in_a_wave_it_sleeps_before_it_builds_and_again_before_anything_is_timed(compile_mode):
    events: list[Event] = []
    slept: list[tuple[int, bool, int]] = []

    def await_turn(cell: Cell, prepared: bool) -> Proceed:
        slept.append((cell.batch_size, prepared, len(events)))
        time.sleep(1.0)
        return Proceed(neighbours=3, follows=prepared)

    task = task_for(batches=(1, 2), compile_mode=compile_mode)
    begun = time.perf_counter()
    measure_group(structs.replace(task, metrics=("latency", "memory")), events.append, await_turn)
    took = time.perf_counter() - begun
    # An eager process has nothing more to prepare once it stands, and its first step is the device's work already.
    eager = compile_mode == "off"
    batches = (1,) if eager else (1, 2)
    assert [(batch, prepared) for batch, prepared, _ in slept] == [(n, done) for n in batches for done in (False, True)]
    # Each sleep ends in a deadline of its own.
    assert all(isinstance(events[at], CellStarted) for _, _, at in slept)
    between = events[slept[0][2] : slept[1][2]]
    prepared = ["count", "build"] if eager else ["count", "build", "compile"]
    assert [event.phase for event in between if isinstance(event, PhaseStarted)] == prepared
    found = rows(events)
    assert [row.status for row in found] == ["ok", "ok"]
    assert all(row.predicted_peak_bytes for row in found) == eager
    assert sum(row.duration_s for row in found) < took - len(slept)  # to sleep is not to be measured


@pytest.mark.parametrize("phase", ["inference", "training"])
def test_figures_are_there_and_consistent(phase):
    row = rows(measure(batches=(2,), phase=phase))[0]
    assert row.status == "ok"
    assert row.params == 8 * 3 * 9 + 8 + 16 + 8 * 10 + 10
    assert row.macs == 7 * 7 * 8 * 27 + 80
    assert row.flops == 2 * row.macs
    assert row.input_size == 16
    assert row.latency_ci_low_s <= row.latency_median_s <= row.latency_ci_high_s
    assert row.throughput_ci_low_img_s <= row.throughput_img_s <= row.throughput_ci_high_img_s
    passes = 3 if phase == "training" else 1
    assert row.achieved_flops == pytest.approx(row.throughput_img_s * row.flops * passes)
    assert row.peak_allocated_bytes > row.weight_bytes
    assert row.first_call_s > 0
    assert row.warmup_steps >= 3
    assert json.loads(row.applied)["grad_mode"] == ("grad" if phase == "training" else "inference")


def test_fp32_tf32_and_amp_take_turns_in_one_process_each_under_its_own_switches():
    events = measure(batches=(1, 2), precisions=("fp32", "tf32", "amp-bf16"))
    assert [(row.batch_size, row.precision) for row in rows(events)] == [
        (batch, precision) for batch in (1, 2) for precision in ("fp32", "tf32", "amp-bf16")
    ]
    for row in rows(events):
        applied = json.loads(row.applied)
        assert row.status == "ok"
        assert applied["autocast_dtype"] == ("bfloat16" if row.precision == "amp-bf16" else None)
        assert applied["weight_dtype"] == "float32"
        assert applied["cudnn_tf32"] == (row.precision == "tf32")
        assert applied["matmul_precision"] == ("high" if row.precision == "tf32" else "highest")
        assert applied["cudnn_benchmark_limit"] == 4
    numerics = [row.output_rel_error for row in rows(events)]
    assert numerics[1] == pytest.approx(0.0, abs=1e-6)  # the same weights: a CPU has no TF32
    assert 1e-5 < numerics[2] < 0.05
    assert "output_rel_error:is_reference" in rows(events)[0].reasons
    assert all("output_rel_error:first_batch_only" in row.reasons for row in rows(events)[4:])
    predicted = [row.predicted_peak_bytes for row in rows(events)]
    assert predicted[0] == predicted[1] != predicted[2]  # each by its own toggles


@pytest.mark.parametrize(("precision", "bound"), [("amp-bf16", 0.05), ("bf16", 0.05)])
def test_numerics_hold_the_output_against_the_same_weights_in_fp32(precision, bound):
    """The copy of the cell's weights, and for a network cast to bf16 the weights drawn again, are those of fp32."""
    row = rows(measure(precision=precision, memory_format="channels_last"))[0]
    assert 0.0 < row.output_rel_error < bound
    assert row.output_cosine > 0.999


def test_what_an_earlier_process_counted_is_taken_and_not_counted_again():
    finished = next(event for event in measure() if isinstance(event, CellFinished))
    assert finished.found.counts.macs == finished.record.macs
    (key,) = finished.found.memory
    assert key == finished.record.group_id
    assert finished.found.memory[key].peak_bytes(1, batches_held=3) == finished.record.predicted_peak_bytes

    counts = finished.found.counts
    assert counts is not None
    told = Carried(
        counts=structs.replace(counts, macs=12345),
        memory={
            key: MemoryModel(
                lines=(MemoryLine(base_bytes=777, bytes_per_image=0),), weight_bytes=1, input_bytes_per_image=0
            )
        },
    )
    again = next(event for event in measure(carried=told) if isinstance(event, CellFinished))
    assert (again.record.macs, again.record.predicted_peak_bytes) == (12345, 777)
    assert again.found == Carried()  # nothing that the parent does not have


IDENTITY = {
    "family",
    "setting",
    "threads",
    "top1",
    "top5",
    "accuracy_source",
    "accuracy_dataset",
    "cuda_version",
    "driver_version",
    "inputs",
    *ROLES,
}
NO_FAILURE = {"error_phase", "error_message"}
UNEXPLAINED = IDENTITY | NO_FAILURE


@pytest.mark.parametrize("metrics", [ALL, *((metric,) for metric in ALL)], ids=lambda metrics: "+".join(metrics))
def test_every_null_figure_says_why(metrics):
    row = rows(measure(metrics=metrics))[0]
    explained = {reason.partition(":")[0] for reason in row.reasons if ":" in reason}
    nulls = {name for name, value in structs.asdict(row).items() if value is None}
    assert nulls - explained - UNEXPLAINED == set()
    for reason in row.reasons:
        explain(reason)


def test_numerics_of_a_toggle_against_its_reference():
    row = rows(measure(batches=(1, 2), precision="amp-bf16"))
    assert 1e-5 < row[0].output_rel_error < 0.1
    assert row[0].output_cosine > 0.99
    assert row[0].output_finite
    assert row[1].output_rel_error is None
    assert "output_rel_error:first_batch_only" in row[1].reasons


def test_what_torch_compile_does_to_numerics_is_null_with_a_reason_where_it_is_off():
    (row,) = rows(measure(precision="amp-bf16", metrics=("numerics",)))
    assert row.compile_error_ratio is None
    assert "compile_error_ratio:not_compiled" in row.reasons


def test_a_head_that_starts_at_zero_still_has_a_relative_error():
    row = rows(measure("starts_at_zero", precision="bf16"))[0]
    assert 1e-5 < row.output_rel_error < 0.2


@pytest.mark.parametrize("network", ["runs_out_of_memory", "runs_out_of_cpu_memory"])
def test_out_of_memory_is_a_row_and_ends_the_process_group(network):
    found = rows(measure(network, batches=(1, 4, 8), metrics=("latency",)))
    assert [(row.batch_size, row.status) for row in found] == [(1, "ok"), (4, "oom")]
    assert found[1].error_phase == "first call"
    assert "memory" in found[1].error_message


def test_an_exception_is_a_row_with_phase_and_one_line():
    found = rows(measure("raises", batches=(1, 4, 8), metrics=("latency",)))
    assert [(row.batch_size, row.status) for row in found] == [(1, "ok"), (4, "error")]
    assert found[1].error_message == "ValueError: no such layer"


def test_what_cannot_be_applied_is_unsupported_and_the_group_goes_on():
    found = rows(measure("without_weights", batches=(1, 2), memory_format="channels_last", metrics=("latency",)))
    assert [row.status for row in found] == ["unsupported", "unsupported"]
    assert "channels_last" in found[0].error_message


def test_a_network_that_is_not_there_is_an_error_row():
    found = rows(measure("nowhere", metrics=("latency",)))
    assert found[0].status == "error"
    assert "nowhere" in found[0].error_message


def test_a_cell_runs_at_its_threads_and_the_canary_beside_it_at_the_machines(monkeypatch):
    seen: list[int] = []
    time = Canary.time

    def timed(canary: Canary) -> float:
        seen.append(torch.get_num_threads())
        return time(canary)

    monkeypatch.setattr(Canary, "time", timed)
    default = default_threads(collect_environment("cpu").cpu_count)
    for threads in (1, 2, 3):
        seen.clear()
        (row,) = rows(measure(threads=threads, metrics=("latency",)))
        assert (row.threads, json.loads(row.applied)["threads"]) == (threads, threads)
        assert set(seen) == {default}
    (row,) = rows(measure(metrics=("latency",)))
    assert (row.threads, json.loads(row.applied)["threads"]) == (None, default)


@pytest.fixture
def small_calibration(monkeypatch):
    """The same work, of milliseconds instead of two seconds."""
    sizes = structs.replace(Cpu.calibration, matrix=192, image=(1, 8, 5, 7), copy_bytes=4 << 20, repeats=3)
    monkeypatch.setattr(Cpu, "calibration", sizes)


def test_a_ceiling_that_takes_longer_than_it_is_worth_is_taken_once(small_calibration, monkeypatch):
    """As on a CPU that has no arithmetic in bf16: what it does in a second need not be done again to be known."""
    monkeypatch.setattr(machine_speed, "CEILING_S", 0.05)
    convolve, asked = torch.nn.functional.conv2d, []

    def slow_in_bf16(images, kernel, padding):
        asked.append(images.dtype)
        time.sleep(0.1 if images.dtype == torch.bfloat16 else 0.0)
        return convolve(images, kernel, padding=padding)

    monkeypatch.setattr(torch.nn.functional, "conv2d", slow_in_bf16)
    found = machine_speed.calibrate(torch.device("cpu"), Clock(), threads=1, soak_s=0.0)
    assert asked.count(torch.bfloat16) == 2, "once in each memory format"
    assert asked.count(torch.float32) == 8, "a first time and three more"
    work = 2 * 5 * 7 * 8 * 8 * 9
    assert work / 0.2 < found.conv_flops["bf16"] < work / 0.1


@pytest.mark.parametrize("soak_s", [0.0, 0.01])
def test_calibration_gives_a_share_of_the_peak_and_no_first_figure_waits_for_it(small_calibration, soak_s):
    events = measure(calibrate=True, protocol={"soak_s": soak_s})
    kinds = [type(event) for event in events]
    assert kinds.count(Calibrated) == 1
    at = kinds.index(Calibrated)
    assert at == 0 if soak_s else kinds.index(StepGlimpsed) < at < kinds.index(CellFinished)
    found = events[at].calibration
    assert found.matmul_flops["fp32"] > 1e9
    assert found.copy_bytes_per_s > 1e8
    row = rows(events)[0]
    assert row.measured_peak_share == pytest.approx(row.achieved_flops / found.peak("fp32"))


def test_a_calibration_that_nothing_asks_for_is_there_for_later_processes(small_calibration):
    assert Calibrated in map(type, measure(calibrate=True, metrics=("latency",)))


def test_energy_is_joules_over_images_in_a_long_window(monkeypatch):
    # Two readings around the window: 12 J in six seconds of the probe's clock.
    watched = [Reading(at_s=float(i), event_reasons=0) for i in range(200)]
    around = [Reading(at_s=1000.0, energy_mj=5_000, event_reasons=0), Reading(at_s=1006.0, energy_mj=17_000)]
    probe = ReplayProbe(around)
    watching = ReplayProbe(watched)

    class Both:
        """The watch's readings until the energy phase begins."""

        energy = False

        def read(self):
            return (probe if self.energy else watching).read()

    both = Both()
    monkeypatch.setattr(GroupContext, "probe", both)

    def measured(*arguments, **options):
        both.energy = True
        reading = measure_energy(*arguments, **options)
        both.energy = False
        return reading

    monkeypatch.setattr(timing, "measure_energy", measured)
    steps = []
    infer = Workload._infer

    def counted(self):
        steps.append(both.energy)
        return infer(self)

    monkeypatch.setattr(Workload, "_infer", counted)
    row = rows(measure(batches=(2,), metrics=("latency", "energy"), protocol={"energy_window_s": 0.05}))[0]
    assert row.energy_j_per_img == pytest.approx(12.0 / (2 * sum(steps)))
    assert row.mean_power_w == pytest.approx(2.0)


def test_a_cell_beside_a_stranger_is_given_up_soon_and_says_why_it_has_no_samples(monkeypatch):
    stranger = (GpuProcess(pid=4711),)
    readings = [Reading(at_s=float(i), event_reasons=0, foreign=stranger) for i in range(200)]
    monkeypatch.setattr(GroupContext, "probe", ReplayProbe(readings))
    patient = {"max_sampling_s": 60, "max_throughput_s": 60}
    finished = measure(metrics=("latency", "throughput"), protocol=patient)[-1]
    row = finished.record
    assert (row.status, row.verdict, row.samples) == ("ok", "invalid", 0)
    assert "foreign_process" in row.reasons
    assert {"latency_p50_s:all_rejected", "latency_p99_s:all_rejected"} & set(row.reasons)
    assert row.latency_median_s > 0
    blocks = {(sample.experiment, sample.block) for sample in finished.samples if sample.experiment != "canary"}
    assert len(blocks) == 3
    assert not any(sample.kept for sample in finished.samples if sample.experiment != "canary")


def test_the_peak_holds_nothing_of_the_harness():
    with_numerics = rows(measure(batches=(2,), precision="amp-bf16", metrics=("latency", "memory", "numerics")))[0]
    without = rows(measure(batches=(2,), precision="amp-bf16", metrics=("memory",)))[0]
    assert with_numerics.output_rel_error is not None
    assert with_numerics.peak_allocated_bytes == without.peak_allocated_bytes


def test_a_failing_pass_beside_the_timings_costs_its_columns_and_not_the_row(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no memory events")

    monkeypatch.setattr("archbench.measure.metrics.footprint.measure_memory", fail)
    found = rows(measure(batches=(1, 2), metrics=("latency", "memory")))
    assert [row.status for row in found] == ["ok"]  # the second cell is left to a fresh process
    assert found[0].latency_median_s > 0
    assert "peak_allocated_bytes:phase_failed" in found[0].reasons


def test_a_calibration_that_fails_costs_no_cell(monkeypatch):
    def fail(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("archbench.measure.group.calibrate", fail)
    events = measure(calibrate=True)
    assert rows(events)[0].status == "ok"
    assert not any(isinstance(event, Calibrated) for event in events)


def test_a_network_that_reads_values_to_be_built_is_counted_with_data():
    (row,) = rows(measure("reads_values_to_be_built", metrics=("static", "memory")))
    assert row.status == "ok", row.error_message
    assert row.params == rows(measure(metrics=("static",)))[0].params
    assert row.predicted_peak_bytes is None
    assert "predicted_peak_bytes:not_predicted" in row.reasons
    assert {"canary_s:not_requested", "contention:nothing_timed"} <= set(row.reasons)


def test_a_network_of_vectors_has_no_side_in_pixels():
    task = Task(
        group=Group(cells=(Cell(network=Network(name="toy_residual_block"), batch_size=1),)),
        context=RunContext(run_id="test", round=0, environment=collect_environment("cpu")),
        protocol=protocol_for("cpu", QUICK),
        metrics=("static",),
    )
    events: list[Event] = []
    measure_group(task, events.append)
    assert rows(events)[0].input_size is None
    assert rows(measure(metrics=("static",)))[0].input_size == 16


def test_a_label_may_be_called_as_a_column_is():
    context = RunContext(run_id="test", round=0, environment=collect_environment("cpu"))
    cell = Cell(network=Network(name="resnet18"), batch_size=1)
    draft = RecordBuilder(empty_record(cell, context, Facts()))
    draft.null("not_requested", "latency_median_s", "params")
    draft.set(host_bound=True, latency_median_s=0.01)
    draft.flag("host_bound")
    assert draft.finish().reasons == ("params:not_requested", "host_bound")


@pytest.mark.parametrize("metrics", [("latency",), ("static", "latency")])
@pytest.mark.parametrize("phase", ["inference", "training"])
def test_switches_of_the_whole_process_are_the_cells_and_not_the_networks(metrics, phase):
    (row,) = rows(measure("switches_when_built", metrics=metrics, phase=phase))
    assert (row.status, "switched" in row.reasons) == ("ok", False), row.error_message
    assert json.loads(row.applied)["matmul_precision"] == "highest"
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_network_that_switches_in_its_step_is_suspect():
    (row,) = rows(measure("switches_in_its_step", metrics=("latency",)))
    assert row.status == "ok", row.error_message
    assert row.verdict in ("suspect", "invalid"), "other work on this machine can make it worse"
    assert "switched" in row.reasons


@pytest.mark.filterwarnings("error:Casting complex")
@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("network", ["with_complex_weights", "with_a_table_of_fp64", "forgets_itself"])
def test_weights_and_tables_keep_the_type_that_the_network_gives_them(network, phase):
    (row,) = rows(measure(network, batches=(2,), phase=phase, metrics=("static", "latency", "memory", "numerics")))
    assert row.status == "ok", row.error_message
    assert json.loads(row.applied)["weight_dtype"] == "float32"
    assert row.peak_allocated_bytes > row.weight_bytes
    assert row.predicted_peak_bytes is not None


@pytest.mark.parametrize("network", ["with_complex_weights", "with_a_table_of_fp64"])
def test_outputs_of_other_types_are_compared(network):
    precision = "amp-bf16" if network == "with_complex_weights" else "tf32"
    (row,) = rows(measure(network, batches=(2,), precision=precision, metrics=("latency", "numerics")))
    assert row.output_fp64_error is not None, row.reasons
    assert row.output_finite


def test_a_network_in_half_precision_is_never_timed_as_fp32():
    (row,) = rows(measure("in_half_precision", metrics=("latency",)))
    assert row.status == "unsupported"
    assert "makes its weights bfloat16" in row.error_message
    (row,) = rows(measure("in_half_precision", metrics=("latency",), precision="bf16"))
    assert row.status == "ok"


def test_what_torch_exports_has_no_modes_and_is_measured():
    (row,) = rows(measure("exported", batches=(2,), metrics=("static", "latency", "memory")))
    assert row.status == "ok", row.error_message
    assert row.macs == 7 * 7 * 8 * 27 + 80
