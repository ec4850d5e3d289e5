"""ResNets (2015) as published, the plain networks that they were compared with, pre-activation ones (2016); wide ones.

The last put their parameters into width: WRN, PyramidNet, ResNeXt (2016), all for CIFAR.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from archbench.catalog.networks.layers import (
    PadChannels,
    PreActivation,
    Residual,
    Unit,
    bn_relu,
    bottleneck,
    conv,
    imagenet_stem,
    pooled_network,
    projection_shortcut,
    stages,
)
from archbench.model.axes import Head


def _basic_branch(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Two 3x3 convolutions, the first with the stride. Figure 5, left."""
    return nn.Sequential(
        conv(in_channels, channels, 3, stride), bn_relu(channels), conv(channels, channels, 3), nn.BatchNorm2d(channels)
    )  # fmt: skip


def _plain_unit(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Two 3x3 convolutions without a shortcut: the plain nets that residual ones are compared with."""
    return nn.Sequential(_basic_branch(in_channels, channels, stride), nn.ReLU(inplace=True))


def _basic_unit_a(in_channels: int, channels: int, stride: int) -> nn.Module:
    """The same with the shortcut of option A, as on CIFAR: every stride-th pixel, missing channels zero."""
    same = stride == 1 and channels == in_channels
    shortcut = nn.Identity() if same else nn.Sequential(nn.AvgPool2d(1, stride), PadChannels(channels - in_channels))
    return Residual(_basic_branch(in_channels, channels, stride), shortcut)


def _bottleneck_unit(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Figure 5, right, with the stride in the first 1x1 convolution, as the paper has it."""
    branch = bottleneck(in_channels, channels // 4, channels, (stride, 1)).append(nn.BatchNorm2d(channels))
    return Residual(branch, projection_shortcut(in_channels, channels, stride))


def _imagenet(
    unit: Unit, depths: Sequence[int], width: int, num_classes: int, in_channels: int, head: Head
) -> nn.Sequential:
    widths = [width * factor for factor in (1, 2, 4, 8)]
    parts = {"stem": imagenet_stem(in_channels), **stages(unit, 64, widths, depths)}
    return pooled_network(parts, widths[-1], num_classes, head)


def plain18(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Plain 18-layer network. He, Zhang, Ren, Sun: Deep residual learning, 1512.03385, table 1 without shortcuts.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 512, 7, 7]. 11,515,688 parameters, 1.8 GMACs.
    """
    return _imagenet(_plain_unit, (2, 2, 2, 2), 64, num_classes, in_channels, head)


def plain34(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Plain 34-layer network. 1512.03385, figure 3 middle.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 512, 7, 7]. 21,623,848 parameters, 3.6 GMACs: exactly as many as
    `resnet34_optA`.
    """
    return _imagenet(_plain_unit, (3, 4, 6, 3), 64, num_classes, in_channels, head)


def resnet34_optA(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:  # noqa: N802
    """ResNet-34 with parameter-free shortcuts, option A. 1512.03385, table 3.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 512, 7, 7]. 21,623,848 parameters, 3.6 GMACs. The ResNet-34 of
    torchvision and timm has projections where the shape changes, option B.
    """
    return _imagenet(_basic_unit_a, (3, 4, 6, 3), 64, num_classes, in_channels, head)


def resnet50_v1(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-50 as published. 1512.03385, table 1.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 25,557,032 parameters, 3.86 GMACs: the figure of
    older texts and of Keras. torchvision and timm have the stride in the 3x3 convolution ("v1.5", 4.09 GMACs).
    """
    return _imagenet(_bottleneck_unit, (3, 4, 6, 3), 256, num_classes, in_channels, head)


def resnet101_v1(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-101 as published. 1512.03385, table 1; see `resnet50_v1`.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 44,549,160 parameters, 7.57 GMACs.
    """
    return _imagenet(_bottleneck_unit, (3, 4, 23, 3), 256, num_classes, in_channels, head)


def resnet152_v1(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-152 as published. 1512.03385, table 1; see `resnet50_v1`.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 60,192,808 parameters, 11.28 GMACs.
    """
    return _imagenet(_bottleneck_unit, (3, 8, 36, 3), 256, num_classes, in_channels, head)


def _cifar(unit: Unit, depth: int, num_classes: int, in_channels: int, head: Head) -> nn.Sequential:
    """6n + 2 weight layers: one convolution, three stages of n units of two, one linear layer."""
    stem = nn.Sequential(conv(in_channels, 16, 3), bn_relu(16))
    parts = {"stem": stem, **stages(unit, 16, (16, 32, 64), [(depth - 2) // 6] * 3)}
    return pooled_network(parts, 64, num_classes, head)


def plain20_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Plain 20-layer CIFAR network. He, Zhang, Ren, Sun: Deep residual learning, 1512.03385, section 4.2, figure 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 269,722 parameters, 0.041 GMACs, as `resnet20_cifar`.
    """
    return _cifar(_plain_unit, 20, num_classes, in_channels, head)


def plain56_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Plain 56-layer CIFAR network, which trains worse than the 20-layer one. 1512.03385, figures 1 and 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 853,018 parameters, 0.126 GMACs, as `resnet56_cifar`.
    """
    return _cifar(_plain_unit, 56, num_classes, in_channels, head)


def plain110_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Plain 110-layer CIFAR network, whose error the paper leaves out of figure 6 as above 60 %. 1512.03385.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 1,727,962 parameters, 0.253 GMACs, as `resnet110_cifar`.
    """
    return _cifar(_plain_unit, 110, num_classes, in_channels, head)


def resnet20_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-20 for CIFAR. He, Zhang, Ren, Sun: Deep residual learning, 1512.03385, section 4.2 and table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 269,722 parameters (table: 0.27 million), 0.041 GMACs.
    Shortcuts are option A; copies with projections (option B) have 272,474.
    """
    return _cifar(_basic_unit_a, 20, num_classes, in_channels, head)


def resnet32_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-32 for CIFAR, option A. 1512.03385, table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 464,154 parameters (table: 0.46 million), 0.069 GMACs.
    """
    return _cifar(_basic_unit_a, 32, num_classes, in_channels, head)


def resnet44_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-44 for CIFAR, option A. 1512.03385, table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 658,586 parameters (table: 0.66 million), 0.097 GMACs.
    """
    return _cifar(_basic_unit_a, 44, num_classes, in_channels, head)


def resnet56_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-56 for CIFAR, option A. 1512.03385, table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 853,018 parameters (table: 0.85 million), 0.126 GMACs.
    """
    return _cifar(_basic_unit_a, 56, num_classes, in_channels, head)


def resnet110_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-110 for CIFAR, option A. 1512.03385, table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 1,727,962 parameters (table: 1.7 million), 0.253 GMACs.
    """
    return _cifar(_basic_unit_a, 110, num_classes, in_channels, head)


def resnet1202_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-1202 for CIFAR, option A. 1512.03385, table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 19,421,274 parameters (table: 19.4 million), 2.83 GMACs.
    """
    return _cifar(_basic_unit_a, 1202, num_classes, in_channels, head)


def _preactivated(in_channels: int, channels: int, stride: int) -> nn.Module:
    """1x1, 3x3, 1x1 with normalisation and relu before each, the stride in the first."""
    return PreActivation(in_channels, channels, stride, bottleneck(in_channels, channels // 4, channels, (stride, 1)))


def _preactivated_cifar(depth: int, num_classes: int, in_channels: int, head: Head) -> nn.Sequential:
    """9n + 2 weight layers: one convolution, three stages of n units of three, one linear layer."""
    units = stages(_preactivated, 16, (64, 128, 256), [(depth - 2) // 9] * 3)
    return pooled_network({"stem": conv(in_channels, 16, 3), **units, "final": bn_relu(256)}, 256, num_classes, head)


def preact_resnet164_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Pre-activation ResNet-164. He, Zhang, Ren, Sun: Identity mappings in deep residual networks, 1603.05027, table 4.

    [N, 3, 32, 32] to [N, 10]; without head [N, 256, 8, 8]. 1,703,258 parameters (paper: 1.7 million), 0.245 GMACs.
    Bottleneck units with the stride in the first 1x1, and shared pre-activation where the shape changes, as in the
    paper's released code.
    """
    return _preactivated_cifar(164, num_classes, in_channels, head)


def preact_resnet1001_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Pre-activation ResNet-1001. 1603.05027, table 4; see `preact_resnet164_cifar`.

    [N, 3, 32, 32] to [N, 10]; without head [N, 256, 8, 8]. 10,327,706 parameters, 1.49 GMACs. The paper's 10.2
    million are the 10,178,490 outside batch normalisation.
    """
    return _preactivated_cifar(1001, num_classes, in_channels, head)


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
