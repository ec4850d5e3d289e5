"""Inception: GoogLeNet (2014), with batch normalisation (2015), with residual connections (2016)."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

from archbench.catalog.networks.layers import Parallel, bn_relu, he_init, network, pooled_linear, pooled_network
from archbench.model.axes import Head
from archbench.model.errors import UsageError

Widths = tuple[int, int, int, int, int, int]
"""Columns of table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection."""

MODULES: dict[str, Widths] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def _conv_relu(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Convolution with bias, keeping the resolution at stride 1, and relu: the network has no normalisation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2), nn.ReLU(inplace=True)
    )


def _module(in_channels: int, widths: Widths) -> Parallel:
    """Figure 2(b): [N, in_channels, H, W] to [N, sum of the four outputs, H, W]."""
    one, reduce3, three, reduce5, five, pooled = widths
    return Parallel(
        _conv_relu(in_channels, one, 1),
        nn.Sequential(_conv_relu(in_channels, reduce3, 1), _conv_relu(reduce3, three, 3)),
        nn.Sequential(_conv_relu(in_channels, reduce5, 1), _conv_relu(reduce5, five, 5)),
        nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _conv_relu(in_channels, pooled, 1)),
    )


def _googlenet_features(in_channels: int) -> nn.Sequential:
    def halve() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def normalise() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)

    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(
            _conv_relu(in_channels, 64, 7, stride=2),
            halve(),
            normalise(),
            _conv_relu(64, 64, 1),
            _conv_relu(64, 192, 3),
            normalise(),
            halve(),
        )
    )
    channels = 192
    for name, widths in MODULES.items():
        if name in ("4a", "5a"):
            parts[f"pool{int(name[0]) - 1}"] = halve()
        parts[f"inception{name}"] = _module(channels, widths)
        one, _, three, _, five, pooled = widths
        channels = one + three + five + pooled
    return nn.Sequential(parts)


def _auxiliary(channels: int, num_classes: int) -> nn.Sequential:
    """Section 5: the classifier on a middle module, [N, channels, 14, 14] to [N, num_classes]."""
    return nn.Sequential(
        nn.AvgPool2d(5, stride=3),
        _conv_relu(channels, 128, 1),
        nn.Flatten(1),
        nn.Linear(128 * 4 * 4, 1024),
        nn.ReLU(inplace=True),
        nn.Dropout(0.7),
        nn.Linear(1024, num_classes),
    )


class WithAuxiliary(nn.Module):
    """GoogLeNet with its two auxiliary classifiers behind 4a and 4d.

    In training mode the outputs (main, behind 4a, behind 4d), each [N, num_classes], the paper weighing the latter two
    by 0.3; in evaluation mode the main one alone.
    """

    def __init__(self, features: nn.Sequential, num_classes: int) -> None:
        super().__init__()
        self.features = features
        self.auxiliary = nn.ModuleDict(
            {"inception4a": _auxiliary(512, num_classes), "inception4d": _auxiliary(528, num_classes)}
        )
        self.classifier = pooled_linear(1024, num_classes, dropout=0.4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        others = []
        for name, part in self.features.named_children():
            x = part(x)
            if self.training and name in self.auxiliary:
                others.append(self.auxiliary[name](x))
        main: Tensor = self.classifier(x)
        return (main, *others) if self.training else main


def googlenet_paper(
    num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier", *, aux_logits: bool = False
) -> nn.Module:
    """GoogLeNet. Szegedy et al.: Going deeper with convolutions, 1409.4842, table 1.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 1024, 7, 7]. 6,998,552 parameters and 1.58 GMACs, as the released
    Caffe network has (table 1 sums to 6.8 million without biases; the abstract's "12 times fewer" would be 5). With
    `aux_logits` 13,378,280 parameters and in training mode three outputs: see `WithAuxiliary`.

    5x5 filters, local response normalisation, no batch normalisation: torchvision's `googlenet` has 3x3 in place of
    5x5, and batch normalisation. Raises UsageError for auxiliary classifiers without a head.
    """
    features = _googlenet_features(in_channels)
    if not aux_logits:
        return network(features, lambda: pooled_linear(1024, num_classes, dropout=0.4), head)
    if head == "none":
        raise UsageError("googlenet_paper: aux_logits needs head: classifier")
    return he_init(WithAuxiliary(features, num_classes))


def inception_module_3a(in_channels: int = 192) -> nn.Module:
    """The first inception module of GoogLeNet, with its 1x1 reductions. 1409.4842, figure 2(b) and table 1.

    [N, 192, 28, 28] to [N, 256, 28, 28]. 163,696 parameters, 0.128 GMACs: 42 % of `inception_module_3a_naive`.
    """
    return he_init(_module(in_channels, MODULES["3a"]))


def inception_module_3a_naive(in_channels: int = 192) -> nn.Module:
    """The same module without reductions. 1409.4842, figure 2(a) with the output widths of table 1.

    [N, 192, 28, 28] to [N, 416, 28, 28], since pooling passes all its input on. 387,296 parameters, 0.303 GMACs.
    """
    one, _, three, _, five, _ = MODULES["3a"]
    return he_init(
        Parallel(
            _conv_relu(in_channels, one, 1),
            _conv_relu(in_channels, three, 3),
            _conv_relu(in_channels, five, 5),
            nn.MaxPool2d(3, stride=1, padding=1),
        )
    )


Size = int | tuple[int, int]


def _conv(in_channels: int, out_channels: int, kernel: Size, stride: int = 1, *, same: bool = True) -> nn.Sequential:
    """Convolution, batch normalisation, relu; padded to keep the resolution at stride 1 unless `same` is false."""
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (high // 2, wide // 2) if same else 0
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, (high, wide), stride, padding, bias=False), *bn_relu(out_channels)
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
    stem = nn.Sequential(
        _conv(in_channels, 64, 7, stride=2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        _conv(64, 64, 1),
        _conv(64, 192, 3),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
    )
    parts: dict[str, nn.Module] = {"stem": stem}
    channels = 192
    for name, row in BN_INCEPTION.items():
        parts[f"inception{name}"] = row.build(channels)
        channels = row.out_channels(channels)
    return pooled_network(parts, channels, num_classes, head)


_Layer = tuple[int, Size] | tuple[int, Size, int]
"""Output channels and kernel of a convolution; with a stride, it is not padded."""


def _chain(in_channels: int, *layers: _Layer) -> nn.Sequential:
    chain = nn.Sequential()
    for out_channels, kernel, *stride in layers:
        chain.append(_conv(in_channels, out_channels, kernel, *stride, same=not stride))
        in_channels = out_channels
    return chain


class _InceptionResidual(nn.Module):
    """`relu(x + scale * up(branches(x)))`; `up` is a 1x1 convolution with bias and without normalisation.

    The scale is section 3.3's remedy for units that die: between 0.1 and 0.3.
    """

    def __init__(self, channels: int, scale: float, *branches: tuple[_Layer, ...]) -> None:
        super().__init__()
        self.branches = Parallel(*(_chain(channels, *layers) for layers in branches))
        self.up = nn.Conv2d(sum(layers[-1][0] for layers in branches), channels, 1)
        self.relu = nn.ReLU(inplace=True)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.scale * self.up(self.branches(x)))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


def _units(number: int, channels: int, scale: float, *branches: tuple[_Layer, ...]) -> nn.Sequential:
    return nn.Sequential(*(_InceptionResidual(channels, scale, *branches) for _ in range(number)))


def _reduction(channels: int, *branches: tuple[_Layer, ...]) -> nn.Module:
    """Halves the resolution; pooling passes all its input on."""
    return Parallel(nn.MaxPool2d(3, stride=2), *(_chain(channels, *layers) for layers in branches))


def inception_resnet_v1(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Inception-ResNet-v1. Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4 ..., 1602.07261, figures 7 and 10 to 15.

    [N, 3, 299, 299] to [N, 1000]; without head [N, 1792, 8, 8]. 22,756,328 parameters, 6.21 GMACs; the paper
    gives neither. The copies made for FaceNet have a sixth C unit (1,600,768 more). Residual scales, of which the paper
    gives only the range, are those of the authors' released v2.
    """
    stem = nn.Sequential(
        *_chain(in_channels, (32, 3, 2), (32, 3, 1), (64, 3)),
        nn.MaxPool2d(3, stride=2),
        *_chain(64, (80, 1), (192, 3, 1), (256, 3, 2)),
    )
    parts = {
        "stem": stem,
        # Figure 10, at 35x35; figure 7 with k, l, m, n = 192, 192, 256, 384 (table 1).
        "stage1": _units(5, 256, 0.17, ((32, 1),), ((32, 1), (32, 3)), ((32, 1), (32, 3), (32, 3))),
        "reduction1": _reduction(256, ((384, 3, 2),), ((192, 1), (192, 3), (256, 3, 2))),
        # Figure 11, at 17x17; figure 12.
        "stage2": _units(10, 896, 0.10, ((128, 1),), ((128, 1), (128, (1, 7)), (128, (7, 1)))),
        "reduction2": _reduction(
            896, ((256, 1), (384, 3, 2)), ((256, 1), (256, 3, 2)), ((256, 1), (256, 3), (256, 3, 2))
        ),
        # Figure 13, at 8x8.
        "stage3": _units(5, 1792, 0.20, ((192, 1),), ((192, 1), (192, (1, 3)), (192, (3, 1)))),
    }
    return pooled_network(parts, 1792, num_classes, head, dropout=0.2)
