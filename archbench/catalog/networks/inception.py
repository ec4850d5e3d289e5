"""Inception with batch normalisation (2015) and with residual connections (2016)."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

from archbench.catalog.networks.layers import Parallel, network, pooled_linear
from archbench.model.axes import Head

Size = int | tuple[int, int]


def _conv(in_channels: int, out_channels: int, kernel: Size, stride: int = 1, *, same: bool = True) -> nn.Sequential:
    """Convolution, batch normalisation, relu; padded to keep the resolution at stride 1 unless `same` is false."""
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (high // 2, wide // 2) if same else 0
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, (high, wide), stride, padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class _Row(NamedTuple):
    """One inception row of figure 5: 1x1, 3x3 and double 3x3 with their reductions, pooling and its projection.

    Without 1x1 and projection the module has stride 2 and its pooling passes the input through.
    """

    one: int
    reduce3: int
    three: int
    reduce33: int
    three3: int
    pool: str
    projection: int

    def build(self, in_channels: int) -> Parallel:
        stride = 1 if self.one else 2
        pool: nn.Module
        if self.pool == "avg":
            pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        else:
            pool = nn.MaxPool2d(3, stride, padding=1)
        branches: list[nn.Module] = [
            nn.Sequential(_conv(in_channels, self.reduce3, 1), _conv(self.reduce3, self.three, 3, stride)),
            nn.Sequential(
                _conv(in_channels, self.reduce33, 1),
                _conv(self.reduce33, self.three3, 3),
                _conv(self.three3, self.three3, 3, stride),
            ),
            nn.Sequential(pool, _conv(in_channels, self.projection, 1)) if self.projection else pool,
        ]
        if self.one:
            branches.insert(0, _conv(in_channels, self.one, 1))
        return Parallel(*branches)

    def out_channels(self, in_channels: int) -> int:
        return self.one + self.three + self.three3 + (self.projection or in_channels)


BN_INCEPTION = {
    "3a": _Row(64, 64, 64, 64, 96, "avg", 32),
    "3b": _Row(64, 64, 96, 64, 96, "avg", 64),
    "3c": _Row(0, 128, 160, 64, 96, "max", 0),
    "4a": _Row(224, 64, 96, 96, 128, "avg", 128),
    "4b": _Row(192, 96, 128, 96, 128, "avg", 128),
    "4c": _Row(160, 128, 160, 128, 160, "avg", 96),
    "4d": _Row(96, 128, 192, 160, 192, "avg", 96),
    "4e": _Row(0, 128, 192, 192, 256, "max", 0),
    "5a": _Row(352, 192, 320, 160, 224, "avg", 128),
    "5b": _Row(352, 192, 320, 192, 224, "max", 128),
}


def bn_inception(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """BN-Inception. Ioffe, Szegedy: Batch normalization, 1502.03167, figure 5.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 1024, 7, 7]. 11,194,984 parameters, 2.02 GMACs.

    The widely used converted weights (11,295,240 parameters, the usual "11.3 million") have 128 pool projections in 4c
    and 4d where the figure has 96 (its 576 output channels allow no other), and biases under batch normalisation: two
    departures that this network does not share. Departure: the first convolution is a plain 7x7, as in
    every public copy; the authors' own was depthwise separable with multiplier 8 (appendix).
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(
            _conv(in_channels, 64, 7, stride=2),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            _conv(64, 64, 1),
            _conv(64, 192, 3),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
        )
    )
    channels = 192
    for name, row in BN_INCEPTION.items():
        parts[f"inception{name}"] = row.build(channels)
        channels = row.out_channels(channels)
    return network(nn.Sequential(parts), lambda: pooled_linear(channels, num_classes), head)


