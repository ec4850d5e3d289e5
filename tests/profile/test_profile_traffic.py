"""Bytes and FLOP of a real step, against formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from archbench.profiler.boundaries import LOSS, Boundaries, Owner
from archbench.profiler.rows import Traffic

FLOAT = 4


def watch(module: nn.Module, x: Tensor, *, train: bool) -> Traffic:
    boundaries = Boundaries(module, lambda: None)
    traffic = Traffic(boundaries)
    with boundaries, traffic.watching([*module.parameters(), x]):
        boundaries.start(afterwards=LOSS)
        if train:
            loss = module(x).sum()
            boundaries.follow_backward(loss)
            loss.backward()
        else:
            with torch.no_grad():
                module(x)
        boundaries.end()
    return traffic


def test_a_convolution_by_hand() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False))
    x = torch.randn(2, 3, 10, 10)
    work = watch(module, x, train=False).by_owner[Owner("0", backward=False)]
    assert work.flops == 2 * (2 * 8 * 10 * 10) * (3 * 3 * 3)
    assert work.bytes_moved == FLOAT * (2 * 3 * 100 + 8 * 27 + 2 * 8 * 100)


def test_backward_counts_both_gradients_but_none_of_the_image() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, bias=False))
    traffic = watch(module, torch.randn(2, 3, 10, 10), train=True)
    flops = {owner: work.flops for owner, work in traffic.by_owner.items()}
    assert flops[Owner("0", backward=True)] == flops[Owner("0", backward=False)]
    assert flops[Owner("1", backward=True)] == 2 * flops[Owner("1", backward=False)]


@pytest.mark.parametrize("groups", [1, 4, 32])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_backward_is_twice_the_forward_with_groups_strides_and_transposed(kind, groups: int, stride: int) -> None:
    module = nn.Sequential(kind(32, 64, 3, stride=stride, padding=1, groups=groups, bias=False))
    traffic = watch(module, torch.randn(2, 32, 10, 10, requires_grad=True), train=True)
    flops = {owner: work.flops for owner, work in traffic.by_owner.items()}
    points = (10 if stride == 1 or kind is nn.ConvTranspose2d else 5) ** 2
    assert flops[Owner("0", backward=False)] == 2 * (2 * points) * (64 * 32 // groups) * (3 * 3)
    assert flops[Owner("0", backward=True)] == 2 * flops[Owner("0", backward=False)]


def test_fused_attention_on_the_cpu_is_counted() -> None:
    class Attends(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    traffic = watch(Attends(), torch.randn(2, 4, 16, 8), train=False)
    assert traffic.by_owner[Owner("", backward=False)].flops == 2 * (2 * 2 * 4 * 16 * 16 * 8)


def test_in_place_writes_views_move_nothing_and_new_memory_is_told() -> None:
    class Code(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1  # reads x, writes y
            y.relu_()  # reads and writes y
            return y.view(-1)[::2]  # nothing

    x = torch.randn(100)
    traffic = watch(Code(), x, train=False)
    assert traffic.by_owner[Owner("", backward=False)].bytes_moved == FLOAT * 400
    assert traffic.written[Owner("", backward=False)] == FLOAT * 200


def test_an_expanded_operand_is_read_once() -> None:
    class Code(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.expand(50, 100) * 2

    traffic = watch(Code(), torch.randn(1, 100), train=False)
    assert traffic.by_owner[Owner("", backward=False)].bytes_moved == FLOAT * (100 + 5000)


def test_what_is_kept_for_backward_counts_once_and_by_its_first_keeper() -> None:
    module = nn.Sequential(nn.Linear(10, 20), nn.ReLU(inplace=True), nn.Linear(20, 5))
    traffic = watch(module, torch.randn(3, 10), train=True)
    # The image is there anyway; the ReLU keeps its result, which the last layer keeps too.
    assert dict(traffic.saved) == {"1": FLOAT * 3 * 20}
