"""Whose time it is, by a clock that only the modules themselves move: every duration is known exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import odd_networks
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from archbench.profiler.boundaries import LOSS, OBSERVING, OPTIMIZER, OTHER, Boundaries, Owner, between


class Clock:
    """Stands still unless someone works."""

    def __init__(self) -> None:
        self.now = 0

    def read(self) -> int:
        return self.now

    def work(self, x: Tensor, forward: int, backward: int) -> Tensor:
        """Take `forward` now and `backward` in the backward pass."""
        clock = self

        class Work(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                clock.now += forward
                ctx.save_for_backward(x)  # which a checkpoint will have to compute again
                return x * 1

            @staticmethod
            def backward(ctx: Any, gradient: Tensor) -> Tensor:
                _ = ctx.saved_tensors
                clock.now += backward
                return gradient

        return Work.apply(x)


class Worker(nn.Module):
    """Costs 10 ahead and 100 back, times `scale`."""

    def __init__(self, clock: Clock, scale: int) -> None:
        super().__init__()
        self.clock = clock
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.clock.work(x, 10 * self.scale, 100 * self.scale)


def step(module: nn.Module, clock: Clock) -> tuple[dict[Owner, float], Boundaries[int]]:
    x = torch.ones(2, requires_grad=True)
    boundaries = Boundaries(module, clock.read)
    with boundaries:
        boundaries.start(afterwards=LOSS)
        loss = clock.work(module(x), 7, 70).sum()
        boundaries.follow_backward(loss)
        loss.backward()
        boundaries.hand_over(OPTIMIZER)
        clock.now += 3
        boundaries.end()
    had = between(boundaries.marks, lambda before, after: after - before)
    return {owner: spent for owner, spent in had.items() if spent}, boundaries


def ahead(path: str) -> Owner:
    return Owner(path, backward=False)


def back(path: str) -> Owner:
    return Owner(path, backward=True)


def test_each_module_has_its_own_time_and_the_parts_theirs() -> None:
    clock = Clock()
    module = nn.Sequential(Worker(clock, 1), nn.Sequential(Worker(clock, 2), nn.ReLU(inplace=True)), Worker(clock, 3))
    had, _ = step(module, clock)
    assert had == {
        ahead("0"): 10,
        ahead("1.0"): 20,
        ahead("2"): 30,
        ahead(LOSS): 7,
        back(LOSS): 70,
        back("2"): 300,
        back("1.0"): 200,
        back("0"): 100,
        ahead(OPTIMIZER): 3,
    }
    assert sum(had.values()) == clock.now


class Own(nn.Module):
    """Works itself between its children."""

    def __init__(self, clock: Clock, body: Callable[[Own, Tensor], Tensor]) -> None:
        super().__init__()
        self.clock = clock
        self.first = Worker(clock, 1)
        self.second = Worker(clock, 2)
        self.held = nn.ModuleList([Worker(clock, 4)])
        self.alias = self.first
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def test_code_of_the_parent_between_its_children_is_the_parents() -> None:
    clock = Clock()
    had, _ = step(Own(clock, lambda me, x: me.second(clock.work(me.first(x), 5, 50))), clock)
    assert (had[ahead("")], had[back("")]) == (5, 50)
    assert (had[back("first")], had[back("second")]) == (100, 200)


def test_branches_of_the_graph_are_told_apart() -> None:
    clock = Clock()
    had, _ = step(Own(clock, lambda me, x: me.first(x) + me.second(x) + me.held[0](x)), clock)
    assert [had[back(path)] for path in ("first", "second", "held.0")] == [100, 200, 400]


def test_a_module_called_twice_under_one_name_has_both() -> None:
    clock = Clock()
    had, boundaries = step(Own(clock, lambda me, x: me.first(me.second(me.alias(x)))), clock)
    assert (had[ahead("first")], had[back("first")]) == (20, 200)
    assert boundaries.calls["first"] == 2


def test_a_module_shared_by_two_parents_has_a_row_under_each() -> None:
    clock = Clock()
    inner = Worker(clock, 1)
    module = nn.Sequential(nn.Sequential(inner), nn.Sequential(Worker(clock, 2), inner))
    had, boundaries = step(module, clock)
    assert (had[ahead("0.0")], had[ahead("1.1")], had[back("0.0")], had[back("1.1")]) == (10, 10, 100, 100)
    assert dict(boundaries.calls) == {"": 1, "0": 1, "0.0": 1, "1": 1, "1.0": 1, "1.1": 1}


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_again_counts_as_backward(reentrant: bool) -> None:
    clock = Clock()
    body = lambda me, x: me.second(checkpoint(me.first, x, use_reentrant=reentrant))  # noqa: E731
    had, _ = step(Own(clock, body), clock)
    assert had[ahead("first")] == 10
    again = sum(spent for owner, spent in had.items() if owner.backward and owner.path in ("first", ""))
    assert again == 10 + 100
    assert sum(had.values()) == clock.now


@pytest.mark.parametrize("name", ["in_place", "shared", "gives_tuple", "gives_dict", "looks_at_values", "recomputes"])
def test_odd_networks_train_under_observation_as_without(name: str) -> None:
    torch.manual_seed(0)
    module = getattr(odd_networks, name)()
    x = torch.randn(2, 3, 8, 8)

    def gradients(watched: bool) -> list[Tensor]:
        module.zero_grad()
        boundaries = Boundaries(module, lambda: None)
        if watched:
            boundaries.__enter__()
        out = module(x)
        first = out["out"] if isinstance(out, dict) else out[0] if isinstance(out, tuple) else out
        loss = first.square().mean()
        if watched:
            boundaries.follow_backward(loss)
        loss.backward()
        boundaries.__exit__(None, None, None)
        return [weight.grad.clone() for weight in module.parameters() if weight.grad is not None]

    for plain, observed in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(plain, observed)
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_finding_the_graphs_nodes_is_nobodys_time() -> None:
    clock = Clock()
    module = Worker(clock, 1)
    boundaries = Boundaries(module, clock.read)
    with boundaries:
        boundaries.start(afterwards=LOSS)
        loss = module(torch.ones(2, requires_grad=True)).sum()
        boundaries.follow_backward(loss)
    names = [mark.owner.path for mark in boundaries.marks]
    assert names == [OTHER, "", LOSS, OBSERVING, LOSS]
