"""What the catalogue says of a network: frozen types, free of torch."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from archbench.model.axes import Scalar

Source = Literal["torchvision", "timm", "archbench", "user code"]
SOURCES: tuple[Source, ...] = ("torchvision", "timm", "archbench")
"""Where a catalogued network may come from."""

IMAGENET = "ImageNet"


NEUTRAL_OPTIONS = frozenset({"aux_logits", "memory_efficient"})
"""Options that change how a network is trained or stored, not what it computes: its published accuracy still holds."""


class Accuracy(Struct, frozen=True, kw_only=True):
    """One published accuracy in percent, and everything that it depends on.

    Figures of different protocols are not comparable: ten crops gain one to two points over one, a newer training
    recipe up to five. So a figure never travels without `source`.
    """

    top1: float | None
    top5: float | None
    dataset: str = IMAGENET
    origin: str
    """Who published it: `torchvision`, `paper`, `authors' repository`, ..."""
    protocol: str
    """How it was measured: `crop 224, resize 256`, or `10 crops 224`."""
    tag: str | None = None
    """torchvision's name for the weights."""
    crop: int | None = None
    """Side of the image that the network saw, in pixels, where the figure is torchvision's."""
    resize: int | None = None
    recipe: str | None = None
    """How the weights came about, where the figure is torchvision's."""
    source: str
    """All of that in one line: `torchvision IMAGENET1K_V1 (crop 224, resize 256)`, `paper: single crop 224`."""


NEWER_RECIPE = "torchvision's newer recipe"
SWAG = "pre-trained by SWAG on 3.6 billion other images"
UNUSUAL_RECIPES = frozenset({NEWER_RECIPE, SWAG})
"""Recipes that lift a network above what its architecture gave its siblings; named wherever the figure is."""


class PublishedSize(Struct, frozen=True, kw_only=True):
    """Parameters and MACs as somebody published them, to be held against what archbench counts."""

    params: int | None
    macs: int | None
    """Per image."""
    origin: str


class Entry(Struct, frozen=True, kw_only=True):
    """One network that can be built. `None` where the catalogue does not know."""

    name: str
    source: Source
    constructor: str
    """The function that builds it: torchvision's, timm's, one of `archbench.catalog.networks`, or the user's."""
    options: dict[str, Scalar] = {}
    """Options that make this network of the constructor's; a suite's options override them."""
    variants: tuple[dict[str, Scalar], ...] = ()
    """Options under which the network is another one worth counting (auxiliary heads)."""
    family: str | None = None
    year: int | None = None
    """Of first publication, on arXiv or in proceedings, whichever was earlier."""
    paper: str | None = None
    arxiv: str | None = None
    idea: str | None = None
    """What was new, in a few words."""
    input_shape: tuple[int, ...] | None = None
    """One native input without its batch axis: channels, height, width; or a vector's width."""
    aliases: tuple[str, ...] = ()
    published: PublishedSize | None = None
    accuracy: Accuracy | None = None
    """As the paper (or who else is named) has it; torchvision's weights are in `archbench.catalog.accuracies`."""
    note: str | None = None
    """What the figures above need to be read rightly."""

    @property
    def input_size(self) -> int | None:
        """Side of the native input in pixels; `None` for vectors and where it is unknown."""
        return self.input_shape[-1] if self.input_shape is not None and len(self.input_shape) == 3 else None
