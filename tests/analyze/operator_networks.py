"""Networks whose operators torch's own counter does not know, or that cannot be counted in the usual way."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention

SIDE, WIDTH = 16, 6
CELLS = (SIDE // 2) ** 2
STEM = CELLS * WIDTH * 3 * 4


class Stem(nn.Module):
    """[n, 3, 16, 16] to [n, 64, 6], in 64 x 6 x 12 MACs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 2, 2)
        self.weight = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Any:
        return self.after(self.stem(x).flatten(2).transpose(1, 2))

    def after(self, tokens: Tensor) -> Any:
        raise NotImplementedError


class Vector(Stem):
    macs = CELLS * WIDTH

    def after(self, tokens: Tensor) -> Any:
        return torch.mv(tokens[0], self.weight)


class Dot(Stem):
    macs = WIDTH

    def after(self, tokens: Tensor) -> Any:
        return tokens[0, 0] @ self.weight


class AddedVector(Stem):
    macs = CELLS * WIDTH

    def after(self, tokens: Tensor) -> Any:
        return torch.addmv(tokens[0, :, 0], tokens[0], self.weight)


class Outer(Stem):
    macs = WIDTH * WIDTH

    def after(self, tokens: Tensor) -> Any:
        return torch.outer(tokens[0, 0], self.weight)


class Ger(Stem):
    macs = CELLS * WIDTH

    def after(self, tokens: Tensor) -> Any:
        return torch.ger(tokens[0, :, 0], self.weight)


class Kronecker(Stem):
    macs = CELLS * WIDTH * WIDTH

    def after(self, tokens: Tensor) -> Any:
        return torch.kron(tokens[0].contiguous(), self.weight[None])


class Distances(Stem):
    macs = CELLS * CELLS * WIDTH

    def after(self, tokens: Tensor) -> Any:
        return torch.cdist(tokens, tokens)


class Bilinear(Stem):
    macs = CELLS * 5 * WIDTH * WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Bilinear(WIDTH, WIDTH, 5)

    def after(self, tokens: Tensor) -> Any:
        return self.mix(tokens, tokens)


class Contraction(Stem):
    macs = CELLS * WIDTH

    def after(self, tokens: Tensor) -> Any:
        return torch.einsum("nlc,c->nl", tokens, self.weight)


class Deformed(nn.Module):
    """Two groups, with a mask, as in the second version."""

    macs = 14 * 14 * 8 * (4 // 2) * 9
    stem = 0

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 2, 3, 3))

    def forward(self, x: Tensor) -> Any:
        x = torch.cat([x, x[:, :1]], 1)
        offset, mask = x.new_zeros(1, 18, 14, 14), x.new_ones(1, 9, 14, 14)
        return torchvision.ops.deform_conv2d(x, offset, self.kernel, mask=mask)


class SparseTimes(Stem):
    macs = 3 * WIDTH

    def __init__(self) -> None:
        super().__init__()
        places = torch.tensor([[0, 1, 1], [5, 6, 7]], device="cpu")
        self.register_buffer("graph", torch.sparse_coo_tensor(places, torch.ones(3, device="cpu"), (2, CELLS)))

    def after(self, tokens: Tensor) -> Any:
        return torch.sparse.mm(self.graph, tokens[0])  # type: ignore[arg-type]


class SparseBatch(SparseTimes):
    def __init__(self) -> None:
        super().__init__()
        self.graph: Tensor = torch.stack([self.get_buffer("graph")])

    def after(self, tokens: Tensor) -> Any:
        return torch.bmm(self.graph, tokens)


class TimeFirst(Stem):
    macs = CELLS * 3 * 5 * WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.randn(3, WIDTH, 5)), nn.Parameter(torch.randn(5))

    def after(self, tokens: Tensor) -> Any:
        return torch.conv_tbc(tokens.transpose(0, 1).contiguous(), self.kernel, self.bias, 1)