class _InceptionResidual(nn.Module):
    """`relu(x + scale * up(branches(x)))`; `up` is a 1x1 convolution with bias and without normalisation.

    The scale is section 3.3's remedy for units that die: between 0.1 and 0.3.
    """

    def __init__(self, branches: Parallel, mixed: int, channels: int, scale: float) -> None:
        super().__init__()
        self.branches = branches
        self.up = nn.Conv2d(mixed, channels, 1)
        self.relu = nn.ReLU(inplace=True)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.scale * self.up(self.branches(x)))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


def _unit_a() -> nn.Module:
    """Figure 10, at 35x35."""
    branches = Parallel(
        _conv(256, 32, 1),
        nn.Sequential(_conv(256, 32, 1), _conv(32, 32, 3)),
        nn.Sequential(_conv(256, 32, 1), _conv(32, 32, 3), _conv(32, 32, 3)),
    )
    return _InceptionResidual(branches, 96, 256, scale=0.17)


def _unit_b() -> nn.Module:
    """Figure 11, at 17x17."""
    branches = Parallel(
        _conv(896, 128, 1),
        nn.Sequential(_conv(896, 128, 1), _conv(128, 128, (1, 7)), _conv(128, 128, (7, 1))),
    )
    return _InceptionResidual(branches, 256, 896, scale=0.10)


def _unit_c() -> nn.Module:
    """Figure 13, at 8x8."""
    branches = Parallel(
        _conv(1792, 192, 1),
        nn.Sequential(_conv(1792, 192, 1), _conv(192, 192, (1, 3)), _conv(192, 192, (3, 1))),
    )
    return _InceptionResidual(branches, 384, 1792, scale=0.20)


def _reduction_a() -> nn.Module:
    """Figure 7 with k, l, m, n = 192, 192, 256, 384 (table 1): 256 to 896 channels, 35x35 to 17x17."""
    return Parallel(
        nn.MaxPool2d(3, stride=2),
        _conv(256, 384, 3, stride=2, same=False),
        nn.Sequential(_conv(256, 192, 1), _conv(192, 192, 3), _conv(192, 256, 3, stride=2, same=False)),
    )


def _reduction_b() -> nn.Module:
    """Figure 12: 896 to 1792 channels, 17x17 to 8x8."""
    return Parallel(
        nn.MaxPool2d(3, stride=2),
        nn.Sequential(_conv(896, 256, 1), _conv(256, 384, 3, stride=2, same=False)),
        nn.Sequential(_conv(896, 256, 1), _conv(256, 256, 3, stride=2, same=False)),
        nn.Sequential(_conv(896, 256, 1), _conv(256, 256, 3), _conv(256, 256, 3, stride=2, same=False)),
    )


def inception_resnet_v1(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Inception-ResNet-v1. Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4 ..., 1602.07261, figures 7 and 10 to 15.

    [N, 3, 299, 299] to [N, 1000]; without head [N, 1792, 8, 8]. 22,756,328 parameters, 6.21 GMACs; the paper
    gives neither. The copies made for FaceNet have a sixth C unit (1,600,768 more). Residual scales, of which the paper
    gives only the range, are those of the authors' released v2.
    """
    stem = nn.Sequential(
        _conv(in_channels, 32, 3, stride=2, same=False),
        _conv(32, 32, 3, same=False),
        _conv(32, 64, 3),
        nn.MaxPool2d(3, stride=2),
        _conv(64, 80, 1),
        _conv(80, 192, 3, same=False),
        _conv(192, 256, 3, stride=2, same=False),
    )
    features = nn.Sequential(
        OrderedDict(
            stem=stem,
            stage1=nn.Sequential(*(_unit_a() for _ in range(5))),
            reduction1=_reduction_a(),
            stage2=nn.Sequential(*(_unit_b() for _ in range(10))),
            reduction2=_reduction_b(),
            stage3=nn.Sequential(*(_unit_c() for _ in range(5))),
        )
    )
    return network(features, lambda: pooled_linear(1792, num_classes, dropout=0.2), head)


BUILDERS = (bn_inception, inception_resnet_v1)
