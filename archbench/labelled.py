"""A folder of labelled images, one folder a class, looked at before anything is measured. Needs no torch."""

from __future__ import annotations

import random
from pathlib import Path

from msgspec import Struct

from archbench.model.errors import UsageError, first_line

MOST_IMAGES = 1000
"""That an accuracy is taken on: at 75 % it is then known to 2.7 points either way."""
_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
"""As torchvision's ImageFolder has them."""


class Labelled(Struct, frozen=True):
    """Files of images, in an order of their own that is always the same, each with the number of its class."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: int


def labelled_images(folder: str | Path) -> Labelled:
    """The images of a folder, of many a fixed sample of `MOST_IMAGES`.

    Classes are numbered in the order of their folders' names, as torchvision's ImageFolder has them. Raises
    `UsageError` for what is no such folder.
    """
    place = Path(folder)
    if not place.is_dir():
        raise UsageError(f"--images {folder}: no such folder; give one with a folder of images for each class")
    classes = sorted(one for one in place.iterdir() if one.is_dir())
    found = [
        (file, label)
        for label, one in enumerate(classes)
        for file in sorted(one.rglob("*"))
        if file.suffix.lower() in _ENDINGS
    ]
    if not found:
        raise UsageError(f"--images {folder}: holds no images in folders of their classes, as CLASS/17.jpg")
    random.Random(0).shuffle(found)
    kept = found[:MOST_IMAGES]
    return Labelled(tuple(file for file, _ in kept), tuple(label for _, label in kept), len(classes))


def require_readable(images: Labelled) -> None:
    """Raise `UsageError` for the first image that cannot be read to its end."""
    from PIL import Image

    for file in images.files:
        try:
            with Image.open(file) as image:
                image.draft("RGB", (32, 32))  # JPEG is read whole and decoded small, which takes a tenth of the time
                image.load()
        except Exception as error:  # its decoders raise whatever a damaged file makes them
            raise UsageError(
                f"--images: {file} is no image that can be read ({first_line(error)}); remove it"
            ) from error