class BytesOfWeights(Stem):
    macs = CELLS * WIDTH * 7

    def after(self, tokens: Tensor) -> Any:
        weight = torch.ones(7, WIDTH, dtype=torch.int8, device=tokens.device)
        scales = torch.ones(7, dtype=torch.bfloat16, device=tokens.device)
        return torch.ops.aten._weight_int8pack_mm(tokens[0].bfloat16(), weight, scales)


class Weightless(nn.Module):
    """Whose operator, a comparison inside, cannot do without data."""

    macs = 3 * SIDE * 3 * SIDE * SIDE
    stem = 0

    def forward(self, x: Tensor) -> Any:
        return torch.cov(x[0].flatten(0, 1))


class Lazy(nn.Module):
    macs = STEM + CELLS * WIDTH * 7
    stem = 0

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.LazyConv2d(WIDTH, 2, 2), nn.LazyBatchNorm2d(), nn.LazyLinear(7)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.norm(self.first(x)).flatten(2).transpose(1, 2))


class Scripted(Stem):
    macs = CELLS * WIDTH * 4

    def __init__(self) -> None:
        super().__init__()
        self.inner: Any = torch.jit.script(nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU()))

    def after(self, tokens: Tensor) -> Any:
        return self.inner(tokens)


class Compiled(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.compile(nn.Linear(WIDTH, 4), backend="eager")


class Sensitivity(nn.Module):
    """How its output follows its input: the gradient is part of the forward pass."""

    macs = 2 * STEM
    stem = 0

    def __init__(self) -> None:
        super().__init__()
        self.stem_ = nn.Conv2d(3, WIDTH, 2, 2)

    def forward(self, x: Tensor) -> Any:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.stem_(x).sigmoid().sum(), x)[0]


class Quantised(Stem):
    macs = CELLS * WIDTH * 9

    def __init__(self) -> None:
        super().__init__()
        with torch.device("cpu"):
            inner = nn.Sequential(nn.Linear(WIDTH, 9))
            self.inner = torch.ao.quantization.quantize_dynamic(inner, {nn.Linear}, dtype=torch.qint8)

    def after(self, tokens: Tensor) -> Any:
        return self.inner(tokens)


class QuantisedConvolution(nn.Module):
    """All of it packed: no parameter tells where it lies."""

    macs = STEM
    stem = 0

    def __init__(self) -> None:
        super().__init__()
        ao = torch.ao.quantization
        with torch.device("cpu"):
            body = nn.Sequential(ao.QuantStub(), nn.Conv2d(3, WIDTH, 2, 2), nn.ReLU(), ao.DeQuantStub()).eval()
            body.qconfig = ao.get_default_qconfig("x86")  # type: ignore[assignment]
            ao.prepare(body, inplace=True)
            body(torch.randn(2, 3, SIDE, SIDE))
            self.body = ao.convert(body)

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


class Computed(Stem):
    """A layer that makes its weight; what it is called is nobody's business."""

    macs = CELLS * WIDTH * WIDTH

    def after(self, tokens: Tensor) -> Any:
        return tokens @ self.get_weight(1.0)

    def get_weight(self, scale: float) -> Tensor:
        return self.weight.diag() * scale


class Hidden(Stem):
    """Layers in a plain list: torch does not see them."""

    macs = CELLS * (WIDTH * 4 + 4 * 5)

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(WIDTH, 4), nn.Linear(4, 5)]

    def after(self, tokens: Tensor) -> Any:
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


class Exported(nn.Module):
    macs = CELLS * WIDTH * 4
    stem = STEM

    def __new__(cls) -> Any:
        with torch.device("cpu"):
            return torch.export.export(Tokens().eval(), (torch.zeros(1, 3, SIDE, SIDE),)).module()


class Tokens(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, 4)

    def after(self, tokens: Tensor) -> Any:
        return self.inner(tokens)


