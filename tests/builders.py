"""Records and whole runs to test with, as a measured suite would leave them: `from builders import make_run`."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from archbench.model.cell import Cell, Network
from archbench.model.environment import Environment, Gpu
from archbench.model.record import Facts, Record, RunContext, Sample, empty_record
from archbench.model.suite import Axes, Setting, Suite
from archbench.results import RunStore
from archbench.results.journal import RECORDS, SAMPLES, to_table

SETTINGS = {
    "fp32": Setting(),
    "amp": Setting(precision="amp-bf16"),
    "amp-nhwc": Setting(precision="amp-bf16", memory_format="channels_last"),
    "compiled": Setting(precision="amp-bf16", memory_format="channels_last", compile_mode="default"),
}
GAIN = {"fp32": 1.0, "amp": 1.4, "amp-nhwc": 1.6, "compiled": 2.1}
"""Speed of each setting over fp32, exactly, before noise."""

_V1 = "IMAGENET1K_V1, torchvision's training recipe, 224 px centre crop"
_V2 = "IMAGENET1K_V2, torchvision's newer recipe, 224 px centre crop"
# name: family, parameters, MACs, activations, top-1, weights, seconds per image in fp32, bytes per image at inference
NETWORKS: dict[str, tuple[str, int, int, int, float, str, float, int]] = {
    "mobilenet_v2": ("mobilenet", 3_504_872, 300_774_272, 6_678_112, 71.878, _V1, 0.0041, 9_633_792),
    "resnet18": ("resnet", 11_689_512, 1_814_073_344, 2_484_200, 69.758, _V1, 0.0085, 7_225_344),
    "resnet50": ("resnet", 25_557_032, 4_089_184_256, 11_114_472, 80.858, _V2, 0.0232, 22_478_848),
    "densenet121": ("densenet", 7_978_856, 2_834_161_664, 6_887_384, 74.434, _V1, 0.0214, 16_056_320),
    "vgg16": ("vgg", 138_357_544, 15_470_264_320, 13_563_880, 71.592, _V1, 0.0660, 51_380_224),
}


def make_environment(device: str = "cpu", **overrides: Any) -> Environment:
    """A small CPU machine, or the same with one accelerator for `cuda:0`."""
    gpu = Gpu(name="NVIDIA H200", uuid="GPU-0", memory_bytes=150_754_820_096, power_limit_w=700.0, mig_enabled=False)
    on_gpu = device.startswith("cuda")
    fields: dict[str, Any] = {
        "hardware_class": "NVIDIA H200" if on_gpu else "AMD EPYC 9654 x2",
        "device": device,
        "cpu_model": "AMD EPYC 9654",
        "cpu_count": 2,
        "memory_bytes": 48 * 2**30,
        "os": "Debian GNU/Linux 12",
        "kernel": "6.1.0",
        "governor": "performance",
        "gpus": (gpu,) if on_gpu else (),
        "driver_version": "580.95.05" if on_gpu else None,
        "python_version": "3.11.9",
        "torch_version": "2.15.0+cu132",
        "torchvision_version": "0.29.2+cu132",
        "timm_version": "1.0.22",
        "cuda_version": "13.2",
        "libraries": {"numpy": "2.4.6", "fvcore": "0.1.5"},
        "archbench_version": "0.1.0",
        "settings": {"OMP_NUM_THREADS": "2"},
    }
    return Environment(**{**fields, **overrides})


def make_suite(**overrides: Any) -> Suite:
    """A suite over `NETWORKS` and `SETTINGS`."""
    fields: dict[str, Any] = {
        "suite": "example",
        "description": "Five backbones for a first look.",
        "architectures": tuple(Network(name=name) for name in NETWORKS),
        "axes": Axes(batch_size=(1, 8), phase=("inference", "training")),
        "settings": SETTINGS,
        "rounds": 3,
        "twin": "resnet18",
    }
    return Suite(**{**fields, **overrides})


def make_record(**overrides: Any) -> Record:
    """One measured row: resnet50, batch 1, fp32 inference on the CPU; any column can be given."""
    cell = Cell(network=Network(name="resnet50"), batch_size=1, setting="fp32")
    measured: dict[str, Any] = {
        "verdict": "ok",
        "params": 25_557_032,
        "macs": 4_089_184_256,
        "flops": 8_178_368_512,
        "activations": 11_114_472,
        "weight_bytes": 102_441_120,
        "latency_median_s": 0.0232,
        "latency_ci_low_s": 0.0230,
        "latency_ci_high_s": 0.0235,
        "latency_p90_s": 0.0245,
        "latency_p95_s": 0.0251,
        "throughput_img_s": 43.5,
        "throughput_ci_low_img_s": 43.1,
        "throughput_ci_high_img_s": 43.9,
        "samples": 64,
        "steps_per_sample": 1,
        "canary_s": 0.001,
        "peak_allocated_bytes": 180_000_000,
        "started_at": "2025-01-02T03:04:05.000+00:00",
        "duration_s": 4.0,
    }
    context = RunContext(run_id="20250102T030405Z-0123abcd", round=0, environment=make_environment())
    facts = Facts(family="resnet", source="torchvision", input_size=224, top1=80.858, top5=95.434, accuracy_source=_V2)
    blank = empty_record(cell, context, facts)
    if overrides.get("status", "ok") != "ok":
        measured = {}
    return msgspec.structs.replace(blank, **{"status": "ok", **measured, **overrides})


def make_samples(record: Record, count: int = 12) -> tuple[Sample, ...]:
    """Latency samples in blocks of two around the record's median."""
    median = record.latency_median_s or 0.01
    return tuple(
        Sample(
            cell_id=record.cell_id,
            round=record.round,
            visit=record.visit,
            experiment="latency",
            block=index // 2,
            steps=1,
            host_s=median * (1 + 0.01 * ((index % 5) - 2)),
        )
        for index in range(count)
    )


