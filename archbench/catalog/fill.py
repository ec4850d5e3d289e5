"""Random weights at the speed of memory, where their scale matters and their values do not."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

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
        _replaced(torch.Tensor, "uniform_", quick_uniform_),
        _replaced(torch.Tensor, "normal_", quick_normal_),
        _replaced(nn.init, "trunc_normal_", quick_trunc_normal_),
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
def _replaced(owner: object, name: str, replacement: Callable[..., Tensor]) -> Iterator[None]:
    """`owner` with another function of this name; torch.Tensor has inherited its own, and does so again."""
    before = vars(owner).get(name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
