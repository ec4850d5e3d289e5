"""A suite as its author wrote it, after every check: which networks, along which axes, judged how."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct, field

from archbench.model.axes import (
    CompileMode,
    DeviceKind,
    Head,
    Loss,
    MemoryFormat,
    Metric,
    Optimizer,
    Phase,
    Precision,
    Quantize,
    Runtime,
    Toggled,
    Train,
)
from archbench.model.cell import Network, PositiveInt, Size, Threads

Name = Annotated[str, Meta(min_length=1, max_length=120)]
Pattern = Annotated[str, Meta(min_length=1)]
SuiteName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=80)]
MAX_ROUNDS = 100
Rounds = Annotated[int, Meta(ge=1, le=MAX_ROUNDS)]
Percentile = Literal[90, 95, 99]
PERCENTILES: tuple[Percentile, ...] = get_args(Percentile)
"""Those that rows have a column for: `latency_p90_s` and so on."""


class Filter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A condition on cells: every given field must match, a field matches any of its values.

    `architecture` takes shell patterns (`resnet*`). An empty filter matches everything. The order of the fields is in
    `suite_hash`, which is why they do not come from `Axes`: stored runs would no longer be found.
    """

    architecture: tuple[Pattern, ...] = ()
    family: tuple[Name, ...] = ()
    setting: tuple[Name, ...] = ()
    batch_size: tuple[PositiveInt, ...] = ()
    input_size: tuple[Size, ...] = ()
    phase: tuple[Phase, ...] = ()
    precision: tuple[Precision, ...] = ()
    compile_mode: tuple[CompileMode, ...] = ()
    memory_format: tuple[MemoryFormat, ...] = ()
    runtime: tuple[Runtime, ...] = ()
    quantize: tuple[Quantize, ...] = ()
    threads: tuple[Threads, ...] = ()
    head: tuple[Head, ...] = ()
    deploy: tuple[bool, ...] = ()
    train: tuple[Train, ...] = ()
    optimizer: tuple[Optimizer, ...] = ()
    checkpointing: tuple[bool, ...] = ()
    loss: tuple[Loss, ...] = ()
    device: tuple[DeviceKind, ...] = ()


class Axes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Values to cross with each other; `None` means the axis was not given."""

    batch_size: tuple[PositiveInt, ...] | None = None
    input_size: tuple[Size, ...] | None = None
    phase: tuple[Phase, ...] | None = None
    precision: tuple[Precision, ...] | None = None
    compile_mode: tuple[CompileMode, ...] | None = None
    memory_format: tuple[MemoryFormat, ...] | None = None
    runtime: tuple[Runtime, ...] | None = None
    quantize: tuple[Quantize, ...] | None = None
    threads: tuple[Threads, ...] | None = None
    head: tuple[Head, ...] | None = None
    deploy: tuple[bool, ...] | None = None
    train: tuple[Train, ...] | None = None
    optimizer: tuple[Optimizer, ...] | None = None
    checkpointing: tuple[bool, ...] | None = None
    loss: tuple[Loss, ...] | None = None


AXES = Axes.__struct_fields__
"""Their names."""


class Setting(Toggled, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named bundle of toggles; `only` restricts it to the cells that match."""

    only: Filter = Filter()


class Section(Axes, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One product of axes for one device; what it leaves out comes from the suite's own `axes` and `settings`.

    A device may have several sections: its cells are their union.
    """

    architectures: tuple[Pattern, ...] | None = None
    family: tuple[Name, ...] | None = None
    settings: tuple[Name, ...] | None = None


Bound = float | str
"""A number in the column's stored unit, or text with a unit: `5 ms`, `4 GiB`."""
Factor = Annotated[float, Meta(gt=0.0, le=1000.0)]


class Decision(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One row of the decision matrix: a situation, how to judge it, and the usual advice to hold against it.

    `suite.schema.DESCRIPTIONS` says what each field means. Columns may leave their unit's ending out; `where` is in
    the language of `archbench.query.parsing`.
    """

    situation: Name
    where: tuple[str, ...] = ()
    minimize: str | None = None
    maximize: str | None = None
    at_least: dict[str, Bound] = {}
    at_most: dict[str, Bound] = {}
    baseline: Name | None = None
    at_most_of_baseline: dict[str, Factor] = {}
    across: tuple[str, ...] = ()
    show: tuple[str, ...] = ()
    every_setting: bool = False
    usual_choice: tuple[Name, ...] = field(default=(), name="folklore")
    not_measurable: str = ""
    note: str = ""


class Suite(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A checked suite. `architectures` are resolved: families are expanded and every name is known."""

    suite: SuiteName
    description: str = ""
    architectures: tuple[Network, ...]
    axes: Axes = Axes()
    settings: dict[Name, Setting] = {}
    devices: dict[DeviceKind, tuple[Section, ...]] = {}
    exclude: tuple[Filter, ...] = ()
    metrics: tuple[Metric, ...] = ("static", "latency", "throughput", "memory")
    rounds: Rounds | None = None
    """`None`: as many short ones as the device repays (`Kind.short_rounds`), the later ones for times alone."""
    percentiles: tuple[Percentile, ...] = (90,)
    seed: int = 0
    twin: Name | None = None
    images: str | None = None
    """A folder of labelled ones, for the metric `accuracy`; where it lies changes nothing that is measured."""
    protocol: dict[str, float] = {}
    """Overrides of `archbench.model.protocol.Protocol`, by name."""
    decisions: tuple[Decision, ...] = ()
