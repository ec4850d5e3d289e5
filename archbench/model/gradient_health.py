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
    """One weight layer: a module with a weight of two or more axes (convolution, linear, embedding).

    Figures are root mean squares over a tensor's elements, so that layers of different sizes compare; `None` where a
    seed gave something not finite.
    """

    path: str
    kind: str
    """The module's class."""
    position: int
    """Among the weight layers in the order in which the forward pass first called them, from 0."""
    weights: int
    """Elements of its weight."""
    gradient_rms: Spread | None
    """Of the loss's gradient with respect to the weight."""
    signal_rms: Spread | None
    """Of the loss's gradient with respect to the layer's output: how much of the error arrives here."""
    relative_step: Spread | None
    """Norm of the weight's gradient over the norm of the weight: the step that a learning rate of 1 would take."""


class StageActivation(Struct, frozen=True, kw_only=True):
    """What comes out of one stage."""

    stage: str
    mean: Spread | None
    std: Spread | None
    zero_share: Spread | None
    """Of its elements, exactly 0: what a ReLU has cut off."""


class GradientHealth(Struct, frozen=True, kw_only=True):
    """One backward pass from freshly drawn weights, on random input and labels, for each of several seeds."""

    seeds: int
    batch_size: int
    layers: tuple[LayerGradient, ...]
    """From input to output."""
    first_to_last: Spread | None
    """Weight gradient of the first layer over the last's, root mean squares; `None` where one is 0 or not finite."""
    signal_first_to_last: Spread | None
    """The same of the gradients that arrive at the layers' outputs."""
    stages: tuple[StageActivation, ...]
    dead_layers: tuple[str, ...]
    """Paths of layers whose weight got no gradient at all, or one of exactly 0, under every seed."""
