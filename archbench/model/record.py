"""One row of results: all that is known of one cell in one round. Columns, units and meanings live here alone.

A row begins empty, for the worker that fills it and for whoever reports a failure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct, inspect, structs

from archbench.model.axes import Metric
from archbench.model.cell import Cell, text_of
from archbench.model.environment import Calibration, Environment
from archbench.model.protocol import PROTOCOL_VERSION

SCHEMA_VERSION = 1
"""Version of what the columns below mean, stored in every file.

Raised where a column changes its meaning or type, or goes: readers of another version must not mistake it. A new column
raises nothing as long as it may be null: in rows stored before it is, and readers that do not know it leave it out.

1  first version.
"""

Status = Literal["ok", "oom", "error", "timeout", "crashed", "unsupported", "skipped"]
Verdict = Literal["ok", "suspect", "invalid"]
STATUSES: tuple[str, ...] = get_args(Status)
VERDICTS: tuple[str, ...] = get_args(Verdict)
FAILED: frozenset[str] = frozenset({"oom", "error", "timeout", "crashed"})
"""Statuses that make `archbench run` exit with 1."""
DEVICE_PHASE = "device"
"""The `error_phase` of a cell that failed because the device could not be had: no other cell can be measured either."""


def C(description: str, unit: str | None = None, metric: Metric | None = None) -> Meta:  # noqa: N802 - see below
    """What a column means, the unit of its values, and the metric that fills it; `None` for what every row has."""
    return Meta(description=description, extra={"unit": unit, "metric": metric})


Text = str | None
Real = float | None
Whole = int | None


class Record(Struct, frozen=True, kw_only=True):
    """One cell measured in one round by one process. `None` = not measured, never 0; `reasons` says why."""

    # What was measured
    schema_version: Annotated[int, C("version of these columns")] = SCHEMA_VERSION
    protocol_version: Annotated[int, C("version of the measurement protocol")]
    run_id: Annotated[str, C("the run that this row belongs to")]
    cell_id: Annotated[str, C("readable identity of the cell, equal on every machine")]
    group_id: Annotated[str, C("the cell without its batch size")]
    round: Annotated[int, C("which pass over the suite, from 0; one process each")]
    visit: Annotated[int, C("which visit of the round, from 0; above 0 for the twin only")] = 0
    status: Annotated[Status, C("how measuring ended")]
    verdict: Annotated[Verdict | None, C("whether the row is fit to be used; null unless status is ok")] = None
    reasons: Annotated[tuple[str, ...], C("reason codes: why the verdict, and why a column is null")] = ()
    architecture: Annotated[str, C("catalogue name, torchvision:NAME, timm:NAME or module:function")]
    variant: Annotated[str, C("architecture with whatever departs from its defaults in brackets")]
    family: Annotated[Text, C("family of architectures, lower case")] = None
    source: Annotated[Text, C("torchvision, timm, archbench or user code")] = None
    setting: Annotated[Text, C("the suite's name for this bundle of toggles")] = None
    input_size: Annotated[Whole, C("side of the square input", "px")] = None
    inputs: Annotated[Text, C("what the network takes, where it is not one square image: `16/int64/0..1000`")] = None
    batch_size: Annotated[int, C("images per step", "images")]
    phase: Annotated[str, C("inference or training")]
    precision: Annotated[str, C("fp32, tf32, amp-bf16, amp-fp16, bf16 or fp16")]
    compile_mode: Annotated[str, C("torch.compile mode, or off")]
    memory_format: Annotated[str, C("contiguous or channels_last, of model and input")]
    runtime: Annotated[Text, C("what ran the network: torch, onnxruntime, openvino, aot-inductor or tensorrt")] = None
    quantize: Annotated[
        Text, C("off, or in what layers compute: int8-dynamic, int8-static, int8-weight-only or fp8")
    ] = None
    threads: Annotated[
        Whole, C("threads of one operator that were asked for; null: the machine's default, read back in `applied`")
    ] = None
    head: Annotated[Text, C("none or features; null: the classifier")] = None
    deploy: Annotated[bool | None, C("folded for inference; null: as it was built")] = None
    train: Annotated[Text, C("what of it is trained, head or frozen-bn; null: all")] = None
    optimizer: Annotated[Text, C("adamw; null: SGD with momentum")] = None
    checkpointing: Annotated[bool | None, C("blocks run again in the backward pass; null: they do not")] = None
    device: Annotated[str, C("cpu or cuda")]
    hardware_class: Annotated[str, C("rows of different hardware classes are never compared")]
    machine: Annotated[Text, C("which device measured the row: its machine's name, and `cpu` or the GPU's UUID")] = None

    # Counted, not timed
    params: Annotated[Whole, C("trainable parameters", metric="static")] = None
    macs: Annotated[Whole, C("multiply-accumulates of one forward pass, per image", metric="static")] = None
    flops: Annotated[Whole, C("2 x macs, per image", metric="static")] = None
    activations: Annotated[
        Whole, C("elements in the outputs of conv and linear layers, per image", metric="static")
    ] = None
    weight_bytes: Annotated[Whole, C("parameters and buffers as stored in fp32", "B", "static")] = None

    # What a training step minimises
    loss: Annotated[Text, C("what a training step minimises, and of which outputs")] = None

    # Latency: one batch in flight, synchronised
    latency_median_s: Annotated[Real, C("median time of one synchronised step", "s", "latency")] = None
    latency_ci_low_s: Annotated[Real, C("95 % interval of the median within this process, low end", "s", "latency")] = (
        None
    )
    latency_ci_high_s: Annotated[
        Real, C("95 % interval of the median within this process, high end", "s", "latency")
    ] = None
    latency_p90_s: Annotated[Real, C("90th percentile; null below 29 samples", "s", "latency")] = None
    latency_p95_s: Annotated[Real, C("95th percentile; null below 59 samples", "s", "latency")] = None
    latency_p99_s: Annotated[Real, C("99th percentile; null below 299 samples", "s", "latency")] = None
    issue_time_median_s: Annotated[
        Real, C("what the host takes to issue the step, before it waits for it; null on the CPU", "s", "latency")
    ] = None
    device_time_median_s: Annotated[
        Real, C("the step on the device, without the gaps in which it waits for the host", "s", "latency")
    ] = None
    host_bound: Annotated[
        bool | None, C("issuing the step takes over 10 % longer than the device needs for it", metric="latency")
    ] = None
    samples: Annotated[Whole, C("latency samples", metric="latency")] = None
    steps_per_sample: Annotated[Whole, C("steps timed together, above 1 for very short steps", metric="latency")] = None

    # Throughput: pipelined, no synchronisation inside
    throughput_img_s: Annotated[Real, C("images per second, median over bursts", "img/s", "throughput")] = None
    throughput_ci_low_img_s: Annotated[Real, C("95 % interval, low end", "img/s", "throughput")] = None
    throughput_ci_high_img_s: Annotated[Real, C("95 % interval, high end", "img/s", "throughput")] = None

    # How the measuring went
    canary_s: Annotated[
        Real, C("time of the fixed canary kernel beside a median step, by the stretches' ratios", "s", "latency")
    ] = None
    throughput_canary_s: Annotated[Real, C("the same beside a median burst of steps", "s", "throughput")] = None
    warmup_steps: Annotated[Whole, C("steps before the first timed one")] = None
    first_call_s: Annotated[Real, C("the very first step, kept out of every other figure", "s")] = None
    contention: Annotated[Real, C("share of CPU time that others took while timing; CPU only")] = None

    # torch.compile
    compile_cold_s: Annotated[
        Real,
        C("first step with an empty compile cache; with CUDA graphs the first two: the second records", "s", "compile"),
    ] = None
    artifact_bytes: Annotated[
        Whole, C("what the runtime keeps of the network on disk, weights included", "B", "compile")
    ] = None
    quantized_share: Annotated[
        Real,
        C("share of the convolutions and linear layers that run quantised, counted in what runs", metric="compile"),
    ] = None
    compile_warm_s: Annotated[Real, C("the same in a fresh process that finds the cache filled", "s", "compile")] = None
    compile_neighbours: Annotated[
        Whole, C("compilations beside this one, in processes that slept while this cell was timed")
    ] = None
    graph_breaks: Annotated[Whole, C("graph breaks in the compiled step")] = None
    recompiles: Annotated[Whole, C("recompilations after the first")] = None
    cuda_graph_launches: Annotated[
        Whole, C("CUDA graph launches seen in one step, in a process where nothing is timed", metric="compile")
    ] = None

    # Memory, in a pass of its own
    peak_allocated_bytes: Annotated[
        Whole, C("peak of live tensor bytes in one step, weights included", "B", "memory")
    ] = None
    peak_reserved_bytes: Annotated[Whole, C("peak held by the caching allocator; null on the CPU", "B", "memory")] = (
        None
    )
    process_bytes: Annotated[
        Whole,
        C(
            "on the CPU peak resident memory less what was held before, under a runtime or quantiser in a process that "
            "holds nothing else of the network; on a GPU all that the driver counts",
            "B",
            "memory",
        ),
    ] = None
    predicted_peak_bytes: Annotated[Whole, C("peak_allocated_bytes predicted without running", "B", "memory")] = None
    predicted_peak_lines: Annotated[
        Text,
        C(
            "predicted_peak_bytes at any batch size n: the largest of these lines, `base+slope n` each, in bytes",
            metric="memory",
        ),
    ] = None

    # Energy and clocks
    energy_j_per_img: Annotated[Real, C("energy per image", "J", "energy")] = None
    mean_power_w: Annotated[Real, C("mean power of the device while timing", "W")] = None
    sm_clock_mhz: Annotated[Real, C("median SM clock at block edges", "MHz")] = None
    throttled_fraction: Annotated[Real, C("share of blocks under a thermal or power-brake throttle")] = None
    power_capped_fraction: Annotated[Real, C("share of blocks under a software power cap")] = None

    # Numerics of what was timed, on seeded images, weights random unless the network brings some
    output_rel_error: Annotated[Real, C("relative L2 error of the output against fp32 eager", metric="numerics")] = None
    output_fp64_error: Annotated[Real, C("the same against fp64, on the first batch of them", metric="numerics")] = None
    output_cosine: Annotated[Real, C("cosine between the output and fp32 eager's", metric="numerics")] = None
    output_top1_agreement: Annotated[
        Real,
        C("share of the images whose top class is fp32 eager's; less their mean, unless trained", metric="numerics"),
    ] = None
    judged_images: Annotated[Whole, C("seeded images that outputs were judged by", metric="numerics")] = None
    output_finite: Annotated[bool | None, C("every output element is finite", metric="numerics")] = None
    compile_error_ratio: Annotated[
        Real, C("error against fp64, compiled over eager at the same precision", metric="numerics")
    ] = None

    # Accuracy of what was timed, on labelled images
    top1_measured: Annotated[Real, C("top-1 accuracy of the artifact that was timed", "%", "accuracy")] = None
    top1_measured_low: Annotated[Real, C("95 % interval of top1_measured (Wilson), low end", "%", "accuracy")] = None
    top1_measured_high: Annotated[Real, C("95 % interval of top1_measured, high end", "%", "accuracy")] = None
    top1_drop: Annotated[
        Real, C("top-1 of fp32 eager on the same images, less top1_measured", "points", "accuracy")
    ] = None
    accuracy_images: Annotated[Whole, C("labelled images behind top1_measured", metric="accuracy")] = None

    # Efficiency
    achieved_flops: Annotated[
        Real,
        C("FLOP/s while timing throughput; a training step counts as three forward passes", "FLOP/s", "throughput"),
    ] = None
    mfu: Annotated[Real, C("achieved_flops over the vendor's peak, where it is known", metric="throughput")] = None
    measured_peak_share: Annotated[
        Real,
        C(
            "achieved_flops over the best product or convolution here; above 1: ceiling under-measured",
            metric="throughput",
        ),
    ] = None

    # Published accuracy, never measured here
    top1: Annotated[Real, C("top-1 accuracy, published or stated by the suite", "%")] = None
    top5: Annotated[Real, C("top-5 accuracy, likewise", "%")] = None
    accuracy_source: Annotated[Text, C("whose weights and protocol top1 and top5 belong to, or who states them")] = None
    accuracy_dataset: Annotated[Text, C("data set that top1 and top5 are of: ImageNet, CIFAR-10, ...")] = None

    # State as read back from the process that measured
    applied: Annotated[
        Text, C("flags as read back at the timed step, JSON: TF32, cuDNN, threads, grad mode, formats")
    ] = None

    # Failure
    error_phase: Annotated[Text, C("build, warmup, latency, ...: where it failed")] = None
    error_message: Annotated[Text, C("what went wrong, one line")] = None

    # Where and when
    torch_version: Annotated[Text, C("torch")] = None
    torchvision_version: Annotated[Text, C("torchvision")] = None
    timm_version: Annotated[Text, C("timm")] = None
    cuda_version: Annotated[Text, C("CUDA that torch was built with")] = None
    driver_version: Annotated[Text, C("NVIDIA driver")] = None
    started_at: Annotated[Text, C("UTC, ISO 8601")] = None
    duration_s: Annotated[Real, C("wall time spent on this cell", "s")] = None

    @property
    def failure(self) -> str:
        """How a cell ended that is not `ok`: `oom in build: out of memory`."""
        where = f" in {self.error_phase}" if self.error_phase else ""
        return f"{self.status}{where}: {self.error_message or 'no message'}"


Experiment = Literal["latency", "throughput", "device_time", "canary"]


class Sample(Struct, frozen=True, kw_only=True):
    """One raw timing, kept so that every statistic can be computed again."""

    cell_id: str
    round: int
    visit: int = 0
    experiment: Experiment
    block: int
    steps: int
    """Steps in this sample; the times are for all of them together."""
    host_s: float
    device_s: float | None = None
    issue_s: float | None = None
    kept: bool = True
    """False for a block that the probe rejected, and for a device time whose backlog did not hold."""


class RunContext(Struct, frozen=True, kw_only=True):
    """What every row of a run has in common."""

    run_id: str
    round: int
    visit: int = 0
    environment: Environment
    calibration: Calibration | None = None
    """The device's measured ceilings, once they are known."""


