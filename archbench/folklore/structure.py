"""What a network says of itself once it is built, without data. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from archbench.analyze.counts import count
from archbench.analyze.memory import predict
from archbench.catalog import resolve
from archbench.catalog.build import build, input_shape
from archbench.model.axes import Scalar
from archbench.model.cell import Network
from archbench.model.errors import UsageError


@cache
def _built(name: str, options: tuple[tuple[str, Scalar], ...]) -> nn.Module:
    with torch.device("meta"):
        return build(Network(name=resolve(name).name, options=dict(options))).eval()


def _net(name: str, options: dict[str, Scalar]) -> nn.Module:
    return _built(name, tuple(sorted(options.items())))


def counted(column: str, name: str, **options: Scalar) -> float:
    """A count of the analyzer, for options that no table has."""
    return float(getattr(count(Network(name=resolve(name).name, options=options)), column))


def modules(name: str, kind: str, **options: Scalar) -> int:
    """How many modules of a class the network has: `Conv2d`, `Inception`."""
    return sum(type(one).__name__ == kind for one in _net(name, options).modules())


def kernels(name: str, size: int, **options: Scalar) -> int:
    """How many convolutions have square filters of this side."""
    found = (one for one in _net(name, options).modules() if isinstance(one, nn.Conv2d))
    return sum(one.kernel_size == (size, size) for one in found)


def attribute(name: str, path: str, **options: Scalar) -> float:
    """A number that a module has: `conv1.stride`; of a pair the first. Raises `UsageError` where it has none."""
    place, _, last = path.rpartition(".")
    found = getattr(_part(name, place, options), last, None)
    found = found[0] if isinstance(found, tuple) else found
    if not isinstance(found, int | float | bool):
        near = "has no bias" if last == "bias" and found is None else f"has no number {last!r}"
        if last == "bias":
            return float(found is not None)
        raise UsageError(f"{name}: {place or 'the network'} {near}")
    return float(found)


def part_params(name: str, path: str, **options: Scalar) -> int:
    """Parameters of a part."""
    return sum(one.numel() for one in _part(name, path, options).parameters())


def channels(name: str, path: str, **options: Scalar) -> int:
    """Channels of what a part gives."""
    return _shape(name, path, options)[1]


def side(name: str, path: str, **options: Scalar) -> int:
    """Height in pixels of what a part gives, at the network's native input."""
    return _shape(name, path, options)[2]


def training_bytes(name: str, batch: int, **options: Scalar) -> int:
    """Predicted peak memory of a training step in fp32, by the analyzer, bytes."""
    return predict(Network(name=resolve(name).name, options=options), "training", "fp32").peak_bytes(batch)


def _part(name: str, path: str, options: dict[str, Scalar]) -> nn.Module:
    try:
        return _net(name, options).get_submodule(path)
    except AttributeError as error:
        raise UsageError(f"{name} has no part {path!r}: {error}") from None


def _shape(name: str, path: str, options: dict[str, Scalar]) -> tuple[int, ...]:
    net, seen = _net(name, options), []
    keep: Callable[[nn.Module, object, Tensor], None] = lambda module, given, out: seen.append(tuple(out.shape))  # noqa: E731
    hook = _part(name, path, options).register_forward_hook(keep)
    shape = input_shape(Network(name=resolve(name).name, options=options))
    with torch.no_grad():
        net(torch.empty(1, *shape, device="meta"))
    hook.remove()
    return tuple(seen[0])
