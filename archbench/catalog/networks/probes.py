"""Networks that answer a question rather than win a contest: single blocks, an over-deep VGG, chains of layers.

A block has no classes and no head: it takes only `in_channels`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from archbench.catalog.networks.layers import conv, fully_connected, he_init, network
from archbench.catalog.networks.nonresidual import DenseLayer
from archbench.model.axes import Head
from archbench.model.errors import UsageError

Activation = Literal["relu", "sigmoid", "tanh"]
Init = Literal["he", "xavier", "normal"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


class ToyResidual(nn.Module):
    """`relu(x + W2 relu(W1 x))`, or without `x +`; no biases, weights N(0, scale²). [N, size], shape kept."""

    def __init__(self, size: int, scale: float, *, shortcut: bool) -> None:
        super().__init__()
        self.first = nn.Linear(size, size, bias=False)
        self.second = nn.Linear(size, size, bias=False)
        self.shortcut = shortcut
        nn.init.normal_(self.first.weight, std=scale)
        nn.init.normal_(self.second.weight, std=scale)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(F.relu(self.first(x)))
        return F.relu(out + x if self.shortcut else out)


def toy_residual_block(
    in_channels: int = 64, *, blocks: int = 1, weight_scale: float = 0.1, shortcut: bool = True
) -> nn.Module:
    """The residual block on vectors that tutorials print: two square matrices drawn as `randn(size, size) * 0.1`.

    [N, 64] to [N, 64]. 8,192 parameters in each block. A chain of `blocks`, with or without shortcut, shows what that
    scale does to the signal. Raises UsageError for fewer than one block.
    """
    if blocks < 1:
        raise UsageError(f"toy_residual_block: blocks={blocks}: must be at least 1")
    return nn.Sequential(*(ToyResidual(in_channels, weight_scale, shortcut=shortcut) for _ in range(blocks)))


def toy_dense_block(in_channels: int = 64, *, growth_rate: int = 32, layers: int = 6) -> nn.Module:
    """The dense block that tutorials print: each layer (BN, relu, 3x3) adds `growth_rate` channels to what it read.

    [N, 64, 56, 56] to [N, 256, 56, 56]: the shape of DenseNet-121's first block (1608.06993) without its bottlenecks.
    250,560 parameters, 0.78 GMACs. Raises UsageError for fewer than one layer.
    """
    if layers < 1:
        raise UsageError(f"toy_dense_block: layers={layers}: must be at least 1")
    return he_init(
        nn.Sequential(
            *(DenseLayer(in_channels + i * growth_rate, growth_rate, bottleneck=False) for i in range(layers))
        )
    )


def conv3x3_stack3(in_channels: int = 64) -> nn.Module:
    """Three 3x3 convolutions, each with relu: a receptive field of 7x7 for 27 C² weights. VGG, 1409.1556, section 2.3.

    [N, 64, 56, 56] to the same. 110,592 parameters, 0.347 GMACs: 55 % of `conv7x7_single`.
    """
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [conv(in_channels, in_channels, 3), nn.ReLU(inplace=True)]
    return he_init(nn.Sequential(*layers))


def conv7x7_single(in_channels: int = 64) -> nn.Module:
    """One 7x7 convolution with relu, 49 C² weights: what `conv3x3_stack3` replaces. 1409.1556, section 2.3.

    [N, 64, 56, 56] to the same. 200,704 parameters, 0.629 GMACs.
    """
    return he_init(nn.Sequential(conv(in_channels, in_channels, 7), nn.ReLU(inplace=True)))


def conv_dense(in_channels: int = 256) -> nn.Module:
    """One ordinary 3x3 convolution, 9 C² weights.

    [N, 256, 14, 14] to the same. 589,824 parameters, 0.116 GMACs.
    """
    return he_init(conv(in_channels, in_channels, 3))


def conv_depthwise_separable(in_channels: int = 256) -> nn.Module:
    """A 3x3 depthwise and a 1x1 convolution, 9 C + C² weights. MobileNet, 1704.04861, section 3.1.

    [N, 256, 14, 14] to the same. 67,840 parameters, 0.0133 GMACs: 1/C + 1/9 = 11.5 % of `conv_dense`. Convolutions
    alone: MobileNet normalises and activates between them.
    """
    depthwise = conv(in_channels, in_channels, 3, groups=in_channels)
    return he_init(nn.Sequential(depthwise, conv(in_channels, in_channels, 1)))


def simple_vgg22(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ "A simple 22-layer network": VGG-19 with one more 3x3 convolution in each of its last three stages.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 512, 7, 7]. 148,976,936 parameters, 23.79 GMACs: 33 times AlexNet,
    for the claim that as many layers as GoogLeNet's, simply stacked, cost 100 times AlexNet. Made up for that claim;
    the rules are those of VGG (1409.1556): 3x3 filters, 2x2 pooling, doubling widths, three fully connected layers.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for number, (depth, width) in enumerate(((2, 64), (2, 128), (5, 256), (5, 512), (5, 512)), start=1):
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        parts[f"stage{number}"] = nn.Sequential(*layers, nn.MaxPool2d(2))

    return network(nn.Sequential(parts), lambda: fully_connected(512, 7, num_classes), head)


def _initialise(layer: nn.Linear, init: str) -> None:
    """Zero bias and weights N(0, variance); variance per `init`: he 2 / in, xavier 2 / (in + out), normal 0.01²."""
    variances = {"he": 2 / layer.in_features, "xavier": 2 / (layer.in_features + layer.out_features), "normal": 1e-4}
    nn.init.normal_(layer.weight, std=math.sqrt(variances[init]))
    nn.init.zeros_(layer.bias)


def mlp_probe(
    num_classes: int = 10,
    in_channels: int = 256,
    head: Head = "classifier",
    *,
    depth: int = 50,
    width: int = 256,
    activation: Activation = "relu",
    init: Init = "he",
    batch_norm: bool = False,
) -> nn.Module:
    """A chain of `depth` equal linear layers, in which signals and gradients vanish, explode or survive.

    [N, 256] to [N, 10]; without head the last hidden vector, [N, width]. 3,292,170 parameters as it stands. Layers are
    linear, normalised if `batch_norm`, activated; initialised as 1502.01852 (he), as Glorot and Bengio 2010 (xavier),
    or N(0, 0.01²) (normal), biases zero. Raises UsageError for an option out of its range.
    """
    if activation not in ACTIVATIONS or init not in ("he", "xavier", "normal"):
        raise UsageError(
            f"mlp_probe: activation={activation}, init={init}: activation is relu, sigmoid or tanh; "
            "init is he, xavier or normal"
        )
    if depth < 1 or width < 1:
        raise UsageError(f"mlp_probe: depth={depth}, width={width}: both must be at least 1")
    layers: list[nn.Module] = []
    for index in range(depth):
        linear = nn.Linear(in_channels if index == 0 else width, width)
        _initialise(linear, init)
        layers += [linear, *([nn.BatchNorm1d(width)] if batch_norm else []), ACTIVATIONS[activation]()]
    parts: OrderedDict[str, nn.Module] = OrderedDict(features=nn.Sequential(*layers))
    if head == "classifier":
        output = nn.Linear(width, num_classes)
        _initialise(output, init)
        parts["classifier"] = output
    return nn.Sequential(parts)


def sigmoid_chain(
    num_classes: int = 10, in_channels: int = 256, head: Head = "classifier", *, depth: int = 50
) -> nn.Module:
    """`mlp_probe` with sigmoids and Xavier's initialisation: the gradient shrinks to a quarter at each layer.

    [N, 256] to [N, 10]; without head [N, 256]. 3,292,170 parameters.
    """
    return mlp_probe(num_classes, in_channels, head, depth=depth, activation="sigmoid", init="xavier")


def tanh_chain(
    num_classes: int = 10, in_channels: int = 256, head: Head = "classifier", *, depth: int = 50
) -> nn.Module:
    """`mlp_probe` with tanh and Xavier's initialisation, which was made for it.

    [N, 256] to [N, 10]; without head [N, 256]. 3,292,170 parameters.
    """
    return mlp_probe(num_classes, in_channels, head, depth=depth, activation="tanh", init="xavier")


def relu_chain(
    num_classes: int = 10, in_channels: int = 256, head: Head = "classifier", *, depth: int = 50
) -> nn.Module:
    """`mlp_probe` with ReLU and He's initialisation: the gradient keeps its size.

    [N, 256] to [N, 10]; without head [N, 256]. 3,292,170 parameters.
    """
    return mlp_probe(num_classes, in_channels, head, depth=depth, activation="relu", init="he")
