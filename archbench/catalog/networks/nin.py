"""Network in Network (2013): a small perceptron behind every convolution, and no fully connected layer."""

from __future__ import annotations

from torch import nn

from archbench.catalog.networks.layers import network
from archbench.model.axes import Head


def _mlpconv(
    in_channels: int, widths: tuple[int, int, int], kernel_size: int, stride: int = 1, padding: int = 0
) -> nn.Sequential:
    """A convolution and two 1x1 convolutions, each with relu."""
    first, second, third = widths
    return nn.Sequential(
        nn.Conv2d(in_channels, first, kernel_size, stride, padding),
        nn.ReLU(inplace=True),
        nn.Conv2d(first, second, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(second, third, 1),
        nn.ReLU(inplace=True),
    )


def _average() -> nn.Sequential:
    """The classifier: every class has a map of its own, whose average is its score."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def nin_imagenet(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """NiN for ImageNet. Lin, Chen, Yan: Network in network, 1312.4400.

    [N, 3, 224, 224] to [N, 1000]; without head the class maps, [N, 1000, 6, 6]. 7,595,176 parameters, 1.10 GMACs.

    The paper has no ImageNet network: this is the authors' released one, whose weights everybody used (four mlpconv
    layers). Its pooling rounds up; where 0.97 GMACs are quoted, pooling rounded down.
    """
    features = nn.Sequential(
        _mlpconv(in_channels, (96, 96, 96), 11, stride=4),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        _mlpconv(96, (256, 256, 256), 5, padding=2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        _mlpconv(256, (384, 384, 384), 3, padding=1),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.Dropout(0.5),
        _mlpconv(384, (1024, 1024, num_classes), 3, padding=1),
    )
    return network(features, _average, head)


def nin_cifar10(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """NiN for CIFAR-10. Lin, Chen, Yan: Network in network, 1312.4400, section 4.

    [N, 3, 32, 32] to [N, 10]; without head the class maps, [N, 10, 8, 8]. 966,986 parameters, 0.22 GMACs.

    The widths are those of the authors' released network; the paper gives only the number of layers.
    """
    features = nn.Sequential(
        _mlpconv(in_channels, (192, 160, 96), 5, padding=2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.Dropout(0.5),
        _mlpconv(96, (192, 192, 192), 5, padding=2),
        nn.AvgPool2d(3, stride=2, ceil_mode=True),
        nn.Dropout(0.5),
        _mlpconv(192, (192, 192, num_classes), 3, padding=1),
    )
    return network(features, _average, head)


BUILDERS = (nin_imagenet, nin_cifar10)
