"""Highway networks (2015): gated shortcuts, before residual ones."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archbench.catalog.networks.layers import network
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


BUILDERS = (highway19,)
