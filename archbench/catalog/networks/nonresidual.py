"""Depth by other ways than residual units, and parts other than maps.

Highway networks (2015) with gates, FractalNet (2016) with many paths, DenseNets (2016) that neither library carries
(DenseNet-264 and those for CIFAR), and the capsule network with dynamic routing (2017).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archbench.catalog.networks.layers import bn_relu, conv, he_init, imagenet_stem, network, pooled_network
from archbench.model.axes import Head
from archbench.model.errors import UsageError


class HighwayConv(nn.Module):
    """`t * relu(H(x)) + (1 - t) * x` with `t = sigmoid(T(x))`; H and T are 3x3 convolutions. Keeps the shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, F.relu(self.transform(x)), torch.sigmoid(self.gate(x)))


def _stage(in_channels: int, widths: tuple[int, ...]) -> list[nn.Module]:
    """Highway layers; a plain convolution where the number of channels changes, since a gate cannot."""
    layers: list[nn.Module] = []
    channels = in_channels
    for width in widths:
        if width == channels:
            layers.append(HighwayConv(width))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        channels = width
    return layers


def highway19(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """Highway-19 for CIFAR. Srivastava, Greff, Schmidhuber: Training very deep networks, 1507.06228, table 2.

    [N, 3, 32, 32] to [N, 10]; without head [N, 128, 8, 8]. 2,342,406 parameters (paper: "~2.3M").

    The paper says only that its networks follow the FitNets of 1412.6550: this is the 19-layer FitNet (seventeen 3x3
    convolutions, one hidden layer of 500, one output) with a highway layer in place of each maxout convolution that
    keeps its number of channels. Gates start at bias -2, so that the untrained network mostly copies. Dropout is left
    out: the paper does not give its rates.
    """
    features = nn.Sequential(
        OrderedDict(
            stage1=nn.Sequential(*_stage(in_channels, (32, 32, 32, 48, 48)), nn.MaxPool2d(2)),
            stage2=nn.Sequential(*_stage(48, (80,) * 6), nn.MaxPool2d(2)),
            stage3=nn.Sequential(*_stage(80, (128,) * 6)),
        )
    )

    def classifier() -> nn.Module:
        return nn.Sequential(
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(1),
            nn.Linear(128, 500),
            nn.ReLU(inplace=True),
            nn.Linear(500, num_classes),
        )

    net = network(features, classifier, head)
    for module in net.modules():
        if isinstance(module, HighwayConv):
            assert module.gate.bias is not None
            nn.init.constant_(module.gate.bias, -2.0)
    return net


def _join(columns: list[Tensor]) -> Tensor:
    """The mean of what the columns deliver."""
    total = columns[0]
    for column in columns[1:]:
        total = total + column
    return total / len(columns)


class Fractal(nn.Module):
    """The expansion rule f(C+1) = [f(C) after f(C)] joined with one convolution; f(1) is that convolution.

    `columns` returns the C tensors that meet in the last join, each [N, out_channels, H, W]: where several joins meet,
    the paper merges them into one mean.
    """

    def __init__(self, in_channels: int, out_channels: int, columns: int) -> None:
        super().__init__()
        self.short = nn.Sequential(conv(in_channels, out_channels, 3), bn_relu(out_channels))
        deeper = columns - 1
        self.first = Fractal(in_channels, out_channels, deeper) if deeper else None
        self.second = Fractal(out_channels, out_channels, deeper) if deeper else None

    def columns(self, x: Tensor) -> list[Tensor]:
        if self.first is None or self.second is None:
            return [self.short(x)]
        return [self.short(x), *self.second.columns(_join(self.first.columns(x)))]


class FractalBlock(nn.Module):
    """A fractal, each of its columns halved by max pooling, and the last join: [N, C, H, W] to [N, D, H/2, W/2].

    Pooling before the last join is the paper's own order ("for convenience").
    """

    def __init__(self, in_channels: int, out_channels: int, columns: int) -> None:
        super().__init__()
        self.fractal = Fractal(in_channels, out_channels, columns)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return _join([self.pool(column) for column in self.fractal.columns(x)])


def fractalnet20(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """FractalNet of 20 layers for CIFAR. Larsson, Maire, Shakhnarovich: FractalNet, 1605.07648, section 4.

    [N, 3, 32, 32] to [N, 10]; without head [N, 512, 1, 1]. 33,724,618 parameters, 0.85 GMACs.

    Five blocks of three columns, widths 64, 128, 256, 512 and 512. The paper says 38.6 million, but by its own rule a
    block has 7 convolutions, of which 3 read its input, and these widths sum to 33.7 million weights: the generator
    that the authors released builds the same. Drop-path and dropout, which act in training only, are left out.
    """
    parts: dict[str, nn.Module] = {}
    channels = in_channels
    for number, width in enumerate((64, 128, 256, 512, 512), start=1):
        parts[f"block{number}"] = FractalBlock(channels, width, columns=3)
        channels = width
    return pooled_network(parts, 512, num_classes, head)


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


PRIMARY_DIM = 8
CLASS_DIM = 16


def squash(s: Tensor) -> Tensor:
    """Equation 1: keeps the direction along the last dimension and maps the length into [0, 1)."""
    squared = s.square().sum(dim=-1, keepdim=True)
    return s * squared / (1 + squared) * torch.rsqrt(squared + 1e-9)


class PrimaryCapsules(nn.Module):
    """Convolution whose channels are read as capsules: [N, 256, H, W] to [N, capsules, 8]; 32 capsules a pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 32 * PRIMARY_DIM, 9, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x).unflatten(1, (32, PRIMARY_DIM))
        return squash(maps.permute(0, 1, 3, 4, 2).flatten(1, 3))


class RoutedCapsules(nn.Module):
    """Procedure 1, routing by agreement: [N, capsules, 8] to [N, num_classes, 16]."""

    def __init__(self, capsules: int, num_classes: int, iterations: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(capsules, num_classes, CLASS_DIM, PRIMARY_DIM))
        self.iterations = iterations
        nn.init.normal_(self.weight, std=0.05)

    def forward(self, u: Tensor) -> Tensor:
        votes = torch.einsum("nid,iked->nike", u, self.weight)
        agreement = torch.zeros_like(votes[..., 0])
        for _ in range(self.iterations - 1):
            v = self._outputs(votes, agreement)
            agreement = agreement + torch.einsum("nike,nke->nik", votes, v)
        return self._outputs(votes, agreement)

    def _outputs(self, votes: Tensor, agreement: Tensor) -> Tensor:
        coupling = agreement.softmax(dim=2)
        return squash(torch.einsum("nik,nike->nke", coupling, votes))

    def extra_repr(self) -> str:
        capsules, num_classes, _, _ = self.weight.shape
        return f"capsules={capsules}, num_classes={num_classes}, iterations={self.iterations}"


class CapsNet(nn.Module):
    """Features, routing and, if wanted, the decoder that redraws the input from the longest class capsule."""

    def __init__(self, features: nn.Sequential, routing: RoutedCapsules, decoder: nn.Sequential | None) -> None:
        super().__init__()
        self.features = features
        self.routing = routing
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        capsules = self.routing(self.features(x))
        lengths: Tensor = torch.linalg.vector_norm(capsules, dim=-1)
        if self.decoder is None:
            return lengths
        chosen = F.one_hot(lengths.argmax(dim=1), lengths.shape[1]).to(capsules.dtype)
        drawing: Tensor = self.decoder((capsules * chosen.unsqueeze(-1)).flatten(1))
        return lengths, drawing.reshape(x.shape)


def capsnet(
    num_classes: int = 10,
    in_channels: int = 1,
    head: Head = "classifier",
    *,
    reconstruction: bool = False,
    routing_iterations: int = 3,
) -> nn.Module:
    """CapsNet. Sabour, Frosst, Hinton: Dynamic routing between capsules, 1710.09829, figures 1 and 2.

    [N, 1, 28, 28] and no other size, to the lengths of the class capsules, [N, 10]; without head the primary
    capsules, [N, 1152, 8]. 6,804,224 parameters, 0.20 GMACs. With `reconstruction` 8,215,568 (paper: 8.2 million) and
    a pair of outputs, lengths and the redrawn input [N, 1, 28, 28]; the capsule to draw from is the longest, as in
    the paper's testing, where its training takes the labelled one. Raises UsageError for fewer than one iteration.
    """
    if routing_iterations < 1:
        raise UsageError(f"capsnet: routing_iterations={routing_iterations}: must be at least 1")
    features = nn.Sequential(nn.Conv2d(in_channels, 256, 9), nn.ReLU(inplace=True), PrimaryCapsules(256))
    if head == "none":
        return he_init(nn.Sequential(OrderedDict(features=features)))
    decoder = None
    if reconstruction:
        decoder = nn.Sequential(
            nn.Linear(num_classes * CLASS_DIM, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, 1024),
            nn.ReLU(inplace=True),
            nn.Linear(1024, in_channels * 28 * 28),
            nn.Sigmoid(),
        )
    return he_init(CapsNet(features, RoutedCapsules(32 * 6 * 6, num_classes, routing_iterations), decoder))
