"""What several families share: convolutions, residual units, stages, heads and initialisation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archbench.model.axes import Head

Module = TypeVar("Module", bound=nn.Module)
Unit = Callable[[int, int, int], nn.Module]
"""`unit(in_channels, out_channels, stride)` builds one residual unit."""


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Convolution without bias that keeps the resolution at stride 1; kernel_size is odd."""
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
    )


def bn_relu(channels: int) -> nn.Sequential:
    """What follows a convolution: batch norm and an in-place relu."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def imagenet_stem(in_channels: int) -> nn.Sequential:
    """The stem of ResNet and of those after it: [N, in_channels, H, W] to [N, 64, H/4, W/4]."""
    return nn.Sequential(conv(in_channels, 64, 7, stride=2), bn_relu(64), nn.MaxPool2d(3, stride=2, padding=1))


def bottleneck(in_channels: int, width: int, channels: int, strides: tuple[int, int], groups: int = 1) -> nn.Sequential:
    """1x1 to `width`, 3x3, 1x1 to `channels`, with normalisation and relu in between; `strides` of the first two."""
    return nn.Sequential(
        conv(in_channels, width, 1, strides[0]),
        bn_relu(width),
        conv(width, width, 3, strides[1], groups),
        bn_relu(width),
        conv(width, channels, 1),
    )


def projection_shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Option B of 1512.03385: a 1x1 convolution where the shape changes."""
    if stride == 1 and channels == in_channels:
        return nn.Identity()
    return nn.Sequential(conv(in_channels, channels, 1, stride), nn.BatchNorm2d(channels))


class Residual(nn.Module):
    """Residual unit of 1512.03385: `relu(branch(x) + shortcut(x))`; `activate=False` leaves the relu out.

    [N, C, H, W] to whatever shape branch and shortcut agree on.
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module, *, activate: bool = True) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.activation = nn.ReLU(inplace=True) if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.branch(x) + self.shortcut(x))  # type: ignore[no-any-return]


class PreActivation(nn.Module):
    """Residual unit of 1603.05027: `branch(h) + x` where `h` is x after normalisation and relu.

    Where the shape changes, a projection of h takes the place of x (the paper's released code; its appendix calls this
    the shared pre-activation).
    """

    def __init__(self, in_channels: int, channels: int, stride: int, branch: nn.Module) -> None:
        super().__init__()
        self.preactivation = bn_relu(in_channels)
        self.branch = branch
        same = stride == 1 and channels == in_channels
        self.projection = None if same else conv(in_channels, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = self.preactivation(x)
        return self.branch(h) + (x if self.projection is None else self.projection(h))  # type: ignore[no-any-return]


class PadChannels(nn.Module):
    """Appends channels of zeros: [N, C, H, W] to [N, C + extra, H, W]. Has no parameters."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        return f"extra={self.extra}"


class Parallel(nn.ModuleList):
    """Runs branches on the same input and concatenates their outputs along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


def stages(unit: Unit, in_channels: int, widths: Sequence[int], depths: Sequence[int]) -> OrderedDict[str, nn.Module]:
    """`stage1`, `stage2`, ...: depths[i] units of widths[i] channels. All but the first stage halve the resolution."""
    found: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for number, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        units = []
        for index in range(depth):
            units.append(unit(channels, width, 2 if number > 0 and index == 0 else 1))
            channels = width
        found[f"stage{number + 1}"] = nn.Sequential(*units)
    return found


def pooled_linear(channels: int, num_classes: int, dropout: float = 0.0) -> nn.Sequential:
    """Global average pooling and one linear layer: [N, channels, H, W] to [N, num_classes]."""
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten(1)]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(channels, num_classes))


def fully_connected(channels: int, side: int, num_classes: int) -> nn.Sequential:
    """The classifier of AlexNet and VGG: two hidden layers of 4096 on a map of `side` x `side`."""
    # The adaptive pooling does nothing at the native size and lets the network take others.
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(side),
        nn.Flatten(1),
        nn.Linear(channels * side * side, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, num_classes),
    )


def pooled_network(
    features: Mapping[str, nn.Module], channels: int, num_classes: int, head: Head, dropout: float = 0.0
) -> nn.Sequential:
    """A network of named parts in a row that ends in `channels` feature maps, and in `pooled_linear`."""
    trunk = nn.Sequential(OrderedDict(features))
    return network(trunk, lambda: pooled_linear(channels, num_classes, dropout), head)


def network(features: nn.Module, classifier: Callable[[], nn.Module], head: Head) -> nn.Sequential:
    """Features and, unless `head` is "none", a classifier, all He-initialised.

    The features bear the same names in both cases, so that weights can be exchanged. The classifier is built only
    where it is wanted: in AlexNet and VGG it is most of the parameters.
    """
    parts = OrderedDict(features=features)
    if head == "classifier":
        parts["classifier"] = classifier()
    return he_init(nn.Sequential(parts))


def he_init(net: Module) -> Module:
    """Initialise `net` in place and return it, as 1502.01852: weights N(0, 2 / fan_in), biases zero.

    The last convolution of every residual branch is divided by sqrt(number of residual units), as GPT-2 does. With
    the untrained running statistics of evaluation mode nothing normalises a residual sum: its variance doubles with
    every unit, and 333 units overflow float32, 30 already float16. In training mode a branch that ends in batch
    normalisation does not feel the factor.
    """
    if any(parameter.is_meta for parameter in net.parameters()):
        return net  # Nothing to fill, and half of the time that building for a count takes.
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    units = [module for module in net.modules() if isinstance(module, Residual | PreActivation)]
    with torch.no_grad():
        for unit in units:
            last = [module for module in unit.branch.modules() if isinstance(module, nn.Conv2d)][-1]
            last.weight.mul_(len(units) ** -0.5)
    return net
