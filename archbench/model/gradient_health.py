"""Whether gradients reach the first layers of a network: what one backward pass gives at initialisation."""

from __future__ import annotations

from msgspec import Struct


class Spread(Struct, frozen=True, kw_only=True):
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
    gradient_norm: Spread | None
    """Euclidean norm of the loss's gradient with respect to the weight."""
    weight_norm: Spread | None
    """Euclidean norm of the weight itself."""
    signal_rms: Spread | None
    """Root mean square of the loss's gradient with respect to the layer's output: how much of the error gets here."""


class StageActivation(Struct, frozen=True, kw_only=True):
    """What comes out of one stage."""

    stage: str
    mean: Spread | None
    std: Spread | None
    zero_share: Spread | None
    """Of its elements, exactly 0: what a ReLU has cut off."""


class GradientHealth(Struct, frozen=True, kw_only=True):
    """One backward pass in fp32 from freshly drawn weights, on random input and labels, for each of several seeds."""

    seeds: int
    batch_size: int
    layers: tuple[LayerGradient, ...]
    """From input to output."""
    first_to_last: Spread | None
    """`gradient_norm` of the first layer over the last's, seed by seed; `None` where one is 0 or not finite."""
    signal_first_to_last: Spread | None
    """The same of `signal_rms`."""
    stages: tuple[StageActivation, ...]
    without_gradient: tuple[str, ...]
    """Paths of layers whose weight got no gradient, or exactly 0, under every seed."""
