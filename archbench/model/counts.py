"""What archbench knows of a network without timing it. Free of torch, so that any process can read these types."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct


class Stage(Struct, frozen=True, kw_only=True):
    """One step of the network as its author divided it: a top-level child, or a child of a multi-resolution trunk."""

    name: str
    kind: str
    """The module's class."""
    output_shape: tuple[int, ...] | None
    """Without the batch axis; `None` where the module returns no tensor."""
    params: int
    """Trainable parameters inside."""
    macs: int
    """Multiply-accumulates of one forward pass, per image."""


class OperatorCalls(Struct, frozen=True, kw_only=True):
    """An operator and how often one forward pass calls it."""

    operator: str
    calls: int


class Level(Struct, frozen=True, kw_only=True):
    """One map of a pyramid."""

    stride: int
    """Pixels of the image from one position to the next."""
    channels: int


class Counts(Struct, frozen=True, kw_only=True):
    """Everything that is counted from one forward pass in evaluation mode. All per image.

    A MAC is one multiply and one add; a FLOP is either, so `flops` is 2 x `macs`. Only convolutions, linear layers and
    matrix products (attention included) have MACs here, as in most papers and in torchvision's published figures;
    the arithmetic left out is listed in `uncounted`.
    """

    input_shape: tuple[int, ...]
    """Channels, height, width of the image that was counted; of a vector its width; of several inputs the first's."""
    inputs: str | None = None
    """All that was counted for, as text, where it is not one square image."""
    params: int
    """Trainable parameters, shared ones once, whether or not the forward pass uses them; all, where all are frozen."""
    idle_params: int
    """Those of `params` that the evaluation forward pass never touches: auxiliary heads, mostly."""
    buffers: int
    """Elements in buffers (batch statistics, position tables)."""
    frozen_params: int = 0
    """Parameters that ask for no gradient."""
    hidden_params: int = 0
    """Beside `params`: of layers that the forward pass uses and no module holds, as in a plain list."""
    macs: int
    activations: int
    """Elements in the outputs of convolutions, linear layers and explicit matrix products (fvcore's definition).

    A fused attention operator adds nothing: it writes no score matrix. timm's tables unfuse attention first, and so
    give larger figures for transformers.
    """
    weight_bytes: int
    """Parameters and buffers as the module stores them (fp32, where the author chose nothing else)."""
    depth: int
    """Weight layers (convolutions, linear layers, products with a learned matrix) on the longest path to an output.

    Gates count too where they lie on the path: a squeeze-and-excitation block adds its two layers.
    """
    uncounted: tuple[OperatorCalls, ...]
    """Operators that did arithmetic but have no MAC formula, the most called first."""
    stages: tuple[Stage, ...]
    pyramid: tuple[Level, ...] = ()
    """The maps that it gives, where it gives several (`head: features`)."""
    folds: bool = False
    """It is in a form for training that folds into a smaller one for inference (`deploy: true`)."""

    @property
    def unknown_products(self) -> tuple[OperatorCalls, ...]:
        """Those of `uncounted` that may hold products, which makes `macs` a lower bound.

        Reductions, norms, activations, pooling and interpolation hold none, by the convention above.
        """
        return tuple(one for one in self.uncounted if may_hold_products(one.operator))

    @property
    def flops(self) -> int:
        """Floating point operations of one forward pass, per image: 2 x `macs`."""
        return 2 * self.macs

    @property
    def activation_bytes(self) -> int:
        """`activations` in fp32."""
        return 4 * self.activations


def may_hold_products(operator: str) -> bool:
    """Of torch's own operators, those that its counter or ours would have a formula for, if they were simple.

    Whatever a library or the user has added may do anything.
    """
    library, _, name = operator.partition(".")
    if operator in _WITHOUT_PRODUCTS:
        return False
    return library != "aten" or (name.lstrip("_").startswith(_PRODUCTS) and name != "linalg_vector_norm")


