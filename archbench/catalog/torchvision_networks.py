"""Builds torchvision's classification networks, with any number of channels, and without their heads; their weights."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, get_model_builder, get_model_weights
from torchvision.models.regnet import BlockParams

from archbench.catalog.build import construct, refuse_reserved
from archbench.catalog.tables import Entry
from archbench.catalog.weights import Preprocessing, replaced
from archbench.model.cell import Network, sides_of
from archbench.model.errors import UsageError

_RESERVED = ("weights", "progress", "num_classes", "image_size", "input_size")

# They draw truncated normals with scipy, which takes 5 s; torch's own initialisation is as good as any for timing.
_SLOW_TO_INITIALISE = ("googlenet", "inception_v3")

# In torchvision's classifiers whatever has one of these names belongs to the head: the rest, in order, is the trunk.
_HEAD = frozenset({"avgpool", "flatten", "dropout", "classifier", "fc", "head", "heads", "aux1", "aux2", "AuxLogits"})


def make(entry: Entry, network: Network) -> nn.Module:
    """Return torchvision's `entry` with the departures of `network`."""
    refuse_reserved(network, _RESERVED)
    builder = get_model_builder(entry.constructor)
    chosen = _size_argument(network, entry.constructor)
    if entry.constructor in _SLOW_TO_INITIALISE and "init_weights" not in network.options:
        chosen["init_weights"] = False
    if network.num_classes is not None:
        chosen["num_classes"] = network.num_classes
    with _block_params_on_cpu():
        module = construct(builder, entry, network, _RESERVED, chosen)
    if network.in_channels is not None:
        _replace_stem(module, network.in_channels)
    return _trunk(module) if network.head == "none" else module


def known_tags(entry: Entry) -> list[str]:
    """Of the weights that torchvision publishes for it."""
    return [one.name for one in get_model_weights(entry.constructor)]


def cached_weights(entry: Entry, tag: str) -> tuple[Path | None, str, str]:
    """Those of a known tag, if they are here; where they would be; and what brings them."""
    url = str(get_model_weights(entry.constructor)[tag].url)
    file = Path(str(torch.hub.get_dir())) / "checkpoints" / url.rpartition("/")[2]
    return file if file.is_file() else None, f"at {file}", f"fetch {url}"


def preprocessing_of(entry: Entry, tag: str | None) -> Preprocessing:
    """That of some weights, by default of those that torchvision would take."""
    known = get_model_weights(entry.constructor)
    found = getattr(known, tag or "DEFAULT", None) or getattr(known, "DEFAULT", None)
    if found is None:
        return Preprocessing()
    transform = found.transforms()
    return Preprocessing(
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        crop_share=transform.crop_size[0] / transform.resize_size[0],
        bicubic=transform.interpolation.value == "bicubic",
    )


def _size_argument(network: Network, constructor: str) -> dict[str, object]:
    """The size, for networks that are built for one: ViT's position table, MaxViT's partitions."""
    if network.input_size is None:
        return {}
    if constructor.startswith("vit_"):
        if isinstance(network.input_size, str):
            raise UsageError(f"{network.label}: torchvision's ViT takes square images; take one of timm:vit_*")
        return {"image_size": network.input_size}
    return {"input_size": sides_of(network.input_size)} if constructor.startswith("maxvit") else {}


def _block_params_on_cpu() -> AbstractContextManager[None]:
    """Lets a RegNet be built on the meta device: it computes its widths with tensors and reads them back."""
    original = vars(BlockParams)["from_init_params"]

    def from_init_params(cls: type[BlockParams], /, *args: object, **kwargs: object) -> BlockParams:
        with torch.device("cpu"):
            return original.__func__(cls, *args, **kwargs)

    return replaced(BlockParams, "from_init_params", classmethod(from_init_params))


def _replace_stem(module: nn.Module, in_channels: int) -> None:
    """Give the first convolution, which reads the image, `in_channels` inputs and fresh weights."""
    stem = next(part for part in module.modules() if isinstance(part, nn.Conv2d))
    stem.in_channels = in_channels
    stem.weight = nn.Parameter(torch.empty(stem.out_channels, in_channels, *stem.kernel_size))
    stem.reset_parameters()


def _trunk(module: nn.Module) -> nn.Module:
    """What computes the last feature map. Names stay as they were, so that state dicts can be exchanged."""
    if isinstance(module, VisionTransformer):
        return _Tokens(module)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for name, child in module.named_children():
        if name not in _HEAD:
            parts[name] = nn.Sequential(*child) if isinstance(child, nn.ModuleList) else child
    if type(module).__name__ == "DenseNet":
        # Its last normalisation is followed by a functional ReLU, which no child would bring along.
        parts["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)


class _Tokens(nn.Module):
    """A vision transformer without its head: [N, 3, H, W] to [N, 1 + patches, width], the class token first."""

    def __init__(self, transformer: VisionTransformer) -> None:
        super().__init__()
        self.conv_proj = transformer.conv_proj
        self.class_token = transformer.class_token
        self.encoder = transformer.encoder

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        class_token = self.class_token.expand(len(images), -1, -1)
        return self.encoder(torch.cat([class_token, patches], dim=1))  # type: ignore[no-any-return]
