"""Trained weights, and what they expect of an image: the size it is cut to, the mean and deviation it is normalised by.

Weights are of a file, or of the cache of the library that publishes them. Nothing is ever downloaded. Random weights
come at the speed of memory (`repeated_draws`), where their scale matters and their values do not.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator
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


PERIOD = 131_071
"""Values drawn of each distribution, to be repeated: few enough to stay in a core's cache. A prime: no row of a weight
divides it, so that rows repeat only shifted against each other, and no two channels come out alike."""
FAR = 6.0
"""Standard deviations within which all `PERIOD` draws lie."""
SMALL = 1 << 16
"""Elements below which a tensor is drawn as ever: most of them, and little of the time."""


@contextlib.contextmanager
def repeated_draws(seed: int) -> Iterator[None]:
    """Inside, whatever fills a large tensor from a normal or a uniform distribution repeats `PERIOD` seeded draws.

    So initialisers keep the mean, the scale and the bounds that they chose for each layer, which keep activations
    within fp16, and the same seed gives the same weights. For catalogued networks: what a user's own code draws may
    be meant to be drawn. Only on the CPU: other devices, and tensors without data, are fast as they are.

    Torch's own functions are replaced meanwhile: a `TorchFunctionMode` sees the initialiser that was called, but not
    what that calls in its turn.
    """
    generator = torch.Generator().manual_seed(seed)
    uniform_, normal_ = torch.Tensor.uniform_, torch.Tensor.normal_
    fill_uniform = _Repeated(torch.rand(PERIOD, generator=generator) - 0.5)
    fill_normal = _Repeated(torch.randn(PERIOD, generator=generator))

    def quick_uniform_(
        tensor: Tensor, a: float = 0.0, b: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        if generator is not None or not _is_large(tensor):
            return uniform_(tensor, a, b, generator=generator)
        return fill_uniform(tensor, b - a, (a + b) / 2)

    def quick_normal_(
        tensor: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        if generator is not None or not _is_large(tensor):
            return normal_(tensor, mean, std, generator=generator)
        return fill_normal(tensor, std, mean)

    def quick_trunc_normal_(
        tensor: Tensor,
        mean: float = 0.0,
        std: float = 1.0,
        a: float = -2.0,
        b: float = 2.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        # Torch's own draws again what fell outside, several passes over the whole; mostly nothing does, at 100 sigma.
        far = min(mean - a, b - mean) > FAR * std
        if generator is not None or not far or not _is_large(tensor):
            return trunc_normal_(tensor, mean, std, a, b, generator=generator)
        return fill_normal(tensor, std, mean)

    trunc_normal_ = nn.init.trunc_normal_
    with (
        replaced(torch.Tensor, "uniform_", quick_uniform_),
        replaced(torch.Tensor, "normal_", quick_normal_),
        replaced(nn.init, "trunc_normal_", quick_trunc_normal_),
    ):
        yield


class _Repeated:
    """Fills tensors from one piece of draws, each from where the last one stopped."""

    def __init__(self, draws: Tensor) -> None:
        self._draws = draws
        self._at = 0

    @torch.no_grad()
    def __call__(self, tensor: Tensor, scale: float, shift: float) -> Tensor:
        flat = tensor.view(-1)
        done, wanted = 0, flat.numel()
        while done < wanted:
            piece = self._draws[self._at : self._at + wanted - done]
            part = flat[done : done + piece.numel()]
            torch.mul(piece, scale, out=part)
            if shift:
                part.add_(shift)
            done += piece.numel()
            self._at = (self._at + piece.numel()) % PERIOD
        return tensor


def _is_large(tensor: Tensor) -> bool:
    plain = tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.is_contiguous()
    return plain and math.prod(tensor.shape) >= SMALL


@contextlib.contextmanager
def replaced(owner: object, name: str, replacement: object) -> Iterator[None]:
    """`owner` with another function of this name for the block; where it had inherited one, it does so again."""
    before = vars(owner).get(name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
