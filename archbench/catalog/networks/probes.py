"""Networks that answer a question rather than win a contest: an over-deep VGG, and chains of linear layers."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Literal

from torch import nn

from archbench.catalog.networks.layers import network
from archbench.model.axes import Head
from archbench.model.errors import UsageError

Activation = Literal["relu", "sigmoid", "tanh"]
Init = Literal["he", "xavier", "normal"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


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

    def classifier() -> nn.Module:
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(7),
            nn.Flatten(1),
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, num_classes),
        )

    return network(nn.Sequential(parts), classifier, head)


def _initialise(layer: nn.Linear, init: str) -> None:
    """Zero bias and weights N(0, variance); variance per `init`: he 2 / in, xavier 2 / (in + out), normal 0.01²."""
    variances = {
        "he": 2 / layer.in_features,
        "xavier": 2 / (layer.in_features + layer.out_features),
        "normal": 1e-4,
    }
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


BUILDERS = (simple_vgg22, mlp_probe, sigmoid_chain, tanh_chain, relu_chain)