class Bag(Stem):
    """Rows of a table, each times a weight; those that are only summed have no product."""

    macs = 2 * WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.weighted = nn.EmbeddingBag(9, WIDTH, mode="sum"), nn.EmbeddingBag(9, WIDTH, mode="sum")

    def after(self, tokens: Tensor) -> Any:
        ids = tokens[:, :2].argmax(-1)
        return self.plain(ids) + self.weighted(ids, per_sample_weights=tokens[:, :2, 0])


class SparseAdded(SparseTimes):
    def after(self, tokens: Tensor) -> Any:
        return torch.sparse.addmm(tokens[0, :2], self.graph, tokens[0])


class Flexible(Stem):
    macs = 2 * CELLS * CELLS * WIDTH

    def after(self, tokens: Tensor) -> Any:
        heads = tokens[:, None]
        return flex_attention(heads, heads, heads)


class Chosen(Stem):
    """One of two branches, by a value."""

    macs = CELLS * WIDTH * 3

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3)

    def after(self, tokens: Tensor) -> Any:
        return torch.cond(tokens.sum() > 1e9, self.wide, self.narrow, (tokens,))


class QuantisedRecurrence(Stem):
    macs = CELLS * 2 * 4 * 5 * ((WIDTH + 5) + (2 * 5 + 5)) + CELLS * 3 * 7 * (10 + 7)

    def __init__(self) -> None:
        super().__init__()
        with torch.device("cpu"):
            body = nn.ModuleList((nn.LSTM(WIDTH, 5, 2, bidirectional=True, batch_first=True), nn.GRU(10, 7)))
            self.body = torch.ao.quantization.quantize_dynamic(body, {nn.LSTM, nn.GRU}, dtype=torch.qint8)

    def after(self, tokens: Tensor) -> Any:
        return self.body[1](self.body[0](tokens)[0].transpose(0, 1))[0]


class Spectrum(Stem):
    """Arithmetic for which there is no formula: the figure is a lower bound."""

    macs = 0
    unknown = ("aten.fft_rfft",)

    def after(self, tokens: Tensor) -> Any:
        return F.relu(torch.fft.rfft(tokens, dim=1).real)


ALL = (
    *(Vector, Dot, AddedVector, Outer, Ger, Kronecker, Distances, Bilinear, Contraction, Deformed, SparseTimes, Lazy),
    *(Scripted, Compiled, Sensitivity, Quantised, QuantisedConvolution, Computed, Hidden, Exported, Spectrum),
    *(Bag, SparseAdded, Flexible, Chosen, QuantisedRecurrence, SparseBatch, TimeFirst, BytesOfWeights, Weightless),
)


TABLES: dict[int, Tensor] = {}


class Remembering(Stem):
    """Makes a table at its first call and keeps it for the process, as rotary embeddings and anchors are kept."""

    macs = 0

    def after(self, tokens: Tensor) -> Any:
        length = int(tokens.shape[1])  # while it is traced, a tensor
        if length not in TABLES:
            TABLES[length] = torch.linspace(0, 1, length, device=tokens.device)
        return tokens + TABLES[length][:, None]


class OneByOne(Stem):
    """One image of the batch after the other: a probe of a thousand million images never ends."""

    macs = 0

    def after(self, tokens: Tensor) -> Any:
        return torch.stack([one.mean(0) for one in tokens])


class ViewByView(Stem):
    """The same, in views: nothing is allocated for an image."""

    macs = 0

    def after(self, tokens: Tensor) -> Any:
        return [{"boxes": one[None]} for one in tokens]


class ThousandByThousand(Stem):
    """The same, by so many that small probes see nothing of it."""

    macs = 0

    def after(self, tokens: Tensor) -> Any:
        for _ in range(len(tokens) // 1000):
            tokens = tokens + 1
        return tokens


class Crosswise(Stem):
    """Holds something of every pair of images: at a thousand million that is more than a byte for each pair."""

    macs = 0

    def after(self, tokens: Tensor) -> Any:
        means = tokens.mean((1, 2))
        return (means[:, None] - means[None]).abs().sum(1)[:, None, None].expand(-1, 64, 1000).contiguous()
