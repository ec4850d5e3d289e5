"""One cell from build to row: the phases in their order, each figure put into its column."""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import torch

from archbench.device.clock import ClockError
from archbench.device.peaks import peak_flops
from archbench.measure import compiler
from archbench.measure.bench import Bench
from archbench.measure.breaks import traced_counts
from archbench.measure.columns import COLUMNS_OF, NEEDS_A_STEP
from archbench.measure.draft import Draft
from archbench.measure.energy import Energy, measure_energy
from archbench.measure.failures import status_of
from archbench.measure.memory import measure_memory
from archbench.measure.numerics import compare
from archbench.measure.sample_log import SampleLog
from archbench.measure.sampling import Sampled, WarmUp, sample_latency, sample_throughput, warm_up
from archbench.measure.watch import Watch
from archbench.measure.workload import UnsupportedError, Workload
from archbench.model.axes import STATIC
from archbench.model.blank import blank_record
from archbench.model.cell import Cell
from archbench.model.errors import UsageError
from archbench.model.messages import CellFinished
from archbench.model.profile import StageProfile
from archbench.model.record import Record, Status
from archbench.model.suite import PERCENTILES
from archbench.stats import drifting, minimum_samples, percentile

TRAINING_PASSES = 3
"""A training step's arithmetic in forward passes: the backward pass computes gradients of inputs and of weights, each
as large as the forward (Kaplan et al. 2020, section 2.1; PaLM, appendix B)."""
WIDE = 2.0
"""An interval this many times wider than the target makes a row suspect."""


