"""Networks of one operator each, with the multiplications that its definition has, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

Weights = dict[str, tuple[int, ...]]


class Net(nn.Module):
    """`work` on an image [1, 3, 16, 16], with parameters of these shapes as `w.NAME`, or a layer as `w.layer`."""

    def __init__(self, work: Callable[[Any, Tensor], Any], weights: Weights, layer: nn.Module | None) -> None:
        super().__init__()
        self.work = work
        for name, shape in weights.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))
        if layer is not None:
            self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.work(self, x)


def tokens(x: Tensor) -> Tensor:
    """[1, 16, 48]: a row of the image is a token."""
    return x.transpose(1, 2).flatten(2)


class Branches(nn.Module):
    """One of two layers by the running number of the call, as a mixture of experts takes one by its gate."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(48, width) for width in (5, 7))

    def forward(self, x: Tensor) -> Any:
        return self.experts[1](x)


def _conv3d(w: Any, x: Tensor) -> Any:
    return w.layer(x.unsqueeze(2).expand(-1, -1, 4, -1, -1))


_N, _D = 16, 48
FORMULAS: dict[str, tuple[Callable[[Any, Tensor], Any], Weights, Callable[[], nn.Module] | None, int]] = {
    "matrix times vector": (lambda w, x: x[0].flatten(1) @ w.v, {"v": (256,)}, None, 3 * 256),
    "vector times matrix": (lambda w, x: w.v @ x[0].flatten(1), {"v": (3,)}, None, 3 * 256),
    "batch times vector": (lambda w, x: torch.matmul(x, w.v), {"v": (16,)}, None, 3 * 16 * 16),
    "stack of matrices": (lambda w, x: x @ w.m, {"m": (3, 16, 5)}, None, 3 * 16 * 16 * 5),
    "inner product": (lambda w, x: torch.inner(x[0, 0], w.m), {"m": (5, 16)}, None, 16 * 16 * 5),
    "tensordot": (lambda w, x: torch.tensordot(x, w.m, dims=2), {"m": (16, 16, 7)}, None, 3 * 256 * 7),
    "vdot": (lambda w, x: torch.vdot(x.flatten(), w.v), {"v": (768,)}, None, 768),
    "chain in its best order": (
        lambda w, x: torch.linalg.multi_dot([x[0, 0], w.a, w.b]),
        {"a": (16, 4), "b": (4, 9)},
        None,
        16 * 16 * 4 + 16 * 4 * 9,
    ),
    "addr": (lambda w, x: torch.addr(x[0, 0], w.a, w.b), {"a": (16,), "b": (16,)}, None, 256),
    "addbmm": (lambda w, x: torch.addbmm(w.c, x[0], w.m), {"c": (16, 5), "m": (3, 16, 5)}, None, 3 * 16 * 16 * 5),
    "baddbmm": (lambda w, x: torch.baddbmm(w.c, x[0], w.m), {"c": (3, 16, 5), "m": (3, 16, 5)}, None, 3 * 16 * 16 * 5),
    "outer product": (lambda w, x: torch.outer(x[0, 0, 0], w.v), {"v": (33,)}, None, 16 * 33),
    "outer product by einsum": (lambda w, x: torch.einsum("i,j->ij", x[0, 0, 0], w.v), {"v": (33,)}, None, 16 * 33),
    "kron": (lambda w, x: torch.kron(x[0, 0], w.m), {"m": (2, 3)}, None, 256 * 6),
    "kron of three axes": (lambda w, x: torch.kron(x[0], w.m), {"m": (2, 2, 2)}, None, 768 * 8),
    "distances": (lambda w, x: torch.cdist(tokens(x), w.m), {"m": (9, 48)}, None, 16 * 9 * 48),
    "distances by absolute values": (lambda w, x: torch.cdist(tokens(x), w.m, p=1), {"m": (9, 48)}, None, 16 * 9 * 48),
    "distances of all pairs": (lambda w, x: F.pdist(tokens(x)[0]), {}, None, 16 * 15 // 2 * 48),
    "bilinear of two inputs": (
        lambda w, x: F.bilinear(tokens(x), x[:, 0], w.m),
        {"m": (5, 48, 16)},
        None,
        16 * 5 * 48 * 16,
    ),
    "bilinear layer without bias": (
        lambda w, x: w.layer(x[:, 0], x[:, 1]),
        {},
        lambda: nn.Bilinear(16, 16, 3, bias=False),
        16 * 3 * 16 * 16,
    ),
    "three axes": (_conv3d, {}, lambda: nn.Conv3d(3, 6, (2, 3, 3), padding=(0, 1, 1)), 3 * 256 * 6 * 3 * 18),
    "transposed, strided, grouped": (
        lambda w, x: w.layer(x),
        {},
        lambda: nn.ConvTranspose2d(3, 6, 4, stride=2, groups=3),
        256 * 3 * 2 * 16,
    ),
    "padding by name, dilated": (
        lambda w, x: w.layer(x),
        {},
        lambda: nn.Conv2d(3, 4, 3, padding="same", dilation=2),
        256 * 4 * 27,
    ),
    "convolution as unfold and product": (
        lambda w, x: w.m @ F.unfold(x, 3, padding=1),
        {"m": (8, 27)},
        None,
        256 * 8 * 27,
    ),
    "locally connected, by a product": (
        lambda w, x: torch.einsum("nkl,lok->nol", F.unfold(x, 3, padding=1), w.m),
        {"m": (256, 8, 27)},
        None,
        256 * 8 * 27,
    ),
    "locally connected, pointwise: none, by convention": (
        lambda w, x: (F.unfold(x, 3, padding=1)[:, None] * w.m).sum(2),
        {"m": (8, 27, 256)},
        None,
        0,
    ),
    "cross attention": (
        lambda w, x: w.layer(tokens(x), tokens(x)[:, :4], tokens(x)[:, :4])[0],
        {},
        lambda: nn.MultiheadAttention(48, 4, batch_first=True),
        _D * _D * (_N + 4 + 4 + _N) + 2 * _N * 4 * _D,
    ),
    "attention by einsum": (
        lambda w, x: torch.einsum("bqd,bkd->bqk", tokens(x), tokens(x)).softmax(-1) @ tokens(x),
        {},
        None,
        2 * _N * _N * _D,
    ),
    "encoder layer": (
        lambda w, x: w.layer(tokens(x)),
        {},
        lambda: nn.TransformerEncoderLayer(48, 4, 96, batch_first=True),
        _N * (4 * _D * _D + 2 * _D * 96) + 2 * _N * _N * _D,
    ),
    "LSTM": (
        lambda w, x: w.layer(tokens(x))[0],
        {},
        lambda: nn.LSTM(48, 20, batch_first=True),
        _N * 4 * 20 * (48 + 20),
    ),
    "two layers of GRU, both ways": (
        lambda w, x: w.layer(tokens(x))[0],
        {},
        lambda: nn.GRU(48, 20, 2, bidirectional=True, batch_first=True),
        _N * 2 * 3 * 20 * ((48 + 20) + (40 + 20)),
    ),
    "RNN": (lambda w, x: w.layer(tokens(x))[0], {}, lambda: nn.RNN(48, 20, batch_first=True), _N * 20 * (48 + 20)),
    "LSTM cell": (lambda w, x: w.layer(tokens(x)[:, 0])[0], {}, lambda: nn.LSTMCell(48, 20), 4 * 20 * (48 + 20)),
    "deformable, first version": (
        lambda w, x: torchvision.ops.deform_conv2d(x, x.new_zeros(1, 18, 16, 16), w.m, padding=1),
        {"m": (5, 3, 3, 3)},
        None,
        256 * 5 * 27,
    ),
    "weights normalised": (
        lambda w, x: w.layer(x),
        {},
        lambda: torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1)),
        256 * 4 * 27,
    ),
    "checkpointed": (
        lambda w, x: torch.utils.checkpoint.checkpoint(w.layer, tokens(x), use_reentrant=False),
        {},
        lambda: nn.Linear(48, 9),
        _N * 48 * 9,
    ),
    "vmap": (
        lambda w, x: torch.func.vmap(lambda row: w.layer(row))(tokens(x)),
        {},
        lambda: nn.Linear(48, 9),
        _N * _D * 9,
    ),
    "one expert of two": (lambda w, x: w.layer(tokens(x)), {}, Branches, _N * 48 * 7),
    "complex numbers count as one": (
        lambda w, x: (torch.complex(tokens(x), tokens(x)) @ torch.complex(w.m, w.m)).abs(),
        {"m": (48, 6)},
        None,
        _N * 48 * 6,
    ),
}