class Facts(Struct, frozen=True, kw_only=True):
    """What the catalogue knows of a network without building it; `None` where it does not."""

    family: str | None = None
    source: str | None = None
    input_size: int | None = None
    top1: float | None = None
    top5: float | None = None
    accuracy_source: str | None = None
    accuracy_dataset: str | None = None


def empty_record(cell: Cell, context: RunContext, facts: Facts) -> Record:
    """The row of a cell of which nothing has been measured yet: identity, circumstances, published accuracy."""
    environment, network = context.environment, cell.network
    size = network.input_size or (None if network.inputs else facts.input_size)
    # As far as it is known without the network: null also for an image whose channels are not said.
    oblong = f"{network.in_channels or 3}x{size}" if isinstance(network.input_size, str) else None
    return Record(
        protocol_version=PROTOCOL_VERSION,
        run_id=context.run_id,
        cell_id=cell.cell_id,
        group_id=cell.group_id,
        round=context.round,
        visit=context.visit,
        status="skipped",
        architecture=network.name,
        variant=network.label,
        setting=cell.setting,
        inputs=oblong or text_of(network.inputs) or None,
        batch_size=cell.batch_size,
        phase=cell.phase,
        **structs.asdict(cell.toggles),
        threads=cell.threads,
        **network.roles,  # type: ignore[arg-type]
        device=cell.device,
        hardware_class=environment.hardware_class,
        machine=environment.machine,
        **{**structs.asdict(facts), "input_size": size if isinstance(size, int) else None},
        torch_version=environment.torch_version,
        torchvision_version=environment.torchvision_version,
        timm_version=environment.timm_version,
        cuda_version=environment.cuda_version,
        driver_version=environment.driver_version,
    )


