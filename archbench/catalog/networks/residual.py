"""ResNet for ImageNet (2015) as published, and the plain networks that it was compared with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from archbench.catalog.networks.layers import (
    PadChannels,
    Residual,
    Unit,
    bn_relu,
    conv,
    network,
    pooled_linear,
    stages,
)
from archbench.model.axes import Head


def basic_branch(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Two 3x3 convolutions, the first with the stride. Figure 5, left."""
    return nn.Sequential(
        conv(in_channels, channels, 3, stride), bn_relu(channels), conv(channels, channels, 3), nn.BatchNorm2d(channels)
    )  # fmt: skip


def zero_pad_shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Option A: every stride-th pixel, missing channels filled with zeros; no parameters."""
    if stride == 1 and channels == in_channels:
        return nn.Identity()
    return nn.Sequential(nn.AvgPool2d(1, stride), PadChannels(channels - in_channels))


def projection_shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Option B: a 1x1 convolution where the shape changes."""
    if stride == 1 and channels == in_channels:
        return nn.Identity()
    return nn.Sequential(conv(in_channels, channels, 1, stride), nn.BatchNorm2d(channels))


def plain_unit(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Two 3x3 convolutions without a shortcut: the plain nets that residual ones are compared with."""
    return nn.Sequential(basic_branch(in_channels, channels, stride), nn.ReLU(inplace=True))


def basic_unit_a(in_channels: int, channels: int, stride: int) -> nn.Module:
    """The same with the parameter-free shortcut (option A), as on CIFAR."""
    return Residual(
        basic_branch(in_channels, channels, stride), zero_pad_shortcut(in_channels, channels, stride)
    )  # fmt: skip


def _bottleneck_unit(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Figure 5, right, with the stride in the first 1x1 convolution, as the paper has it."""
    width = channels // 4
    branch = nn.Sequential(
        conv(in_channels, width, 1, stride),
        bn_relu(width),
        conv(width, width, 3),
        bn_relu(width),
        conv(width, channels, 1),
        nn.BatchNorm2d(channels),
    )
    return Residual(branch, projection_shortcut(in_channels, channels, stride))


def _build(
    unit: Unit, depths: Sequence[int], width: int, num_classes: int, in_channels: int, head: Head
) -> nn.Sequential:
    stem = nn.Sequential(conv(in_channels, 64, 7, stride=2), bn_relu(64), nn.MaxPool2d(3, stride=2, padding=1))
    widths = [width * factor for factor in (1, 2, 4, 8)]
    features = nn.Sequential(OrderedDict(stem=stem, **stages(unit, 64, widths, depths)))
    return network(features, lambda: pooled_linear(widths[-1], num_classes), head)


def plain18(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Plain 18-layer network. He, Zhang, Ren, Sun: Deep residual learning, 1512.03385, table 1 without shortcuts.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 512, 7, 7]. 11,515,688 parameters, 1.8 GMACs.
    """
    return _build(plain_unit, (2, 2, 2, 2), 64, num_classes, in_channels, head)


def plain34(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Plain 34-layer network. 1512.03385, figure 3 middle.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 512, 7, 7]. 21,623,848 parameters, 3.6 GMACs: exactly as many as
    `resnet34_optA`.
    """
    return _build(plain_unit, (3, 4, 6, 3), 64, num_classes, in_channels, head)


def resnet34_optA(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:  # noqa: N802
    """ResNet-34 with parameter-free shortcuts, option A. 1512.03385, table 3.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 512, 7, 7]. 21,623,848 parameters, 3.6 GMACs. The ResNet-34 of
    torchvision and timm has projections where the shape changes, option B.
    """
    return _build(basic_unit_a, (3, 4, 6, 3), 64, num_classes, in_channels, head)


def resnet50_v1(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-50 as published. 1512.03385, table 1.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 25,557,032 parameters, 3.86 GMACs: the figure of
    older texts and of Keras. torchvision and timm have the stride in the 3x3 convolution ("v1.5", 4.09 GMACs).
    """
    return _build(_bottleneck_unit, (3, 4, 6, 3), 256, num_classes, in_channels, head)


def resnet101_v1(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-101 as published. 1512.03385, table 1; see `resnet50_v1`.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 44,549,160 parameters, 7.57 GMACs.
    """
    return _build(_bottleneck_unit, (3, 4, 23, 3), 256, num_classes, in_channels, head)


def resnet152_v1(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-152 as published. 1512.03385, table 1; see `resnet50_v1`.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 60,192,808 parameters, 11.28 GMACs.
    """
    return _build(_bottleneck_unit, (3, 8, 36, 3), 256, num_classes, in_channels, head)


BUILDERS = (plain18, plain34, resnet34_optA, resnet50_v1, resnet101_v1, resnet152_v1)
