"""Single blocks for comparisons: the toys that tutorials print, and pairs of ways to do one thing.

A block has no classes and no head: it takes only `in_channels`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from archbench.catalog.networks.densenet import DenseLayer
from archbench.catalog.networks.layers import conv, he_init
from archbench.model.errors import UsageError


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
    block = nn.Sequential(
        *(DenseLayer(in_channels + i * growth_rate, growth_rate, bottleneck=False) for i in range(layers))
    )
    he_init(block)
    return block


def conv3x3_stack3(in_channels: int = 64) -> nn.Module:
    """Three 3x3 convolutions, each with relu: a receptive field of 7x7 for 27 C² weights. VGG, 1409.1556, section 2.3.

    [N, 64, 56, 56] to the same. 110,592 parameters, 0.347 GMACs: 55 % of `conv7x7_single`.
    """
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [conv(in_channels, in_channels, 3), nn.ReLU(inplace=True)]
    block = nn.Sequential(*layers)
    he_init(block)
    return block


def conv7x7_single(in_channels: int = 64) -> nn.Module:
    """One 7x7 convolution with relu, 49 C² weights: what `conv3x3_stack3` replaces. 1409.1556, section 2.3.

    [N, 64, 56, 56] to the same. 200,704 parameters, 0.629 GMACs.
    """
    block = nn.Sequential(conv(in_channels, in_channels, 7), nn.ReLU(inplace=True))
    he_init(block)
    return block


def conv_dense(in_channels: int = 256) -> nn.Module:
    """One ordinary 3x3 convolution, 9 C² weights.

    [N, 256, 14, 14] to the same. 589,824 parameters, 0.116 GMACs.
    """
    block = conv(in_channels, in_channels, 3)
    he_init(block)
    return block


def conv_depthwise_separable(in_channels: int = 256) -> nn.Module:
    """A 3x3 depthwise and a 1x1 convolution, 9 C + C² weights. MobileNet, 1704.04861, section 3.1.

    [N, 256, 14, 14] to the same. 67,840 parameters, 0.0133 GMACs: 1/C + 1/9 = 11.5 % of `conv_dense`. Convolutions
    alone: MobileNet normalises and activates between them.
    """
    block = nn.Sequential(conv(in_channels, in_channels, 3, groups=in_channels), conv(in_channels, in_channels, 1))
    he_init(block)
    return block


BUILDERS = (
    toy_residual_block,
    toy_dense_block,
    conv3x3_stack3,
    conv7x7_single,
    conv_dense,
    conv_depthwise_separable,
)
