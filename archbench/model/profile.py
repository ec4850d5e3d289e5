"""A profile: where one step of one cell spends its time and its memory. Free of torch, so that any process reads it.

Times are seconds of one step of the whole batch, bytes and FLOP are of that step too; `macs` alone is per image and of
the forward pass, as everywhere. A part that could not be had is `None`, and `Profile.missing` says why.
"""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from archbench.model.axes import DeviceKind
from archbench.model.cell import Cell
from archbench.model.counts import GradientHealth
from archbench.model.environment import Environment
from archbench.model.record import Verdict

PROFILE_VERSION = 1
"""Of the stored form: raised when a field changes its meaning or goes away."""

Bound = Literal["memory", "compute"]
"""Which ceiling of the roofline is the lower one: the copy's bandwidth, or the product's FLOP/s."""


class ModuleProfile(Struct, frozen=True, kw_only=True):
    """One module in its place in the network, with all that runs inside it.

    A module that is called from two places has a row in each. A container that is never called itself (`ModuleList`)
    has a row with the sum of what it holds. Fields that begin with `own_` leave out what the modules inside do:
    over all rows they add up to the whole network.
    """

    path: str
    """As in `named_modules`; empty for the network itself."""
    kind: str
    """The module's class."""
    depth: int
    """0 for the network, 1 for its children."""
    stage: str | None
    """The stage of the network (`Counts.stages`) that it belongs to; `None` above and outside the stages."""
    output_shape: tuple[int, ...] | None
    """Of the first tensor that its last call returned, without the batch axis."""
    calls: int
    """Forward calls in one step; 0 for a container that is never called."""
    forward_s: float
    backward_s: float | None
    """`None` at inference."""
    own_s: float
    """Forward and backward, outside the modules inside."""
    device_s: float | None = None
    """Time of the kernels that its operators launched, forward and backward: `forward_s` and `backward_s` are stamps of
    the device's clock, and so contain the gaps in which it waits for the host. `None` on the CPU, where operators are
    the host's own work, where the profiler saw no kernel, and in a run, where no profiler is asked."""
    own_device_s: float | None = None
    share: float
    """Of the step: (forward + backward) / step."""
    params: int
    """Trainable parameters inside, each once."""
    macs: int | None
    """Multiply-accumulates of one forward pass, per image; `None` for a network that cannot be counted."""
    own_macs: int | None
    flops: int | None
    """FLOP of the step, of the whole batch, backward included; `None` at inference where `macs` is."""
    activation_bytes: int
    """Written by its operators into new memory during the forward pass."""
    saved_bytes: int | None
    """Kept for the backward pass, each block of memory once, by the module that keeps it first; weights left out."""
    own_saved_bytes: int | None
    bytes_moved: int
    """Read and written by its operators in the step, as if no cache held anything between two operators."""
    own_bytes: int
    intensity: float | None
    """Arithmetic intensity: FLOP per byte moved. `None` where nothing is moved, or FLOP are not known."""
    achieved_flops: float | None
    """FLOP per second; `None` where it took no time that could be measured."""
    least_s: float | None
    """The sum over the modules inside of the larger of FLOP / peak and bytes / bandwidth: what the roofline allows."""
    roofline_share: float | None
    """`least_s` over the time it took. Above 1 where caches hold what counts as moved."""
    bound: Bound | None
    """The ceiling that most of `least_s` comes from."""

    @property
    def total_s(self) -> float:
        return self.forward_s + (self.backward_s or 0.0)


class StepPart(Struct, frozen=True, kw_only=True):
    """A part of the step that belongs to no module: `loss`, `optimizer`, `other`."""

    name: str
    forward_s: float
    backward_s: float | None
    share: float
    flops: int
    bytes_moved: int

    @property
    def total_s(self) -> float:
        return self.forward_s + (self.backward_s or 0.0)


class OperatorProfile(Struct, frozen=True, kw_only=True):
    """One operator, or one kernel on a device, at one set of shapes, over one step."""

    name: str
    shapes: tuple[str, ...]
    """Its tensor operands, as `8x64x56x56`; empty for kernels, whose launches do not tell."""
    calls: float
    """A step."""
    self_s: float
    """A step, without what it calls in turn. On a GPU of an operator: the time of the kernels it launched itself."""
    share: float
    """Of all operators, or of all kernels."""
    tensor_core: bool | None
    """By the kernel's name; `None` on the CPU and for operators."""
    bound: Bound | None
    """From its FLOP and bytes at these shapes; `None` where it is not known what it reads."""
    modules: tuple[str, ...] = ()
    """Paths of the modules it computes for, where that is known."""


