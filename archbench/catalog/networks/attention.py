"""Attention on residual networks: residual attention (2017); CBAM, scSE and CMPE-SE (2018), which weigh maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archbench.catalog.networks.layers import (
    PreActivation,
    bn_relu,
    bottleneck,
    conv,
    he_init,
    imagenet_stem,
    pooled_network,
)
from archbench.catalog.networks.residual import wide_branch, wide_network
from archbench.model.axes import Head


def _unit(in_channels: int, channels: int, stride: int = 1) -> nn.Module:
    return PreActivation(in_channels, channels, stride, bottleneck(in_channels, channels // 4, channels, (1, stride)))


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


def _residual_attention(modules: tuple[int, int, int], num_classes: int, in_channels: int, head: Head) -> nn.Sequential:
    parts: dict[str, nn.Module] = {"stem": imagenet_stem(in_channels)}
    channels = 64
    for number, count in enumerate(modules, start=1):
        width = 128 * 2**number
        attention = [AttentionModule(width, halvings=4 - number) for _ in range(count)]
        parts[f"stage{number}"] = nn.Sequential(_unit(channels, width, 1 if number == 1 else 2), *attention)
        channels = width
    parts["stage4"] = nn.Sequential(_unit(1024, 2048, 2), _unit(2048, 2048), _unit(2048, 2048))
    parts["final"] = bn_relu(2048)
    return pooled_network(parts, 2048, num_classes, head)


def residual_attention56(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Attention-56. Wang et al.: Residual attention network for image classification, 1704.06904, table 2.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 31,810,728 parameters, 6.3 GMACs (table: 31.9
    million, 6.2). Units as in the authors' released definitions, with the sigmoid of the paper where those have tanh.
    """
    return _residual_attention((1, 1, 1), num_classes, in_channels, head)


def residual_attention92(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Attention-92. 1704.06904, table 2; see `residual_attention56`.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 52,466,344 parameters, 10.5 GMACs. The table has
    51.3 million and 10.4, but the authors' released definition has exactly these layers (1, 2 and 3 attention
    modules), and other rewritings of it count the same.
    """
    return _residual_attention((1, 2, 3), num_classes, in_channels, head)


class ScSE(nn.Module):
    """Concurrent spatial and channel squeeze and excitation, 1803.02579, figure 1: [N, C, H, W], shape kept.

    Takes `device` and `dtype` as timm passes them to its attention layers.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        width = max(1, channels // reduction)
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, width, 1, device=device, dtype=dtype),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, channels, 1, device=device, dtype=dtype),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(nn.Conv2d(channels, 1, 1, device=device, dtype=dtype), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.channel(x) + x * self.spatial(x)  # type: ignore[no-any-return]


def scse(in_channels: int = 64, *, reduction: int = 2) -> nn.Module:
    """The scSE block alone. Roy, Navab, Wachinger: Concurrent spatial and channel squeeze & excitation, 1803.02579.

    [N, 64, 56, 56] to the same. 4,257 parameters. Reduction 2 and 64 channels are the paper's, whose blocks sit in
    segmentation networks.
    """
    return he_init(ScSE(in_channels, reduction))


def _timm_resnet50(attention: str | type[nn.Module], num_classes: int, in_channels: int, head: Head) -> nn.Module:
    import timm  # Two seconds, which the other networks need not wait for.

    no_head = {"num_classes": 0, "global_pool": ""} if head == "none" else {"num_classes": num_classes}
    net: nn.Module = timm.create_model(
        "resnet50", pretrained=False, in_chans=in_channels, block_args={"attn_layer": attention}, **no_head
    )
    return net


def scse_resnet50(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-50 with an scSE block at the end of every residual branch; the block is 1803.02579.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 28,103,144 parameters, 4.10 GMACs. The paper has
    segmentation networks only: this is timm's `resnet50` with the block where SE-ResNet has SE, and SE's reduction of
    16.
    """
    return _timm_resnet50(ScSE, num_classes, in_channels, head)


def cbam_resnet50(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ResNet-50 with CBAM in every unit. Woo, Park, Lee, Kweon: CBAM, 1807.06521, table 4.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 2048, 7, 7]. 28,073,576 parameters (paper: 28.09 million). timm's
    `resnet50` with timm's CBAM layer; its stride is in the 3x3 convolution, so 4.1 GMACs where the paper has 3.86.
    """
    return _timm_resnet50("cbam", num_classes, in_channels, head)


class InnerImaging(nn.Module):
    """The excitation of CMPE-SE in its folded form (3x3 filters): two [N, C, H, W] to weights [N, C, 1, 1].

    The channel means of residual and identity, folded into rows that alternate between the two, form a picture of
    2 * rows by C / rows on which 3x3 filters see channels of both compete.
    """

    def __init__(self, channels: int, rows: int, reduction: int = 16) -> None:
        super().__init__()
        width = channels // reduction
        self.rows = rows
        self.filters = nn.Sequential(nn.Conv2d(1, width, 3, bias=False), nn.BatchNorm2d(width))
        self.excite = nn.Sequential(
            nn.Linear((2 * rows - 2) * (channels // rows - 2), width, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(width, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, residual: Tensor, identity: Tensor) -> Tensor:
        means = [x.mean(dim=(2, 3)).view(x.shape[0], self.rows, -1) for x in (residual, identity)]
        picture = torch.stack(means, dim=2).flatten(1, 2).unsqueeze(1)
        seen = self.filters(picture).mean(dim=1).flatten(1)
        weights: Tensor = self.excite(seen)
        return weights[:, :, None, None]


class CompetitiveUnit(PreActivation):
    """Wide residual unit whose residual is weighed against its identity: `identity + residual * weights(both)`."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, channels, stride, wide_branch(in_channels, channels, stride))
        self.excitation = InnerImaging(channels, rows=10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.preactivation(x)
        identity = x if self.projection is None else self.projection(h)
        residual = self.branch(h)
        return identity + residual * self.excitation(residual, identity)  # type: ignore[no-any-return]


def cmpe_se(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """CMPE-SE-WRN-28-10 (3x3). Hu et al.: Competitive inner-imaging squeeze and excitation, 1807.08920, table 1.

    [N, 3, 32, 32] to [N, 10]; without head [N, 640, 8, 8]. 36,848,514 parameters, 5.25 GMACs. Of the paper's
    variants the folded one, whose 36.9 million (so with the running statistics) and 3.58 % error on CIFAR-10 the
    survey literature quotes. The authors' code also normalises the input and the first convolution's output, which
    the paper does not mention: left out here.
    """
    return wide_network(CompetitiveUnit, num_classes, in_channels, head)
