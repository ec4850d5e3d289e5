"""AlexNet (2012) as published, and ZFNet (2013), which widened its view."""

from __future__ import annotations

from torch import nn

from archbench.catalog.networks.layers import network
from archbench.model.axes import Head


def _fully_connected(channels: int, num_classes: int) -> nn.Sequential:
    # The adaptive pooling does nothing at the native size and lets the network take others.
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(1),
        nn.Linear(channels * 6 * 6, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, num_classes),
    )


def alexnet_2012(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """AlexNet. Krizhevsky, Sutskever, Hinton: ImageNet classification with deep CNNs, NIPS 2012, section 3.5.

    [N, 3, 227, 227] to [N, 1000]; without head [N, 256, 6, 6]. 60,965,224 parameters (paper: 60 million), 0.724 GMACs.

    The two towers of the paper's two GPUs are groups of convolutions 2, 4 and 5. The paper says 224 px, but its 55x55
    maps need 227. Local response normalisation: torch averages over the five channels where the paper sums, hence
    alpha 5e-4 for the paper's 1e-4. The single-tower network of 2014 is torchvision's `alexnet`.
    """

    def normalise() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    features = nn.Sequential(
        nn.Conv2d(in_channels, 96, 11, stride=4),
        nn.ReLU(inplace=True),
        normalise(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(inplace=True),
        normalise(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
    )
    return network(features, lambda: _fully_connected(256, num_classes), head)


def zfnet(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ZFNet. Zeiler, Fergus: Visualizing and understanding convolutional networks, 1311.2901, figure 3.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 256, 6, 6]. 62,357,608 parameters, 1.17 GMACs.

    Local response normalisation stands for the figure's "contrast norm", as in the authors' description of AlexNet.
    Pooling rounds up, which gives the figure's 110, 55, 26, 13 and 6.
    """

    def normalise() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    features = nn.Sequential(
        nn.Conv2d(in_channels, 96, 7, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        normalise(),
        nn.Conv2d(96, 256, 5, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        normalise(),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
    )
    return network(features, lambda: _fully_connected(256, num_classes), head)


BUILDERS = (alexnet_2012, zfnet)
