"""Networks that neither torchvision nor timm carries, or carries differently, written from their papers.

A file holds one family and ends in `BUILDERS`, its functions that build a network. Each is named as the catalogue's
key and takes `num_classes`, `in_channels` and `head` as far as the network has them, then its own options; its
docstring says what it was written from and where it departs from that.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

FILES = (
    "lenet",
    "alexnet",
    "nin",
    "googlenet",
    "inception",
    "residual",
    "cifar_resnet",
    "preact",
    "wide",
    "densenet",
    "highway",
    "fractal",
    "capsule",
    "attention",
    "squeeze",
    "probes",
    "blocks",
)


@functools.cache
def builders() -> Mapping[str, Callable[..., nn.Module]]:
    """Every builder by catalogue key. Imports torch."""
    files = [importlib.import_module(f"{__name__}.{file}") for file in FILES]
    return MappingProxyType({builder.__name__: builder for file in files for builder in file.BUILDERS})