def make_rows(
    suite: Suite | None = None,
    environment: Environment | None = None,
    *,
    noise: float = 0.01,
    drift: float = 0.04,
    seed: int = 0,
    networks: Iterable[str] = NETWORKS,
    run_id: str = "20250102T030405Z-0123abcd",
) -> Iterator[Record]:
    """The rows of a run of `make_suite`: `GAIN` holds exactly but for log-normal noise between processes.

    `drift` is the sd of the machine's own speed, which step and canary share: dividing by the canary takes it out.
    The twin is visited three times a round. Training at batch 8 of vgg16 runs out of memory, compiled training is
    unsupported, and one process of densenet121 finds its neighbours noisy.
    """
    suite = suite or make_suite()
    environment = environment or make_environment()
    rng = random.Random(seed)
    names = list(networks)
    minute = 0
    for round_ in range(suite.rounds or 1):
        for name in names:
            for visit in range(3 if name == suite.twin else 1):
                context = RunContext(run_id=run_id, round=round_, visit=visit, environment=environment)
                for cell in _cells(name, suite, environment):
                    minute += 1
                    started = f"2025-01-02T{minute // 3600:02d}:{minute // 60 % 60:02d}:{minute % 60:02d}.000+00:00"
                    row = _row(cell, context, math.exp(rng.gauss(0, noise)), math.exp(rng.gauss(0, drift)))
                    yield msgspec.structs.replace(row, started_at=started)


def make_run(
    root: Path,
    rows: Sequence[Record] | None = None,
    *,
    suite: Suite | None = None,
    environment: Environment | None = None,
    merge: bool = True,
    timings: bool = True,
) -> Path:
    """A run's directory under `root`, holding `rows` (or those of `make_rows`), each with a few samples.

    Without `merge` every row lies in its own file, as in a run that was killed; without `timings` there are no samples.
    """
    suite = suite or make_suite()
    environment = environment or make_environment()
    rows = list(make_rows(suite, environment)) if rows is None else rows
    path = root / suite.suite / "20250102T030405Z-0123abcd"
    store = RunStore.create(path, suite, environment, f"suite: {suite.suite}\n")
    samples = [make_samples(row) if timings and row.status == "ok" else () for row in rows]
    if not merge:
        for row, its_samples in zip(rows, samples, strict=True):
            store.append(row, its_samples)
    elif rows:
        # In one go: a thousand rows would take a thousand syncs.
        store._rows.fill(to_table(rows, RECORDS))
        if every := list(chain(*samples)):
            store._timings.fill(to_table(every, SAMPLES))
    return path


