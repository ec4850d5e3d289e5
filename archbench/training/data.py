"""Images to train on: scikit-learn's digits, which ship with the package, or CIFAR-10 from a folder of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from archbench.model.errors import UnfitError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGITS_TEST = 360
"""Of the 1,797 digits those that are kept for testing: every fifth, in an order drawn once for all probes."""
CIFAR_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
_CIFAR_RECORD = 1 + 3 * 32 * 32
"""Bytes: a label, then the red, green and blue planes (https://www.cs.toronto.edu/~kriz/cifar.html)."""


class Images(Struct, frozen=True, kw_only=True):
    """Images of shape (N, C, H, W) as float32, each channel with mean 0 and deviation 1 over `train`; labels (N,)."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    augmented: bool = False
    """Trained with shifts by up to four pixels and mirroring."""


def digits() -> Images:
    """scikit-learn's 1,797 handwritten digits, 8x8, one channel. Raises `UnfitError` where it is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UnfitError(
            "scikit-learn is missing, whose digits the probe trains on; pip install 'archbench[probe]', "
            "or give a folder with CIFAR-10 (--data)"
        ) from None
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images, labels = found.images[order, None].astype(np.float32), found.target[order].astype(np.int64)
    return _normalised(images[DIGITS_TEST:], labels[DIGITS_TEST:], images[:DIGITS_TEST], labels[:DIGITS_TEST])


def cifar10(folder: Path) -> Images:
    """CIFAR-10 from its binary version, 32x32, three channels. Raises `UsageError` for a folder that does not hold it.

    The pickled version is not read: opening a pickle runs what is in it.
    """
    place = next((one for one in (folder, folder / "cifar-10-batches-bin") if (one / CIFAR_FILES[-1]).is_file()), None)
    if place is None:
        raise UsageError(
            f"--data {folder}: holds no {CIFAR_FILES[-1]}; give the folder of CIFAR-10's binary version, "
            "unpacked from cifar-10-binary.tar.gz (the pickled version is not read)"
        )
    parts = [_records(place / name) for name in CIFAR_FILES]
    train = [np.concatenate(each) for each in zip(*parts[:-1], strict=True)]
    found = _normalised(train[0].astype(np.float32), train[1], parts[-1][0].astype(np.float32), parts[-1][1])
    return replace(found, augmented=True)


def _records(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        content = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        raise UsageError(f"--data: {file}: {error.strerror}") from None
    if len(content) == 0 or len(content) % _CIFAR_RECORD:
        raise UsageError(f"--data: {file}: {len(content):,} bytes are no records of {_CIFAR_RECORD:,}; unpack it again")
    rows = content.reshape(-1, _CIFAR_RECORD)
    if rows[:, 0].max() > 9:
        raise UsageError(f"--data: {file}: has the label {rows[:, 0].max()}, and CIFAR-10 has 0 to 9; unpack it again")
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64)


def _normalised(
    train: NDArray[np.float32], train_labels: NDArray[np.int64],
    test: NDArray[np.float32], test_labels: NDArray[np.int64],
) -> Images:  # fmt: skip
    mean, deviation = (each(axis=(0, 2, 3), keepdims=True) for each in (train.mean, train.std))
    return Images(
        train=((train - mean) / deviation).astype(np.float32),
        train_labels=train_labels,
        test=((test - mean) / deviation).astype(np.float32),
        test_labels=test_labels,
    )