class RooflinePoint(Struct, frozen=True, kw_only=True):
    """A stage, or the whole network, under the roofline."""

    name: str
    """The stage's name; `all` for the whole network."""
    intensity: float
    """FLOP per byte."""
    achieved_flops: float
    share: float
    """Of the ceiling at its intensity."""
    time_share: float
    """Of the step."""


class Roofline(Struct, frozen=True, kw_only=True):
    """The device's measured ceilings, and where the network lies under them."""

    peak_flops: float
    """FLOP/s at the cell's arithmetic: of a large matrix product or a convolution, whichever did more."""
    bandwidth: float
    """Bytes per second of a large copy, read and written."""
    points: tuple[RooflinePoint, ...]
    device_busy_s: float | None
    """Of one step, while some kernel ran; `None` on the CPU, where operators are the host's own work, and where the
    profiler saw no kernel."""
    launch_gap_s: float | None
    """Of one undisturbed step, while the device waited for the host; `None` where `device_busy_s` is."""
    host_s: float | None
    """On the CPU: of one step, outside every operator (Python, hooks, dispatch); `None` where it was not measured."""
    cache_bytes: int | None = None
    """Of the device's last-level cache; `None` where the system does not tell."""

    @property
    def ridge(self) -> float:
        """FLOP per byte from which a product is the limit, and no longer the memory."""
        return self.peak_flops / self.bandwidth


class KernelMap(Struct, frozen=True, kw_only=True):
    """What a compiled step runs: kernels, and the modules that the compiler made them from."""

    kernels: tuple[OperatorProfile, ...]
    """The longest first; `modules` is empty where the compiler does not say."""
    mapped_share: float | None
    """Of the kernels' time, in kernels whose modules are known; `None` where the profiler saw no kernel."""
    step_s: float
    """Of the compiled step, unobserved."""
    eager_step_s: float
    """Of the same step in eager, to which the table of modules belongs."""
    compile_s: float


MemoryCategory = Literal[
    "weights", "optimizer", "gradients", "inputs", "activations", "temporaries", "workspace", "unattributed"
]
CATEGORIES: tuple[MemoryCategory, ...] = get_args(MemoryCategory)
"""From what stays longest to what goes first: the order of a stacked chart."""
StepSection = Literal["forward", "backward", "update", "compiled"]
"""`forward` includes the loss; `compiled` is a whole compiled step, which does not show its sections."""


class MemoryPoint(Struct, frozen=True, kw_only=True):
    """Live bytes while one operator ran, at the most that the allocator held meanwhile.

    Categories are disjoint and add up to `total`, which is the allocator's own figure.
    """

    section: StepSection
    module: str
    """Path of the innermost module that called the operator, or whose backward pass it is; empty outside any."""
    operator: str
    weights: int
    """Parameters and buffers."""
    optimizer: int
    """What the optimizer keeps from step to step."""
    gradients: int
    """Gradients of parameters."""
    inputs: int
    """Images and labels that lie ready."""
    activations: int
    """Results of the forward pass that are kept for the backward pass."""
    temporaries: int
    """All other tensors: feature maps that nothing needs later, gradients of activations."""
    workspace: int
    """Held inside the operator, beside its operands and results."""
    unattributed: int = 0
    """Of a compiled step, whatever is neither weight, optimizer state nor input: its code does not say what for."""

    @property
    def total(self) -> int:
        """Live bytes."""
        return sum(self.by_category)

    @property
    def by_category(self) -> tuple[int, ...]:
        """In the order of `CATEGORIES`."""
        return tuple(getattr(self, category) for category in CATEGORIES)


class MemoryHolder(Struct, frozen=True, kw_only=True):
    """One allocation that is alive at the peak."""

    category: MemoryCategory
    path: str
    """The module whose operator made it, or the parameter that it is or belongs to; empty for neither."""
    stage: str
    """The stage of the network that `path` belongs to; empty where to none."""
    operator: str
    """What made it; empty for what stood before the step."""
    shape: tuple[int, ...]
    dtype: str
    bytes: int


class SavedBytes(Struct, frozen=True, kw_only=True):
    """Activations kept for the backward pass that one kind of operator made and the same others need."""

    made_by: str
    needed_by: tuple[str, ...]
    tensors: int
    bytes: int


class StageMemory(Struct, frozen=True, kw_only=True):
    """What belongs to one stage: what it keeps for the backward pass, and all of it that is alive at the peak."""

    stage: str
    """Empty for what belongs to none: inputs, loss."""
    saved_bytes: int
    peak_bytes: int
    """Its weights, their gradients and momentum included."""


