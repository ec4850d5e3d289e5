"""Capsule network with dynamic routing (2017)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archbench.catalog.networks.layers import he_init
from archbench.model.axes import Head
from archbench.model.errors import UsageError

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
