"""Trained weights from a file or from the cache of the library that publishes them. Nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from archbench.catalog.names import resolve
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
        cast(
            Any, module
        ).transform_input = True  # torchvision's Inceptions bring TensorFlow's normalisation with their weights


def weights_file(network: Network) -> Path:
    """Where the weights lie. Raises `UsageError` where they do not, or where no such tag is known."""
    tag = network.weights or ""
    entry = resolve(network.name, allow_code=True)
    if network.weights_file is not None:
        network.require_weights()
        return network.weights_file
    if entry.source == "torchvision":
        return _of_torchvision(network, entry, tag)
    if entry.source == "timm":
        return _of_timm(network, entry, tag)
    raise UsageError(f"{network.label}: no library publishes weights for it; give a file, such as weights: best.pth")


def _of_torchvision(network: Network, entry: Entry, tag: str) -> Path:
    from torchvision.models import get_model_weights

    known = {one.name: one for one in get_model_weights(entry.constructor)}
    if tag not in known:
        near = did_you_mean(tag, known) or f"; it has {', '.join(known) or 'none'}"
        raise UsageError(f"{network.label}: torchvision has no weights {tag!r} for it{near}")
    url = known[tag].url
    file = Path(str(torch.hub.get_dir())) / "checkpoints" / str(url).rpartition("/")[2]
    if not file.is_file():
        raise UsageError(f"{network.label}: its weights are not at {file}; archbench downloads nothing: fetch {url}")
    return file


def _of_timm(network: Network, entry: Entry, tag: str) -> Path:
    import timm
    from huggingface_hub import try_to_load_from_cache

    name = entry.name.removeprefix("timm:") if entry.name.startswith("timm:") else entry.constructor
    architecture = name.partition(".")[0]
    known = [one.partition(".")[2] for one in timm.list_pretrained(architecture)]
    if tag not in known:
        near = did_you_mean(tag, known) or f"; it has {', '.join(known) or 'none'}"
        raise UsageError(f"{network.label}: timm has no weights {tag!r} for it{near}")
    config = timm.get_pretrained_cfg(f"{architecture}.{tag}")
    repository = config.hf_hub_id if config else None
    found = try_to_load_from_cache(str(repository), "model.safetensors")
    if not isinstance(found, str):
        raise UsageError(
            f"{network.label}: its weights are not in the cache of huggingface_hub; archbench downloads nothing: "
            f"hf download {repository} model.safetensors"
        )
    return Path(found)


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
