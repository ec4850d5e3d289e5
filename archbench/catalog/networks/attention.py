"""Residual attention networks (2017)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from archbench.catalog.networks.layers import bn_relu, conv, network, pooled_linear
from archbench.catalog.networks.preact import preact_bottleneck
from archbench.model.axes import Head


def _unit(in_channels: int, channels: int, stride: int = 1) -> nn.Module:
    return preact_bottleneck(in_channels, channels, stride, stride_at=3)


class Hourglass(nn.Module):
    """Figure 2's bottom-up top-down part: halves the resolution `halvings` times and comes back, shape kept.

    Two units work at the lowest resolution, one on each side above it, and one in the skip between those.
    """

    def __init__(self, channels: int, halvings: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.down = _unit(channels, channels)
        self.inner = Hourglass(channels, halvings - 1) if halvings > 1 else None
        self.skip = _unit(channels, channels) if halvings > 1 else None
        self.up = _unit(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.pool(x))
        if self.inner is not None and self.skip is not None:
            y = self.skip(y) + self.inner(y)
        return F.interpolate(self.up(y), size=x.shape[-2:], mode="bilinear", align_corners=True)


class AttentionModule(nn.Module):
    """Section 3: `(1 + mask) * trunk` between two residual units, with p, t, r = 1, 2, 1. Keeps the shape."""

    def __init__(self, channels: int, halvings: int) -> None:
        super().__init__()
        self.enter = _unit(channels, channels)
        self.trunk = nn.Sequential(_unit(channels, channels), _unit(channels, channels))
        self.mask = nn.Sequential(
            Hourglass(channels, halvings),
            bn_relu(channels),
            conv(channels, channels, 1),
            bn_relu(channels),
            conv(channels, channels, 1),
            nn.Sigmoid(),
        )
        self.leave = _unit(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave((1 + self.mask(x)) * self.trunk(x))  # type: ignore[no-any-return]


def _build(modules: tuple[int, int, int], num_classes: int, in_channels: int, head: Head) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(conv(in_channels, 64, 7, stride=2), bn_relu(64), nn.MaxPool2d(3, stride=2, padding=1))
    )
    channels = 64
    for number, count in enumerate(modules, start=1):
        width = 128 * 2**number
        attention = [AttentionModule(width, halvings=4 - number) for _ in range(count)]
        parts[f"stage{number}"] = nn.Sequential(_unit(channels, width, 1 if number == 1 else 2), *attention)
        channels = width
    parts["stage4"] = nn.Sequential(_unit(1024, 2048, 2), _unit(2048, 2048), _unit(2048, 2048))
    parts["final"] = bn_relu(2048)
    return network(nn.Sequential(parts), lambda: pooled_linear(2048, num_classes), head)


def residual_attention56(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Attention-56. Wang et al.: Residual attention network for image classification, 1704.06904, table 2.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 31,810,728 parameters, 6.3 GMACs (table: 31.9
    million, 6.2). Units as in the authors' released definitions, with the sigmoid of the paper where those have tanh.
    """
    return _build((1, 1, 1), num_classes, in_channels, head)


def residual_attention92(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Attention-92. 1704.06904, table 2; see `residual_attention56`.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 52,466,344 parameters, 10.5 GMACs. The table has
    51.3 million and 10.4, but the authors' released definition has exactly these layers (1, 2 and 3 attention
    modules), and other rewritings of it count the same.
    """
    return _build((1, 2, 3), num_classes, in_channels, head)


BUILDERS = (residual_attention56, residual_attention92)
