"""The CIFAR ResNets (2015) with option A shortcuts, and their plain counterparts."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from archbench.catalog.networks.layers import Unit, bn_relu, conv, network, pooled_linear, stages
from archbench.catalog.networks.residual import basic_unit_a, plain_unit
from archbench.model.axes import Head


def _build(unit: Unit, depth: int, num_classes: int, in_channels: int, head: Head) -> nn.Sequential:
    """6n + 2 weight layers: one convolution, three stages of n units of two, one linear layer."""
    stem = nn.Sequential(conv(in_channels, 16, 3), bn_relu(16))
    features = nn.Sequential(OrderedDict(stem=stem, **stages(unit, 16, (16, 32, 64), [(depth - 2) // 6] * 3)))
    return network(features, lambda: pooled_linear(64, num_classes), head)


def plain20_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Plain 20-layer CIFAR network. He, Zhang, Ren, Sun: Deep residual learning, 1512.03385, section 4.2, figure 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 269,722 parameters, 0.041 GMACs, as `resnet20_cifar`.
    """
    return _build(plain_unit, 20, num_classes, in_channels, head)


def plain56_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Plain 56-layer CIFAR network, which trains worse than the 20-layer one. 1512.03385, figures 1 and 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 853,018 parameters, 0.126 GMACs, as `resnet56_cifar`.
    """
    return _build(plain_unit, 56, num_classes, in_channels, head)


def plain110_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Plain 110-layer CIFAR network, whose error the paper leaves out of figure 6 as above 60 %. 1512.03385.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 1,727,962 parameters, 0.253 GMACs, as `resnet110_cifar`.
    """
    return _build(plain_unit, 110, num_classes, in_channels, head)


def resnet20_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-20 for CIFAR. He, Zhang, Ren, Sun: Deep residual learning, 1512.03385, section 4.2 and table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 269,722 parameters (table: 0.27 million), 0.041 GMACs.
    Shortcuts are option A; copies with projections (option B) have 272,474.
    """
    return _build(basic_unit_a, 20, num_classes, in_channels, head)


def resnet32_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-32 for CIFAR, option A. 1512.03385, table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 464,154 parameters (table: 0.46 million), 0.069 GMACs.
    """
    return _build(basic_unit_a, 32, num_classes, in_channels, head)


def resnet44_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-44 for CIFAR, option A. 1512.03385, table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 658,586 parameters (table: 0.66 million), 0.097 GMACs.
    """
    return _build(basic_unit_a, 44, num_classes, in_channels, head)


def resnet56_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-56 for CIFAR, option A. 1512.03385, table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 853,018 parameters (table: 0.85 million), 0.126 GMACs.
    """
    return _build(basic_unit_a, 56, num_classes, in_channels, head)


def resnet110_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-110 for CIFAR, option A. 1512.03385, table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 1,727,962 parameters (table: 1.7 million), 0.253 GMACs.
    """
    return _build(basic_unit_a, 110, num_classes, in_channels, head)


def resnet1202_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-1202 for CIFAR, option A. 1512.03385, table 6.

    [N, 3, 32, 32] to [N, 10]; without head [N, 64, 8, 8]. 19,421,274 parameters (table: 19.4 million), 2.83 GMACs.
    """
    return _build(basic_unit_a, 1202, num_classes, in_channels, head)


BUILDERS = (
    plain20_cifar,
    plain56_cifar,
    plain110_cifar,
    resnet20_cifar,
    resnet32_cifar,
    resnet44_cifar,
    resnet56_cifar,
    resnet110_cifar,
    resnet1202_cifar,
)