class CellRun:
    """Measures one cell. `enter` is told each phase as it begins, so that a death can be placed."""

    def __init__(self, bench: Bench, cell: Cell, *, first: bool, enter: Callable[[str], None]) -> None:
        self._bench = bench
        self._task = bench.task
        self._cell = cell
        self._first = first
        self._enter = enter
        self._draft = Draft(blank_record(cell, bench.task.context, bench.facts))
        self._samples = SampleLog(cell.cell_id, bench.task.context)
        self._stage_profile: StageProfile | None = None
        self.poisoned = False
        """Something failed on the way, so that this process should measure nothing more."""

    def run(self) -> CellFinished:
        """Measure. Whatever the network does becomes a row; only what kills the process does not come back."""
        status: Status
        try:
            with self._compile_cache():
                self._measure()
            return self._finished(self._draft.finish())
        except (torch.OutOfMemoryError, MemoryError) as error:
            status, message = "oom", str(error)
        except UnsupportedError as error:
            status, message = "unsupported", str(error)
        except (UsageError, ClockError) as error:
            status, message = "error", str(error)
        except Exception as error:  # the network's own code, a library's, or the device's: all are findings
            status = status_of(error)
            message = f"{type(error).__name__}: {error}"
        self.poisoned = status != "unsupported"
        return self._finished(self._draft.fail(status, message))

    def _finished(self, record: Record) -> CellFinished:
        return CellFinished(record=record, samples=self._samples.all(), profile=self._stage_profile)

    def _measure(self) -> None:
        metrics = self._task.metrics
        for metric, columns in COLUMNS_OF.items():
            if metric not in metrics:
                self._draft.null("not_requested", *columns)
        self._count()
        if metrics == STATIC:
            self._predict()
            return
        workload = self._build()
        self._first_call(workload)
        if not metrics:
            return  # whether the step runs is all that was asked
        # After the warm-up nothing may compile: a recompilation inside the timing is an error, not a slow sample.
        self._warm_up(workload)
        guard = compiler.no_recompiles() if self._compiles else contextlib.nullcontext()
        watch = Watch(self._bench.probe, self._bench.time_canary, self._task.protocol)
        with guard:
            if "latency" in metrics:
                self._latency(workload, watch)
            if "throughput" in metrics:
                self._throughput(workload, watch)
            self._conclude(watch)
            if "energy" in metrics:
                self._aside(self._energy, workload, *COLUMNS_OF["energy"])
        if "memory" in metrics:
            self._aside(self._memory, workload, *COLUMNS_OF["memory"])
        self._aside(self._numerics, workload, *COLUMNS_OF["numerics"])
        if "profile" in metrics and not self._compiles:
            self._aside(self._profile, workload)
        self._aside(self._compile_metrics, workload, *COLUMNS_OF["compile"], "cuda_graph_launches")

    def _aside(self, measure: Callable[[Workload], None], workload: Workload, *columns: str) -> None:
        """Fill columns beside the timings. What fails here does not cost a row that has its times already."""
        try:
            measure(workload)
        except Exception as error:  # the network's own code or the device's, as in `run`
            self.poisoned = True
            self._draft.null("phase_failed", *columns)
            print(f"{self._cell.cell_id}: {self._draft.phase}: {error}", file=sys.stderr)

    @property
    def _compiles(self) -> bool:
        return self._cell.compile_mode != "off"

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self._draft.phase = name
        self._enter(name)
        yield

    @contextlib.contextmanager
    def _compile_cache(self) -> Iterator[None]:
        """An empty cache where cold compile time is asked for, else torch's own."""
        cold = self._compiles and "compile" in self._task.metrics
        with compiler.cold_cache() if cold else contextlib.nullcontext():
            yield

    def _count(self) -> None:
        with self._phase("count"):
            shape = self._bench.shape
            if len(shape) == 3:  # of a vector nothing is a side in pixels
                self._draft.set(input_size=shape[-1])
            if "static" in self._task.metrics:
                counts = self._bench.counts
                self._draft.set(
                    params=counts.params,
                    macs=counts.macs,
                    flops=counts.flops,
                    activations=counts.activations,
                    weight_bytes=counts.weight_bytes,
                )

    def _predict(self) -> None:
        """The figures that need no step: the rest of a row whose suite asks for nothing else."""
        with self._phase("predict"):
            self._predict_memory()
        if self._compiles:
            with self._phase("trace"):
                counts = traced_counts(self._cell, self._bench.shape, allow_code=self._task.allow_code)
                self._note_breaks(counts)
        else:
            self._draft.null("not_compiled", "graph_breaks", "recompiles")
        self._draft.null("nothing_ran", *NEEDS_A_STEP)

    def _note_breaks(self, counts: compiler.CompileCounts) -> None:
        self._draft.set(graph_breaks=counts.graph_breaks, recompiles=counts.recompiles)
        if counts.fell_back:
            self._draft.flag("eager_frames")

    def _build(self) -> Workload:
        with self._phase("build"):
            bench, protocol = self._bench, self._task.protocol
            compiler.reset()
            gc.collect()  # the last cell's tensors, before a larger one needs their room
            workload = Workload(
                self._cell,
                bench.module,
                bench.shape,
                bench.device,
                ring=protocol.input_ring,
                seed=self._task.seed,
            )
            applied = workload.applied()
            self._draft.set(applied=msgspec.json.encode(applied).decode())
            workload.require(applied)
            return workload

    def _first_call(self, workload: Workload) -> None:
        """The very first step: allocations, kernel selection, compilation. Kept out of every other figure."""
        with self._phase("compile" if self._compiles else "first call"):
            self._bench.clock.synchronize()
            start = time.perf_counter()
            workload.step()
            self._bench.clock.synchronize()
            first_call_s = time.perf_counter() - start
            self._draft.set(first_call_s=first_call_s)
            if self._compiles and "compile" in self._task.metrics:
                self._draft.set(compile_cold_s=first_call_s, compile_neighbours=0)

    def _warm_up(self, workload: Workload) -> None:
        with self._phase("warmup"):
            self._note(warm_up(workload.step, self._bench.clock, self._task.protocol, first_cell=self._first))

    def _note(self, warm: WarmUp) -> None:
        """Enter how the warm-up went, and what was compiled in it."""
        self._step_s = warm.step_s
        self._draft.set(warmup_steps=warm.calls + 1)
        if not warm.level:
            self._draft.flag("nonstationary")
        if self._compiles:
            self._note_breaks(compiler.counts())

    def _latency(self, workload: Workload, watch: Watch) -> None:
        with self._phase("latency"):
            needed = max((minimum_samples(p) for p in self._task.percentiles), default=0)
            sampled = sample_latency(
                workload.step, self._bench.clock, self._task.protocol, watch, step_s=self._step_s, min_samples=needed
            )
        self._samples.add(sampled, "latency")
        interval = sampled.interval
        self._draft.set(
            latency_median_s=interval.median,
            latency_ci_low_s=interval.low,
            latency_ci_high_s=interval.high,
            samples=len(sampled.kept()),
            steps_per_sample=sampled.steps,
        )
        self._judge(sampled)
        host = [timing.host_s for timing in sampled.kept()]
        for percent in PERCENTILES:
            column = f"latency_p{percent}_s"
            value = percentile(host, percent) if sampled.steps == 1 else None
            self._draft.set(**{column: value})
            if value is None:
                code = "several_steps_per_sample" if sampled.steps > 1 else "too_few_samples"
                self._draft.null(code if host else "all_rejected", column)
        device = sorted(timing.device_s / sampled.steps for timing in sampled.kept() if timing.device_s is not None)
        if device:
            device_time = device[len(device) // 2]
            host_bound = interval.median / device_time > self._task.protocol.host_bound_ratio
            self._draft.set(device_time_median_s=device_time, host_bound=host_bound)
            if host_bound:
                self._draft.flag("host_bound")
        else:
            self._draft.null("not_on_device", "device_time_median_s")

    def _judge(self, sampled: Sampled) -> None:
        kept = [timing.host_s for timing in sampled.kept()]
        if sampled.given_up is not None:
            self._draft.flag(sampled.given_up)
        half_width = sampled.interval.half_width
        if half_width is None:
            self._draft.flag("few_samples")
        elif half_width > WIDE * self._task.protocol.target_half_width:
            self._draft.flag("wide_interval")
        if len(kept) > 1 and drifting(kept, self._task.protocol.warmup_level_change).drifting:
            self._draft.flag("nonstationary")

    def _throughput(self, workload: Workload, watch: Watch) -> None:
        with self._phase("throughput"):
            sampled = sample_throughput(
                workload.step, self._bench.clock, self._task.protocol, watch, step_s=self._step_s
            )
        self._samples.add(sampled, "throughput")
        if sampled.given_up is not None:
            self._draft.flag(sampled.given_up)
        images, interval = self._cell.batch_size, sampled.interval
        rate = images / interval.median
        self._draft.set(
            throughput_img_s=rate,
            throughput_ci_low_img_s=images / interval.high if interval.high else None,
            throughput_ci_high_img_s=images / interval.low if interval.low else None,
        )
        if "static" not in self._task.metrics:
            self._draft.null("not_requested", "achieved_flops", "mfu", "measured_peak_share")
            return
        passes = TRAINING_PASSES if self._cell.phase == "training" else 1
        achieved = rate * self._bench.counts.flops * passes
        peak = self._vendor_peak()
        self._draft.set(achieved_flops=achieved, mfu=achieved / peak if peak else None)
        if peak is None:
            self._draft.null("unknown_peak", "mfu")
        calibration = self._bench.calibration
        ceiling = calibration.peak(self._cell.precision) if calibration else None
        self._draft.set(measured_peak_share=achieved / ceiling if ceiling else None)
        if ceiling is None:
            self._draft.null("unknown_peak", "measured_peak_share")

    def _vendor_peak(self) -> float | None:
        gpus = self._task.context.environment.gpus
        return peak_flops(gpus[0].name, self._cell.precision) if self._cell.device == "cuda" and gpus else None

    def _energy(self, workload: Workload) -> None:
        with self._phase("energy"):
            bench = self._bench
            reading = measure_energy(workload.step, bench.clock, bench.probe, self._task.protocol, step_s=self._step_s)
            if isinstance(reading, Energy):
                self._draft.set(
                    energy_j_per_img=reading.joules / (reading.steps * self._cell.batch_size),
                    mean_power_w=reading.mean_power_w,
                )
            else:
                self._draft.null(reading, "energy_j_per_img")

    def _conclude(self, watch: Watch) -> None:
        report = watch.report()
        self._draft.set(
            canary_s=report.canary_s,
            throttled_fraction=report.throttled_fraction,
            power_capped_fraction=report.power_capped_fraction,
            sm_clock_mhz=report.sm_clock_mhz,
            contention=report.contention,
            mean_power_w=report.mean_power_w,
        )
        for code in report.reasons:
            self._draft.flag(code)
        for column, code in report.missing:
            self._draft.null(code, column)
        self._samples.add_canaries(report.canaries)

    def _memory(self, workload: Workload) -> None:
        with self._phase("memory"):
            self._bench.put_canary_away()
            reading = measure_memory(workload.step, self._bench.device, self._bench.baseline_rss, self._bench.probe)
            self._draft.set(
                peak_allocated_bytes=reading.peak_allocated,
                peak_reserved_bytes=reading.peak_reserved,
                process_bytes=reading.process,
            )
            self._predict_memory()
            if reading.peak_reserved is None:
                self._draft.null("not_on_device", "peak_reserved_bytes")
            if reading.process is None:
                on_gpu = self._cell.device == "cuda"
                self._draft.null("process_unknown" if on_gpu else "not_on_device", "process_bytes")

    def _predict_memory(self) -> None:
        """Beside the measured peak, for eager steps: what a compiled one keeps is the compiler's choice."""
        model = None if self._compiles else self._bench.memory_model
        if model is None:
            self._draft.null("not_predicted", "predicted_peak_bytes")
        else:
            held = self._task.protocol.input_ring
            self._draft.set(predicted_peak_bytes=model.peak_bytes(self._cell.batch_size, batches_held=held))

    def _numerics(self, workload: Workload) -> None:
        columns = COLUMNS_OF["numerics"]
        if "numerics" not in self._task.metrics:
            return
        if not self._bench.judges_numerics:
            self._draft.null("inference_only", *columns)
        elif self._bench.is_reference:
            self._draft.null("is_reference", *columns)
        elif not self._first:
            self._draft.null("first_batch_only", *columns)
        else:
            with self._phase("numerics"):
                found = compare(workload, self._bench.build().eval())
                self._draft.set(
                    output_rel_error=found.rel_error,
                    output_cosine=found.cosine,
                    output_finite=found.finite,
                    compile_error_ratio=found.compile_error_ratio,
                )
                if found.rel_error is None:
                    self._draft.null("not_finite", "output_rel_error", "output_cosine")

    def _profile(self, workload: Workload) -> None:
        """Where the step's time goes, by stage. Of eager steps: a compiled one has no modules left to time."""
        from archbench.profiler.stage_profile import profile_stages

        with self._phase("profile"):
            context = self._task.context
            self._stage_profile = profile_stages(
                workload,
                self._bench.clock,
                self._bench.calibration,
                round=context.round,
                visit=context.visit,
                allow_code=self._task.allow_code,
            )

    def _compile_metrics(self, workload: Workload) -> None:
        """Warm compile time: everything compiled again from the cache that the first call filled."""
        if not self._compiles:
            self._draft.null("not_compiled", "compile_cold_s", "compile_warm_s", "graph_breaks", "recompiles")
            return
        if self._bench.device.type == "cuda":
            with self._phase("cuda graphs"):
                self._draft.set(cuda_graph_launches=compiler.cuda_graph_launches(workload.step))
        if "compile" not in self._task.metrics:
            return
        with self._phase("compile again"):
            compiler.reset()
            compiler.forget_loaded()
            self._bench.clock.synchronize()
            start = time.perf_counter()
            workload.step()
            self._bench.clock.synchronize()
            self._draft.set(compile_warm_s=time.perf_counter() - start)
