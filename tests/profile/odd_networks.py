"""Networks that a profiler trips over, for `module:function` names; each takes [N, 3, 8, 8] or larger."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class InPlace(nn.Module):
    """A residual block whose ReLU writes over what a full backward hook would have handed on as a view."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        return self.relu(self.conv(x) + x)  # conv and relu a second time


class Network(nn.Module):
    """Stem, two blocks, head."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(blocks or (InPlace(), InPlace()))
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Any:  # `ByKind` gives no tensor
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Shared(Network):
    """One block under two names."""

    def __init__(self) -> None:
        super().__init__(InPlace())
        self.again = self.blocks[0]

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.blocks[0](self.stem(x)))
        return self.head(x.mean((2, 3)))


class ByKind(Network):
    """Gives its result in a tuple or a dictionary, as its inner block does."""

    def __init__(self, kind: type) -> None:
        super().__init__(Inner(kind))
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        given = self.blocks[0](self.stem(x))
        first = given["out"] if self.kind is dict else given[0]
        out = self.head(first.mean((2, 3)))
        return {"out": out, "aux": out * 2} if self.kind is dict else (out, [out * 2])


class Inner(nn.Module):
    def __init__(self, kind: type) -> None:
        super().__init__()
        self.block = InPlace()
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        out = self.block(x)
        return {"out": out, "skip": x} if self.kind is dict else (out, x)


class LooksAtValues(Network):
    """Takes its second block only for what is large: no tensor without data can go through it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](self.stem(x))
        if x.abs().sum().item() > 0.5:
            x = self.blocks[1](x)
        return self.head(x.mean((2, 3)))


class Fails(Network):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("the shapes\ndo not fit")


class Recomputes(Network):
    """Its blocks run a second time in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return self.head(x.mean((2, 3)))


class FullOfMemory(Network):
    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta and not isinstance(x, torch._subclasses.FakeTensor) and self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(x)


def in_place() -> nn.Module:
    return Network()


def shared() -> nn.Module:
    return Shared()


def gives_tuple() -> nn.Module:
    return ByKind(tuple)


def gives_dict() -> nn.Module:
    return ByKind(dict)


def looks_at_values() -> nn.Module:
    return LooksAtValues()


def fails() -> nn.Module:
    return Fails()


def recomputes() -> nn.Module:
    return Recomputes()


def full_of_memory() -> nn.Module:
    return FullOfMemory()


class Dies(Network):
    def forward(self, x: Tensor) -> Tensor:
        if type(x) is Tensor and not x.is_meta:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().forward(x)


def dies() -> nn.Module:
    return Dies()


class Waves(Network):
    """Weights and maps of complex numbers between real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4, dtype=torch.cfloat)
        self.filter = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.cfloat)

    def forward(self, x: Tensor) -> Tensor:
        waves = self.filter(torch.fft.fft2(self.stem(x)))
        return self.head(self.mix(waves.mean((2, 3))).abs())


def waves() -> nn.Module:
    return Waves()