class MemoryTimeline(Struct, frozen=True, kw_only=True):
    """The memory of one step."""

    points: tuple[MemoryPoint, ...]
    """In order, one for each operator that changed anything; of many, the largest of each stretch stands for it."""
    operators: int
    """How many operators ran."""
    measured_peak_bytes: int
    """The allocator's peak over a step that nobody watched: what `peak.total` must agree with."""
    predicted_peak_bytes: int | None
    """The peak predicted without running; `None` where none is made (a compiled step, one that looks at values)."""
    holders: tuple[MemoryHolder, ...]
    """The largest allocations alive at the peak, largest first."""
    saved_bytes: int
    """All activations kept for the backward pass, each storage once; 0 at inference."""
    saved_by_operator: tuple[SavedBytes, ...]
    """`saved_bytes` by what made the tensor and what needs it, largest first; they add up to it."""
    stages: tuple[StageMemory, ...]
    """In the network's order; the saved bytes add up to `saved_bytes`."""
    snapshot: str | None = None
    """Where CUDA's memory snapshot was written."""
    note: str = ""
    """What the reader must know of how this was measured; empty where there is nothing."""

    @property
    def peak(self) -> MemoryPoint:
        return max(self.points, key=lambda point: point.total)

    @property
    def saved_by_maker(self) -> list[SavedBytes]:
        """`saved_by_operator` by what made the tensor alone, largest first."""
        found: dict[str, SavedBytes] = {}
        for one in self.saved_by_operator:
            before = found.get(one.made_by, SavedBytes(made_by=one.made_by, needed_by=(), tensors=0, bytes=0))
            found[one.made_by] = SavedBytes(
                made_by=one.made_by,
                needed_by=tuple(dict.fromkeys((*before.needed_by, *one.needed_by))),
                tensors=before.tensors + one.tensors,
                bytes=before.bytes + one.bytes,
            )
        return sorted(found.values(), key=lambda one: -one.bytes)


class Explanation(Struct, frozen=True):
    """One thing that explains the time or the memory, with its figures, and what would help."""

    code: str
    text: str
    remedy: str | None = None


class Profile(Struct, frozen=True, kw_only=True):
    """Everything about one cell's step."""

    profile_version: int = PROFILE_VERSION
    network: str
    """Its label."""
    cell: Cell
    device: DeviceKind
    environment: Environment | None
    """`None` within a run, whose rows share one."""
    threads: int
    params: int
    macs: int | None
    """Of one forward pass, per image; equal to what `archbench show` prints."""
    step_s: float
    """Of an unobserved step in eager."""
    observed_step_s: float
    """Of the observed one, to which the modules' times add up."""
    observing_cost: float
    """Observed over unobserved step, less 1; both took turns."""
    steps: int
    """Observed steps that the times are means of."""
    modules: tuple[ModuleProfile, ...]
    """The network first, each module before those inside it, in the order in which they were first called."""
    parts: tuple[StepPart, ...]
    stages: tuple[str, ...]
    """Paths of the rows that are the network's stages, in order."""
    operators: tuple[OperatorProfile, ...]
    """The longest first."""
    kernels: tuple[OperatorProfile, ...] = ()
    """On a device, the longest first; empty on the CPU."""
    roofline: Roofline | None = None
    compiled: KernelMap | None = None
    memory: MemoryTimeline | None = None
    gradients: GradientHealth | None = None
    missing: dict[str, str] = {}
    """By the name of a field above that is `None` or empty: why."""
    findings: tuple[Explanation, ...] = ()
    verdict: Verdict = "ok"
    """Of the machine while the steps were timed: whether the times are fit to be used."""
    reasons: tuple[str, ...] = ()
    """Codes behind the verdict (`archbench.model.reasons`), as of a row."""

    @property
    def cell_step_s(self) -> float | None:
        """Of an unobserved step as the cell asks for it; `None` where that is compiled and could not be."""
        if self.cell.compile_mode == "off":
            return self.step_s
        return None if self.compiled is None else self.compiled.step_s

    @property
    def stage_rows(self) -> list[ModuleProfile]:
        """The rows of `modules` that are the network's stages."""
        return [row for row in self.modules if row.path in self.stages]

    @property
    def attributed_s(self) -> float:
        """What modules and parts add up to."""
        return (self.modules[0].total_s if self.modules else 0.0) + sum(part.total_s for part in self.parts)


class StageProfile(Struct, frozen=True, kw_only=True):
    """Where the step of one cell of a run spends its time, by stage: what the metric `profile` stores."""

    profile_version: int = PROFILE_VERSION
    cell_id: str
    round: int
    visit: int = 0
    step_s: float
    """Of an unobserved step."""
    observed_step_s: float
    observing_cost: float
    steps: int
    whole: ModuleProfile
    stages: tuple[ModuleProfile, ...]
    """In the network's order; empty for a network without stages, or one that cannot be counted."""
    parts: tuple[StepPart, ...]