def failed_record(
    cell: Cell,
    context: RunContext,
    facts: Facts,
    status: Status,
    message: str,
    *,
    phase: str | None = None,
    began: datetime | None = None,
) -> Record:
    """The row of a cell that could not be measured, `phase` being where it ended. `began`: null for one not tried."""
    return structs.replace(
        empty_record(cell, context, facts),
        status=status,
        error_phase=phase,
        error_message=message,
        started_at=began.isoformat(timespec="milliseconds") if began else None,
        duration_s=(datetime.now(UTC) - began).total_seconds() if began else None,
    )


class Column(Struct, frozen=True, kw_only=True):
    """What the documentation, `pick` and the readers need to know of one column."""

    name: str
    kind: Literal["text", "real", "whole", "flag", "texts"]
    unit: str | None
    description: str
    metric: Metric | None = None
    """What fills it; `None`: every row has it."""


@cache
def columns() -> dict[str, Column]:
    """The columns of `Record` in order, by name."""
    kinds: dict[type[Any], Any] = {
        inspect.StrType: "text",
        inspect.LiteralType: "text",
        inspect.FloatType: "real",
        inspect.IntType: "whole",
        inspect.BoolType: "flag",
        inspect.VarTupleType: "texts",
    }

    def describe(field: inspect.Field) -> Column:
        told: Any = field.type
        inner = told.type
        options = inner.types if isinstance(inner, inspect.UnionType) else (inner,)
        kind = next(kinds[type(one)] for one in options if not isinstance(one, inspect.NoneType))
        return Column(name=field.name, kind=kind, description=told.extra_json_schema["description"], **told.extra)

    info = inspect.type_info(Record)
    assert isinstance(info, inspect.StructType)
    return {field.name: describe(field) for field in info.fields}


def columns_of(metric: Metric) -> tuple[str, ...]:
    """The columns that a metric fills: null, and explained, in the rows of a suite that does not ask for it."""
    return tuple(column.name for column in columns().values() if column.metric == metric)
