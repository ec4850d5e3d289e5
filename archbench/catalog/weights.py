"""Trained weights, and what they expect of an image: the size it is cut to, the mean and deviation it is normalised by.

Weights are of a file, or of the cache of the library that publishes them. Nothing is ever downloaded.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast

import torch
from msgspec import Struct
from torch import Tensor, nn

from archbench.catalog.names import LIBRARIES, resolve
from archbench.catalog.tables import Entry
from archbench.model.cell import Network
from archbench.model.errors import UsageError, did_you_mean, first_line

_AUXILIARY = ("aux", "AuxLogits")
"""Heads that published weights hold, and that a network has only where its options say so."""
_WRAPPERS = ("state_dict", "model", "module")
"""Under which training scripts save weights beside their own state."""


def load_weights(module: nn.Module, network: Network) -> None:
    """Give `module` the weights that `network.weights` names: a file, or a tag of its library's (`IMAGENET1K_V1`).

    Raises `UsageError`, in one line, where they are not here (saying where they would be), cannot be read, or are of
    another network.
    """
    assert network.weights is not None
    file = weights_file(network)
    state = _read(file, network)
    kept = {
        key: tensor for key, tensor in state.items() if key in module.state_dict() or not key.startswith(_AUXILIARY)
    }
    _require_alike(kept, module.state_dict(), f"{network.label}: the weights in {file}")
    module.load_state_dict(kept)
    if network.weights_file is None and hasattr(module, "transform_input"):
        # torchvision's Inceptions bring TensorFlow's normalisation with their weights
        cast(Any, module).transform_input = True


def weights_file(network: Network) -> Path:
    """Where the weights lie. Raises `UsageError` where they do not, or where no such tag is known."""
    tag = network.weights or ""
    entry = resolve(network.name, allow_code=True)
    if network.weights_file is not None:
        network.require_weights()
        return network.weights_file
    if entry.source not in LIBRARIES:
        raise UsageError(
            f"{network.label}: no library publishes weights for it; give a file, such as weights: best.pth"
        )
    known = _library(entry).known_tags(entry)
    if tag not in known:
        near = did_you_mean(tag, known) or f"; it has {', '.join(known) or 'none'}"
        raise UsageError(f"{network.label}: {entry.source} has no weights {tag!r} for it{near}")
    file: Path | None
    file, place, remedy = _library(entry).cached_weights(entry, tag)
    if file is None:
        raise UsageError(f"{network.label}: its weights are not {place}; archbench downloads nothing: {remedy}")
    return file


def _library(entry: Entry) -> Any:
    """What is known of the library that publishes an entry: imported at need, for it takes two seconds."""
    return importlib.import_module(f"archbench.catalog.{entry.source}_networks")


def _read(file: Path, network: Network) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or foreign file makes its reader raise
        raise UsageError(f"{network.label}: the weights in {file} cannot be read: {first_line(error)}") from error
    wrapped = next(
        (state[key] for key in _WRAPPERS if isinstance(state, dict) and isinstance(state.get(key), dict)), state
    )
    if not isinstance(wrapped, dict) or not all(isinstance(one, Tensor) for one in wrapped.values()):
        raise UsageError(f"{network.label}: {file} holds no state dict: save `model.state_dict()`")
    return {str(key).removeprefix("module."): tensor for key, tensor in wrapped.items()}


def _require_alike(state: dict[str, Tensor], wanted: dict[str, Tensor], what: str) -> None:
    """Raise `UsageError` for the first tensor that is missing, too much, or of another shape."""
    for key, tensor in wanted.items():
        if key not in state:
            raise UsageError(f"{what} are of another network: they lack {key}")
        if state[key].shape != tensor.shape:
            shapes = f"{list(state[key].shape)} there and {list(tensor.shape)} here"
            raise UsageError(f"{what} are of another network: {key} is {shapes}")
    for key in state:
        if key not in wanted:
            raise UsageError(f"{what} are of another network: it has no {key}")


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
    if entry.source in LIBRARIES:
        published: Preprocessing = _library(entry).preprocessing_of(entry, network.weights)
        return published
    if entry.accuracy is not None and entry.accuracy.dataset.upper().startswith("CIFAR"):
        # Krizhevsky's training images; they are not cropped.
        return Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), crop_share=1.0)
    return Preprocessing()
