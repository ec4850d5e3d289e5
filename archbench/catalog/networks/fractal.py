"""FractalNet (2016): depth without residual connections."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from archbench.catalog.networks.layers import conv, network, pooled_linear
from archbench.model.axes import Head


def _join(columns: list[Tensor]) -> Tensor:
    """The mean of what the columns deliver."""
    total = columns[0]
    for column in columns[1:]:
        total = total + column
    return total / len(columns)


class Fractal(nn.Module):
    """The expansion rule f(C+1) = [f(C) after f(C)] joined with one convolution; f(1) is that convolution.

    `columns` returns the C tensors that meet in the last join, each [N, out_channels, H, W]: where several joins meet,
    the paper merges them into one mean.
    """

    def __init__(self, in_channels: int, out_channels: int, columns: int) -> None:
        super().__init__()
        self.short = nn.Sequential(
            conv(in_channels, out_channels, 3), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
        )
        deeper = columns - 1
        self.first = Fractal(in_channels, out_channels, deeper) if deeper else None
        self.second = Fractal(out_channels, out_channels, deeper) if deeper else None

    def columns(self, x: Tensor) -> list[Tensor]:
        if self.first is None or self.second is None:
            return [self.short(x)]
        return [self.short(x), *self.second.columns(_join(self.first.columns(x)))]


class FractalBlock(nn.Module):
    """A fractal, each of its columns halved by max pooling, and the last join: [N, C, H, W] to [N, D, H/2, W/2].

    Pooling before the last join is the paper's own order ("for convenience").
    """

    def __init__(self, in_channels: int, out_channels: int, columns: int) -> None:
        super().__init__()
        self.fractal = Fractal(in_channels, out_channels, columns)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return _join([self.pool(column) for column in self.fractal.columns(x)])


def fractalnet20(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """FractalNet of 20 layers for CIFAR. Larsson, Maire, Shakhnarovich: FractalNet, 1605.07648, section 4.

    [N, 3, 32, 32] to [N, 10]; without head [N, 512, 1, 1]. 33,724,618 parameters, 0.85 GMACs.

    Five blocks of three columns, widths 64, 128, 256, 512 and 512. The paper says 38.6 million, but by its own rule a
    block has 7 convolutions, of which 3 read its input, and these widths sum to 33.7 million weights: the generator
    that the authors released builds the same. Drop-path and dropout, which act in training only, are left out.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for number, width in enumerate((64, 128, 256, 512, 512), start=1):
        parts[f"block{number}"] = FractalBlock(channels, width, columns=3)
        channels = width
    return network(nn.Sequential(parts), lambda: pooled_linear(512, num_classes), head)


BUILDERS = (fractalnet20,)