def _cells(name: str, suite: Suite, environment: Environment) -> Iterator[Cell]:
    for phase in suite.axes.phase or ("inference",):
        for label, setting in suite.settings.items():
            for batch_size in suite.axes.batch_size or (1,):
                yield Cell(
                    network=Network(name=name),
                    batch_size=batch_size,
                    phase=phase,
                    precision=setting.precision,
                    compile_mode=setting.compile_mode,
                    memory_format=setting.memory_format,
                    device="cuda" if environment.device.startswith("cuda") else "cpu",
                    setting=label,
                )


def _row(cell: Cell, context: RunContext, luck: float, speed: float) -> Record:
    family, params, macs, activations, top1, weights, second_per_image, byte_per_image = NETWORKS[cell.network.name]
    facts = Facts(family=family, source="torchvision", input_size=224, top1=top1, top5=None, accuracy_source=weights)
    row = empty_record(cell, context, facts)
    counted = {
        "params": params,
        "macs": macs,
        "flops": 2 * macs,
        "activations": activations,
        "weight_bytes": 4 * params,
    }
    training = cell.phase == "training"
    if training and cell.compile_mode != "off":
        return msgspec.structs.replace(
            row, status="unsupported", **counted, error_phase="build", error_message="compiled training is switched off"
        )
    if training and cell.batch_size == 8 and cell.network.name == "vgg16":
        return msgspec.structs.replace(
            row,
            status="oom",
            **counted,
            error_phase="warmup",
            error_message="DefaultCPUAllocator: can't allocate memory: you tried to allocate 411041792 bytes",
        )
    step = second_per_image * cell.batch_size**0.9 * (3.1 if training else 1.0) / GAIN[cell.setting or "fp32"]
    step *= luck * speed
    noisy = cell.network.name == "densenet121" and context.round == 1 and cell.setting == "fp32" and not training
    copies = 3 if training else 1
    peak = (4 * params + cell.batch_size * byte_per_image) * copies
    gpu = cell.device == "cuda"
    host_bound = gpu and cell.batch_size == 1
    return msgspec.structs.replace(
        row,
        status="ok",
        verdict="suspect" if noisy else "ok",
        reasons=(
            *(("contended",) if noisy else ()),
            *(("host_bound",) if host_bound else ()),
            "latency_p99_s:too_few_samples",
            "energy_j_per_img:not_requested",
        ),
        **counted,
        latency_median_s=step,
        latency_ci_low_s=step * 0.994,
        latency_ci_high_s=step * 1.007,
        latency_p90_s=step * 1.05,
        latency_p95_s=step * 1.08 if step < 0.05 else None,
        throughput_img_s=1.04 * cell.batch_size / step,
        throughput_ci_low_img_s=1.035 * cell.batch_size / step,
        throughput_ci_high_img_s=1.045 * cell.batch_size / step,
        samples=64 if step < 0.05 else 30,
        steps_per_sample=1,
        canary_s=0.001 * speed,
        warmup_steps=6,
        first_call_s=step * 4,
        contention=0.2 if noisy else 0.01,
        peak_allocated_bytes=peak,
        peak_reserved_bytes=2 * peak if gpu else None,
        process_bytes=peak + 300_000_000,
        predicted_peak_bytes=peak,
        predicted_peak_lines=f"{4 * params * copies}+{byte_per_image * copies}n",
        host_bound=host_bound if gpu else None,
        duration_s=3.5,
    )