_PRODUCTS = (
    *("fft", "stft", "istft", "linalg", "cholesky", "svd", "qr", "lu_", "inverse", "matrix_exp", "triangular_solve"),
    *("sparse", "convolution", "conv", "mm", "bmm", "addmm", "baddbmm", "addbmm", "matmul", "mv", "dot", "inner"),
    *("linear", "bilinear", "trilinear", "cdist", "pdist", "kron", "tensordot", "einsum", "lstm", "gru", "rnn"),
    *("int_mm", "scaled_mm", "grouped_mm", "weight_int", "thnn_fused", "mkldnn", "flash_attention", "efficient"),
    *("scaled_dot_product", "chain_matmul", "multi_dot", "quantized"),
)
_WITHOUT_PRODUCTS = frozenset(
    {f"torchvision.{name}" for name in ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")}
    | {f"torchao.{name}_affine" for name in ("choose_qparams", "quantize", "dequantize")}
)
"""Of libraries' operators: comparisons, interpolation, and the rounding of a quantiser."""


class SecondOpinion(Struct, frozen=True, kw_only=True):
    """What fvcore counts, tracing the same network on the CPU. It calls a MAC a flop; here it is a MAC. Per image."""

    macs: int
    """Convolutions, linear layers, matrix products and attention: to be held against `Counts.macs`."""
    total: int
    """fvcore's own total, with its estimates for normalisation, pooling and resampling."""
    activations: int
    """To be held against `Counts.activations`."""
    disagreement: float
    """`macs` over the first counter's, less 1."""
    uncounted: tuple[OperatorCalls, ...]
    """Operators that fvcore met and has no rule for, the most called first."""


class MemoryLine(Struct, frozen=True, kw_only=True):
    """Live bytes at one moment of a step: they grow linearly with the batch."""

    base_bytes: int
    bytes_per_image: int


class MemoryModel(Struct, frozen=True, kw_only=True):
    """Predicted peak of live tensor bytes of one step, for any batch size.

    Weights, buffers, one batch of input and whatever the step allocates; in training also gradients, momentum and
    labels, and on a CPU what convolutions copy. Not included: scratch of other kernels (a few percent where products
    are small and many, as in attention at batch 1 or 2), the driver's context, workspaces of CUDA libraries, the
    caching allocator's reserve.
    """

    lines: tuple[MemoryLine, ...]
    """The moments that can be the step's peak at some batch size: the peak is the largest of them."""
    weight_bytes: int
    """Parameters and buffers in the precision in which they are stored."""
    input_bytes_per_image: int
    """One image, and in training its label."""

    def peak_lines(self, batches_held: int = 1) -> tuple[MemoryLine, ...]:
        """`lines` while `batches_held` batches of input lie ready."""
        more = self.input_bytes_per_image * (batches_held - 1)
        return tuple(
            MemoryLine(base_bytes=one.base_bytes, bytes_per_image=one.bytes_per_image + more) for one in self.lines
        )

    def peak_bytes(self, batch_size: int, *, batches_held: int = 1) -> int:
        """Peak bytes of one step of `batch_size` images while `batches_held` batches of input lie ready."""
        return max(one.base_bytes + one.bytes_per_image * batch_size for one in self.peak_lines(batches_held))


def largest_batch(lines: Iterable[MemoryLine], limit_bytes: int) -> int:
    """The largest batch size at which no line is above `limit_bytes`; 0 where not even one image fits."""
    room = [
        (limit_bytes - line.base_bytes) // line.bytes_per_image
        if line.bytes_per_image
        else (limit_bytes if line.base_bytes <= limit_bytes else 0)  # no image of it is less than a byte
        for line in lines
    ]
    return max(min(room), 0)


def written_lines(lines: Iterable[MemoryLine]) -> str:
    """`102228128+1204224n 93847+2408448n`: as a row stores them, n being the batch size."""
    return " ".join(f"{one.base_bytes}+{one.bytes_per_image}n" for one in lines)


def read_lines(text: str) -> tuple[MemoryLine, ...]:
    """What `written_lines` has written. Raises `ValueError` for anything else."""
    parts = [one.removesuffix("n").partition("+") for one in text.split()]
    lines = tuple(MemoryLine(base_bytes=int(base), bytes_per_image=int(slope)) for base, _, slope in parts)
    if not lines or written_lines(lines) != text:
        raise ValueError(f"{text!r} are no lines over the batch size")
    return lines


class Carried(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one process found out of a network without timing it, so that the next need not: it takes seconds."""

    counts: Counts | None = None
    memory: dict[str, MemoryModel] = {}
    """By `Cell.group_id`."""


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
