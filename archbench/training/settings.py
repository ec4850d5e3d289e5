"""What the training probe trains, on which images, and how: one schedule a kind, so that only the network differs.

The images are scikit-learn's digits, which ship with the package, or CIFAR-10 from a folder of the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from archbench.model.axes import Scalar
from archbench.model.errors import UnfitError, UsageError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGITS, CIFAR10 = "digits", "cifar10"
DIGITS_TEST = 360
"""Of the 1,797 digits those that are kept for testing: every fifth, in an order drawn once for all probes."""
CIFAR_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
_CIFAR_RECORD = 1 + 3 * 32 * 32
"""Bytes: a label, then the red, green and blue planes (https://www.cs.toronto.edu/~kriz/cifar.html)."""
ARITHMETIC = 2
"""Of trainings now; 2 since networks on a CPU are laid out with channels last."""
Kind = Literal["depth", "joining", "chain"]


class Subject(Struct, frozen=True, kw_only=True):
    """One network that a probe trains."""

    name: str
    kind: Kind
    """The question that it belongs to: depth with or without shortcuts, adding or concatenating, chains of layers."""
    network: str
    """Of the catalogue, or a function."""
    options: dict[str, Scalar] = {}
    about: str


class Schedule(Struct, frozen=True, kw_only=True):
    """How all networks of a kind are trained: stochastic gradient descent with momentum."""

    steps: int
    batch_size: int
    learning_rate: float
    """Divided by ten after half and after three quarters of the steps, as 1512.03385 does."""
    momentum: float = 0.9
    weight_decay: float = 1e-4


class Settings(Struct, frozen=True, kw_only=True):
    """All that decides a probe's figures on one machine."""

    data: str
    image_size: int
    seeds: tuple[int, ...]
    subjects: tuple[str, ...]
    schedules: dict[Kind, Schedule]
    device: str
    points: int = 20
    """How often along the way figures are taken."""
    arithmetic: int = 1
    """Another number where all of the above give figures that differ in their last digits: see `ARITHMETIC`."""


class Point(Struct, frozen=True, kw_only=True):
    """A training at one of its points. What is not a number stays so: a loss of NaN is a finding."""

    network: str
    seed: int
    step: int
    train_loss: float
    """Cross-entropy, the mean over the steps since the last point, in training mode."""
    train_accuracy: float
    """Percent, likewise."""
    test_loss: float
    test_accuracy: float
    """Percent, in evaluation mode."""
    gradient_norms: tuple[float, ...]
    """Of the loss by each weight, first to last layer, in the last step: Euclidean norms of convolutions' and linear
    layers' weights."""


def _depth(depth: int, plain: bool) -> Subject:
    name = f"{'plain' if plain else 'resnet'}{depth}"
    about = f"{depth} layers, {'no shortcuts' if plain else 'a shortcut over every two'} (1512.03385, section 4.2)"
    return Subject(name=name, kind="depth", network=f"{name}_cifar", about=about)


_INITS = {"xavier": "Xavier", "he": "He", "normal": "N(0, 0.01²)"}


def _chain(activation: str, batch_norm: bool, init: str) -> Subject:
    options: dict[str, Scalar] = {"activation": activation, "batch_norm": batch_norm, "init": init}
    return Subject(
        name=f"{activation}{'-bn' if batch_norm else ''}-{init}",
        kind="chain",
        network="mlp_probe",
        options={"depth": CHAIN_DEPTH, "width": CHAIN_WIDTH, **options},
        about=f"{CHAIN_DEPTH} layers of {CHAIN_WIDTH}, {activation}, {'BN' if batch_norm else 'no BN'}, {_INITS[init]}",
    )


CHAIN_DEPTH, CHAIN_WIDTH = 30, 64
CONCATENATING = "archbench.training.loop:densenet22_k12"
SUBJECTS: dict[str, Subject] = {
    one.name: one
    for one in (
        *(_depth(depth, plain) for depth in (20, 56, 110) for plain in (True, False)),
        Subject(
            name="adding20",
            kind="joining",
            network="resnet20_cifar",
            about="20 layers that add to what they read: as resnet20, on the schedule of concatenating22",
        ),
        Subject(
            name="concatenating22",
            kind="joining",
            network=CONCATENATING,
            about="22 layers that append 12 channels each to what they read (1608.06993): as many parameters",
        ),
        *(_chain(act, bn, init) for act in ("sigmoid", "tanh", "relu") for bn in (False, True) for init in _INITS),
    )
}
"""What is trained, by name, in the order of the figures' table."""


def chosen(networks: Sequence[str]) -> list[Subject]:
    """The subjects that are named, all for none. Raises `UsageError` for one that is not known."""
    known = ", ".join(SUBJECTS)
    for name in networks:
        if name not in SUBJECTS:
            raise UsageError(f"the training probe has no {name!r}{did_you_mean(name, SUBJECTS)}; it has {known}")
    return [one for one in SUBJECTS.values() if not networks or one.name in networks]


def schedules(data: str, steps: int | None) -> dict[Kind, Schedule]:
    """By kind; `steps` in place of its own. On CIFAR-10 the batch and rate of 1512.03385."""
    if data == CIFAR10:
        own: dict[Kind, Schedule] = {
            "depth": Schedule(steps=8000, batch_size=128, learning_rate=0.1),
            "joining": Schedule(steps=8000, batch_size=128, learning_rate=0.1),
            "chain": Schedule(steps=4000, batch_size=128, learning_rate=0.01),
        }
    else:
        # Chosen here, for what two cores do in ten minutes: at a rate of 0.1 ResNet-56 began at a loss of 7 and was
        # not done after 300 steps, at 0.01 it was; the plain networks failed at each of 0.1, 0.03 and 0.01.
        one = Schedule(steps=360, batch_size=64, learning_rate=0.01)
        own = {"depth": one, "joining": one, "chain": replace(one, steps=300)}
    if steps is None:
        return own
    return {kind: replace(one, steps=steps) for kind, one in own.items()}


class Images(Struct, frozen=True, kw_only=True):
    """Images of shape (N, C, H, W) as float32, each channel with mean 0 and deviation 1 over `train`; labels (N,)."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    augmented: bool = False
    """Trained with shifts by up to four pixels and mirroring."""


def images_of(data: str) -> Images:
    """`digits`, or CIFAR-10 in the folder that `data` names. Raises as these do."""
    return digits() if data == DIGITS else cifar10(Path(data))


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
