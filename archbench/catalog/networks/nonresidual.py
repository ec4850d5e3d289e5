"""Depth by other ways than residual units: highway networks (2015) with gates, FractalNet (2016) with many paths."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archbench.catalog.networks.layers import bn_relu, conv, network, pooled_network
from archbench.model.axes import Head


class HighwayConv(nn.Module):
    """`t * relu(H(x)) + (1 - t) * x` with `t = sigmoid(T(x))`; H and T are 3x3 convolutions. Keeps the shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, F.relu(self.transform(x)), torch.sigmoid(self.gate(x)))


def _stage(in_channels: int, widths: tuple[int, ...]) -> list[nn.Module]:
    """Highway layers; a plain convolution where the number of channels changes, since a gate cannot."""
    layers: list[nn.Module] = []
    channels = in_channels
    for width in widths:
        if width == channels:
            layers.append(HighwayConv(width))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        channels = width
    return layers


def highway19(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Highway-19 for CIFAR. Srivastava, Greff, Schmidhuber: Training very deep networks, 1507.06228, table 2.

    [N, 3, 32, 32] to [N, 10]; without head [N, 128, 8, 8]. 2,342,406 parameters (paper: "~2.3M").

    The paper says only that its networks follow the FitNets of 1412.6550: this is the 19-layer FitNet (seventeen 3x3
    convolutions, one hidden layer of 500, one output) with a highway layer in place of each maxout convolution that
    keeps its number of channels. Gates start at bias -2, so that the untrained network mostly copies. Dropout is left
    out: the paper does not give its rates.
    """
    features = nn.Sequential(
        OrderedDict(
            stage1=nn.Sequential(*_stage(in_channels, (32, 32, 32, 48, 48)), nn.MaxPool2d(2)),
            stage2=nn.Sequential(*_stage(48, (80,) * 6), nn.MaxPool2d(2)),
            stage3=nn.Sequential(*_stage(80, (128,) * 6)),
        )
    )

    def classifier() -> nn.Module:
        return nn.Sequential(
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(1),
            nn.Linear(128, 500),
            nn.ReLU(inplace=True),
            nn.Linear(500, num_classes),
        )

    net = network(features, classifier, head)
    for module in net.modules():
        if isinstance(module, HighwayConv):
            assert module.gate.bias is not None
            nn.init.constant_(module.gate.bias, -2.0)
    return net


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
        self.short = nn.Sequential(conv(in_channels, out_channels, 3), bn_relu(out_channels))
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
    parts: dict[str, nn.Module] = {}
    channels = in_channels
    for number, width in enumerate((64, 128, 256, 512, 512), start=1):
        parts[f"block{number}"] = FractalBlock(channels, width, columns=3)
        channels = width
    return pooled_network(parts, 512, num_classes, head)
