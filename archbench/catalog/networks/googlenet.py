"""GoogLeNet (2014) as published, and its inception module."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from archbench.catalog.networks.layers import Parallel, he_init, network, pooled_linear
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


def conv_relu(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Convolution with bias, keeping the resolution at stride 1, and relu: the network has no normalisation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2), nn.ReLU(inplace=True)
    )


def inception(in_channels: int, widths: Widths) -> Parallel:
    """Figure 2(b): [N, in_channels, H, W] to [N, sum of the four outputs, H, W]."""
    one, reduce3, three, reduce5, five, pooled = widths
    return Parallel(
        conv_relu(in_channels, one, 1),
        nn.Sequential(conv_relu(in_channels, reduce3, 1), conv_relu(reduce3, three, 3)),
        nn.Sequential(conv_relu(in_channels, reduce5, 1), conv_relu(reduce5, five, 5)),
        nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_relu(in_channels, pooled, 1)),
    )


def _features(in_channels: int) -> nn.Sequential:
    def halve() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def normalise() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)

    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(
            conv_relu(in_channels, 64, 7, stride=2),
            halve(),
            normalise(),
            conv_relu(64, 64, 1),
            conv_relu(64, 192, 3),
            normalise(),
            halve(),
        )
    )
    channels = 192
    for name, widths in MODULES.items():
        if name in ("4a", "5a"):
            parts[f"pool{int(name[0]) - 1}"] = halve()
        parts[f"inception{name}"] = inception(channels, widths)
        one, _, three, _, five, pooled = widths
        channels = one + three + five + pooled
    return nn.Sequential(parts)


def _auxiliary(channels: int, num_classes: int) -> nn.Sequential:
    """Section 5: the classifier on a middle module, [N, channels, 14, 14] to [N, num_classes]."""
    return nn.Sequential(
        nn.AvgPool2d(5, stride=3),
        conv_relu(channels, 128, 1),
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
    features = _features(in_channels)
    if not aux_logits:
        return network(features, lambda: pooled_linear(1024, num_classes, dropout=0.4), head)
    if head == "none":
        raise UsageError("googlenet_paper: aux_logits needs head: classifier")
    net = WithAuxiliary(features, num_classes)
    he_init(net)
    return net


def inception_module_3a(in_channels: int = 192) -> nn.Module:
    """The first inception module of GoogLeNet, with its 1x1 reductions. 1409.4842, figure 2(b) and table 1.

    [N, 192, 28, 28] to [N, 256, 28, 28]. 163,696 parameters, 0.128 GMACs: 42 % of `inception_module_3a_naive`.
    """
    module = inception(in_channels, MODULES["3a"])
    he_init(module)
    return module


def inception_module_3a_naive(in_channels: int = 192) -> nn.Module:
    """The same module without reductions. 1409.4842, figure 2(a) with the output widths of table 1.

    [N, 192, 28, 28] to [N, 416, 28, 28], since pooling passes all its input on. 387,296 parameters, 0.303 GMACs.
    """
    one, _, three, _, five, _ = MODULES["3a"]
    module = Parallel(
        conv_relu(in_channels, one, 1),
        conv_relu(in_channels, three, 3),
        conv_relu(in_channels, five, 5),
        nn.MaxPool2d(3, stride=1, padding=1),
    )
    he_init(module)
    return module


BUILDERS = (googlenet_paper, inception_module_3a, inception_module_3a_naive)
