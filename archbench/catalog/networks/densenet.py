"""DenseNets (2016) that neither library carries: DenseNet-264 and the CIFAR ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from archbench.catalog.networks.layers import bn_relu, conv, imagenet_stem, pooled_network
from archbench.model.axes import Head


class DenseLayer(nn.Module):
    """Appends `growth` new channels to its input: [N, C, H, W] to [N, C + growth, H, W].

    BN, relu, 3x3; with `bottleneck` behind BN, relu, 1x1 to 4 * growth channels (the "B" of DenseNet-B).
    """

    def __init__(self, in_channels: int, growth: int, *, bottleneck: bool) -> None:
        super().__init__()
        width = 4 * growth
        reduction = [bn_relu(in_channels), conv(in_channels, width, 1)] if bottleneck else []
        channels = width if bottleneck else in_channels
        self.transform = nn.Sequential(*reduction, bn_relu(channels), conv(channels, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.transform(x)], dim=1)


def _dense_stages(
    channels: int, growth: int, depths: Sequence[int], *, bottleneck: bool, compression: float
) -> tuple[dict[str, nn.Module], int]:
    """Dense blocks with transitions between them, and the number of channels that leave the last."""
    parts: dict[str, nn.Module] = {}
    for number, depth in enumerate(depths, start=1):
        layers = [DenseLayer(channels + i * growth, growth, bottleneck=bottleneck) for i in range(depth)]
        parts[f"block{number}"] = nn.Sequential(*layers)
        channels += depth * growth
        if number < len(depths):
            kept = int(channels * compression)
            parts[f"transition{number}"] = nn.Sequential(
                bn_relu(channels), conv(channels, kept, 1), nn.AvgPool2d(2)
            )  # fmt: skip
            channels = kept
    parts["final"] = bn_relu(channels)
    return parts, channels


def densenet264(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """DenseNet-264 (k = 32). Huang, Liu, van der Maaten, Weinberger: DenseNet, 1608.06993, table 1.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2688, 7, 7]. 33,337,704 parameters, 5.8 GMACs. timm's
    `densenet264d` is another network (k = 48, deep stem).
    """
    parts, channels = _dense_stages(64, 32, (6, 12, 64, 48), bottleneck=True, compression=0.5)
    return pooled_network({"stem": imagenet_stem(in_channels), **parts}, channels, num_classes, head)


def cifar_densenet(
    depth: int, growth: int, num_classes: int, in_channels: int, head: Head, *, compact: bool
) -> nn.Sequential:
    """Three blocks; `compact` is DenseNet-BC: bottlenecks, half the channels dropped in transitions, wider stem."""
    stem = 2 * growth if compact else 16
    layers = (depth - 4) // (6 if compact else 3)
    parts, channels = _dense_stages(stem, growth, [layers] * 3, bottleneck=compact, compression=0.5 if compact else 1.0)
    return pooled_network({"stem": conv(in_channels, stem, 3), **parts}, channels, num_classes, head)


def densenet40_k12_cifar(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """DenseNet, 40 layers, growth 12, without bottlenecks. 1608.06993, table 2.

    [N, 3, 32, 32] to [N, 10]; without head [N, 448, 8, 8]. 1,019,722 parameters (table: 1.0 million), 0.27 GMACs.
    Here and in the other CIFAR DenseNets the dropout that the paper uses without data augmentation is left out.
    """
    return cifar_densenet(40, 12, num_classes, in_channels, head, compact=False)


def densenetBC100_k12_cifar(  # noqa: N802
    num_classes: int = 10, in_channels: int = 3, head: Head = "classifier"
) -> nn.Module:
    """DenseNet-BC, 100 layers, growth 12. 1608.06993, table 2.

    [N, 3, 32, 32] to [N, 10]; without head [N, 342, 8, 8]. 769,162 parameters (table: 0.8 million), 0.29 GMACs.
    """
    return cifar_densenet(100, 12, num_classes, in_channels, head, compact=True)


def densenetBC250_k24_cifar(  # noqa: N802
    num_classes: int = 10, in_channels: int = 3, head: Head = "classifier"
) -> nn.Module:
    """DenseNet-BC, 250 layers, growth 24. 1608.06993, table 2.

    [N, 3, 32, 32] to [N, 10]; without head [N, 1734, 8, 8]. 15,324,406 parameters (table: 15.3 million), 5.4 GMACs.
    """
    return cifar_densenet(250, 24, num_classes, in_channels, head, compact=True)


def densenetBC190_k40_cifar(  # noqa: N802
    num_classes: int = 10, in_channels: int = 3, head: Head = "classifier"
) -> nn.Module:
    """DenseNet-BC, 190 layers, growth 40. 1608.06993, table 2.

    [N, 3, 32, 32] to [N, 10]; without head [N, 2190, 8, 8]. 25,624,430 parameters (table: 25.6 million), 9.3 GMACs.
    """
    return cifar_densenet(190, 40, num_classes, in_channels, head, compact=True)
