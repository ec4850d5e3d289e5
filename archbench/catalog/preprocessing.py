"""What a network expects of an image: the size it is cut to, and the mean and deviation it is normalised by."""

from __future__ import annotations

from msgspec import Struct

from archbench.catalog.names import resolve
from archbench.catalog.tables import Entry
from archbench.model.cell import Network

Channels = tuple[float, float, float]


class Preprocessing(Struct, frozen=True, kw_only=True):
    """How an image with channels from 0 to 1 becomes an input; the field's own defaults where nobody says."""

    mean: Channels = (0.485, 0.456, 0.406)
    """Of ImageNet's training images, as torchvision and most papers have it."""
    std: Channels = (0.229, 0.224, 0.225)
    crop_share: float = 0.875
    """Side of the central crop over the side to which the shorter edge is scaled: 224 of 256."""
    bicubic: bool = False
    """How images are scaled; else bilinearly."""


def preprocessing(network: Network) -> Preprocessing:
    """By torchvision or timm for the weights that stand for the network, else by its data set."""
    entry = resolve(network.name, allow_code=True)
    if entry.source == "torchvision":
        return _torchvision(entry, network.weights or "DEFAULT")
    if entry.source == "timm":
        from archbench.catalog.timm_networks import config_of

        config = config_of(entry)
        return Preprocessing(
            mean=tuple(config.mean),  # type: ignore[arg-type]
            std=tuple(config.std),  # type: ignore[arg-type]
            crop_share=float(config.crop_pct),
            bicubic=config.interpolation == "bicubic",
        )
    if entry.accuracy is not None and entry.accuracy.dataset.upper().startswith("CIFAR"):
        # Krizhevsky's training images; they are not cropped.
        return Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), crop_share=1.0)
    return Preprocessing()


def _torchvision(entry: Entry, tag: str) -> Preprocessing:
    from torchvision.models import get_model_weights

    known = get_model_weights(entry.constructor)
    found = getattr(known, tag, None) or getattr(known, "DEFAULT", None)
    if found is None:
        return Preprocessing()
    transform = found.transforms()
    return Preprocessing(
        mean=tuple(transform.mean),  # type: ignore[arg-type]
        std=tuple(transform.std),  # type: ignore[arg-type]
        crop_share=transform.crop_size[0] / transform.resize_size[0],
        bicubic=transform.interpolation.value == "bicubic",
    )
