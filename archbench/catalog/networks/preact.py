"""Pre-activation ResNets for CIFAR (2016)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from archbench.catalog.networks.layers import PreActivation, bn_relu, conv, network, pooled_linear, stages
from archbench.model.axes import Head


def preact_bottleneck(in_channels: int, channels: int, stride: int, stride_at: int = 1) -> PreActivation:
    """1x1, 3x3, 1x1 with normalisation and relu before each; `stride_at` 1 or 3 is the kernel that strides."""
    width = channels // 4
    branch = nn.Sequential(
        conv(in_channels, width, 1, stride if stride_at == 1 else 1),
        bn_relu(width),
        conv(width, width, 3, stride if stride_at == 3 else 1),
        bn_relu(width),
        conv(width, channels, 1),
    )
    same = stride == 1 and channels == in_channels
    return PreActivation(in_channels, branch, None if same else conv(in_channels, channels, 1, stride))


def _build(depth: int, num_classes: int, in_channels: int, head: Head) -> nn.Sequential:
    """9n + 2 weight layers: one convolution, three stages of n units of three, one linear layer."""
    units = stages(preact_bottleneck, 16, (64, 128, 256), [(depth - 2) // 9] * 3)
    features = nn.Sequential(OrderedDict(stem=conv(in_channels, 16, 3), **units, final=bn_relu(256)))
    return network(features, lambda: pooled_linear(256, num_classes), head)


def preact_resnet164_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Pre-activation ResNet-164. He, Zhang, Ren, Sun: Identity mappings in deep residual networks, 1603.05027, table 4.

    [N, 3, 32, 32] to [N, 10]; without head [N, 256, 8, 8]. 1,703,258 parameters (paper: 1.7 million), 0.245 GMACs.
    Bottleneck units with the stride in the first 1x1, and shared pre-activation where the shape changes, as in the
    paper's released code.
    """
    return _build(164, num_classes, in_channels, head)


def preact_resnet1001_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Pre-activation ResNet-1001. 1603.05027, table 4; see `preact_resnet164_cifar`.

    [N, 3, 32, 32] to [N, 10]; without head [N, 256, 8, 8]. 10,327,706 parameters, 1.49 GMACs. The paper's 10.2
    million are the 10,178,490 outside batch normalisation.
    """
    return _build(1001, num_classes, in_channels, head)


BUILDERS = (preact_resnet164_cifar, preact_resnet1001_cifar)
