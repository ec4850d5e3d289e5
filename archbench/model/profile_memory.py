"""What a profile says of the memory of one step, and of gradients at initialisation; bytes are of that step.

Free of torch, as `archbench.model.profile`, which holds both.
"""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

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
        """The point with the most bytes."""
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


class AcrossSeeds(Struct, frozen=True, kw_only=True):
    """A figure over several seeds."""

    median: float
    low: float
    """The smallest over the seeds."""
    high: float
    """The largest over the seeds."""


class LayerGradient(Struct, frozen=True, kw_only=True):
    """One weight layer: a weight of two or more axes. A figure is `None` where a seed gave none, or none finite."""

    path: str
    """Of its module; where a module has several weights, with the weight's name."""
    kind: str
    """The module's class."""
    position: int
    """Among the weight layers in the order in which the forward pass first called them, from 0."""
    weights: int
    """Elements of its weight."""
    gradient_norm: AcrossSeeds | None
    """Euclidean norm of the loss's gradient with respect to the weight."""
    weight_norm: AcrossSeeds | None
    """Euclidean norm of the weight itself."""
    signal_rms: AcrossSeeds | None
    """Root mean square of the loss's gradient with respect to the layer's output: how much of the error gets here."""


class StageActivation(Struct, frozen=True, kw_only=True):
    """What comes out of one stage."""

    stage: str
    mean: AcrossSeeds | None
    std: AcrossSeeds | None
    zero_share: AcrossSeeds | None
    """Of its elements, exactly 0: what a ReLU has cut off."""


class GradientHealth(Struct, frozen=True, kw_only=True):
    """One backward pass in fp32 from freshly drawn weights, on random input and labels, for each of several seeds."""

    seeds: int
    batch_size: int
    layers: tuple[LayerGradient, ...]
    """From input to output."""
    first_to_last: AcrossSeeds | None
    """`gradient_norm` of the first layer over the last's, seed by seed; `None` where one is 0 or not finite."""
    signal_first_to_last: AcrossSeeds | None
    """The same of `signal_rms`."""
    stages: tuple[StageActivation, ...]
    without_gradient: tuple[str, ...]
    """Paths of layers whose weight got no gradient, or exactly 0, under every seed."""
