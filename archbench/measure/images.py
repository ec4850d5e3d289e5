"""Images to judge outputs by: seeded ones, which differ from each other as photographs do, and those of a file."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from archbench.catalog.weights import Preprocessing

_CONTRAST = 1.5
"""Of the patterns before they are squeezed between black and white: a fifth of the pixels come close to either."""


def drawn_images(shape: tuple[int, ...], count: int, seed: int, wanted: Preprocessing | None) -> Tensor:
    """Inputs of one `shape`, [count, *shape], always the same for a seed, on the CPU.

    Images are random patterns whose power falls with frequency as that of photographs does (Field 1987): noise on
    grids of 1, 2, 4, ... cells a side, each widened to the whole image. So they differ in colour and layout, and a
    network's features differ with them; of white noise all images look alike to it. Their pixels, from 0 to 1, are
    normalised as `wanted` says. Inputs that are no colour images are standard normal.
    """
    generator = torch.Generator().manual_seed(seed)
    if wanted is None or len(shape) != 3 or shape[0] != len(wanted.mean):
        return torch.randn((count, *shape), generator=generator)
    channels, *side = shape
    pattern, octaves, cells = torch.zeros((count, channels, *side)), 0, 1
    while cells <= max(side):
        noise = torch.randn((count, channels, cells, cells), generator=generator)
        pattern += nn.functional.interpolate(noise, size=side, mode="bilinear", align_corners=False)
        octaves, cells = octaves + 1, cells * 2
    pixels = torch.sigmoid(_CONTRAST * pattern / octaves**0.5)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (wanted.mean, wanted.std))
    return (pixels - mean) / std


def pixels_of(file: Path, shape: tuple[int, ...], wanted: Preprocessing) -> Tensor:
    """One image as an input of `shape` [3, height, width]: its shorter side scaled, the middle cut out, normalised."""
    height, width = shape[1:]
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    scale = max(height, width) / wanted.crop_share / min(image.size)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC if wanted.bicubic else Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    image = image.crop((left, top, left + width, top + height))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (wanted.mean, wanted.std))
    return (pixels.permute(2, 0, 1).float() / 255 - mean) / std
