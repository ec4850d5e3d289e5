"""Networks for CIFAR that put their parameters into width: WRN (2016), PyramidNet (2016), ResNeXt (2016)."""

from __future__ import annotations

from torch import nn

from archbench.catalog.networks.layers import (
    PadChannels,
    PreActivation,
    Residual,
    Unit,
    bn_relu,
    bottleneck,
    conv,
    pooled_network,
    projection_shortcut,
    stages,
)
from archbench.model.axes import Head


def wide_branch(in_channels: int, channels: int, stride: int, dropout: float = 0.0) -> nn.Sequential:
    """Branch of a wide residual unit: two 3x3 convolutions, dropout between them."""
    between: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(
        conv(in_channels, channels, 3, stride), bn_relu(channels), *between, conv(channels, channels, 3)
    )


def wide_network(unit: Unit, num_classes: int, in_channels: int, head: Head) -> nn.Sequential:
    """28 layers, ten times as wide as a ResNet for CIFAR."""
    units = stages(unit, 16, (160, 320, 640), (4, 4, 4))
    return pooled_network({"stem": conv(in_channels, 16, 3), **units, "final": bn_relu(640)}, 640, num_classes, head)


def wrn28_10_cifar(
    num_classes: int = 10, in_channels: int = 3, head: Head = "classifier", *, dropout: float = 0.0
) -> nn.Module:
    """WRN-28-10. Zagoruyko, Komodakis: Wide residual networks, 1605.07146, tables 1 and 5.

    [N, 3, 32, 32] to [N, 10]; without head [N, 640, 8, 8]. 36,479,194 parameters (paper: 36.5 million), 5.24 GMACs.
    The paper's better figures have dropout 0.3 between the convolutions of a unit.
    """

    def unit(in_channels: int, channels: int, stride: int) -> nn.Module:
        return PreActivation(in_channels, channels, stride, wide_branch(in_channels, channels, stride, dropout))

    return wide_network(unit, num_classes, in_channels, head)


def _pyramid_unit(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Figure 6(d): normalisation first and last, one relu, zero-padded shortcut."""
    branch = nn.Sequential(
        nn.BatchNorm2d(in_channels),
        conv(in_channels, channels, 3, stride),
        bn_relu(channels),
        conv(channels, channels, 3),
        nn.BatchNorm2d(channels),
    )
    pad = PadChannels(channels - in_channels)
    return Residual(branch, nn.Sequential(nn.AvgPool2d(2), pad) if stride == 2 else pad, activate=False)


def pyramidnet110_a270(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """PyramidNet-110, additive, alpha 270. Han, Kim, Kim: Deep pyramidal residual networks, 1610.02915, table 4.

    [N, 3, 32, 32] to [N, 10]; without head [N, 286, 8, 8]. 28,485,477 parameters, 4.73 GMACs.

    Each of the 54 units adds 270 / 54 = 5 channels exactly, so no rule of rounding can explain the paper's 28.3
    million; 28,485,477 is also what the authors' released Torch code builds. For alpha 48 and 84, too, that code
    builds more than the table says: 1.77 and 3.90 for 1.7 and 3.8 million.
    """
    units_per_stage, widening = 18, 270
    step = widening // (3 * units_per_stage)
    channels = 16
    parts: dict[str, nn.Module] = {"stem": nn.Sequential(conv(in_channels, channels, 3), nn.BatchNorm2d(channels))}
    for number in range(3):
        units = []
        for index in range(units_per_stage):
            units.append(_pyramid_unit(channels, channels + step, 2 if number > 0 and index == 0 else 1))
            channels += step
        parts[f"stage{number + 1}"] = nn.Sequential(*units)
    parts["final"] = bn_relu(channels)
    return pooled_network(parts, channels, num_classes, head)


def _resnext_unit(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Figure 3(c) with 8 groups of 64 channels at 256 output channels, growing in proportion."""
    width = 8 * 64 * channels // 256
    branch = bottleneck(in_channels, width, channels, (1, stride), groups=8).append(nn.BatchNorm2d(channels))
    return Residual(branch, projection_shortcut(in_channels, channels, stride))


def resnext29_8x64d_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNeXt-29, 8x64d. Xie, Girshick, Dollar, Tu, He: Aggregated residual transformations, 1611.05431, table 7.

    [N, 3, 32, 32] to [N, 10]; without head [N, 1024, 8, 8]. 34,426,698 parameters (paper: 34.4 million), 5.4 GMACs.
    """
    stem = nn.Sequential(conv(in_channels, 64, 3), bn_relu(64))
    parts = {"stem": stem, **stages(_resnext_unit, 64, (256, 512, 1024), (3, 3, 3))}
    return pooled_network(parts, 1024, num_classes, head)
