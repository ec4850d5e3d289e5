"""One test for every private symbol of torch that the adapter leans on, and for what they are used for."""

from __future__ import annotations

import inspect
import itertools
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from msgspec import Struct
from torch import nn

from archbench.measure import compiler


@pytest.fixture(autouse=True)
def _fresh():
    compiler.reset()
    yield
    compiler.reset()


class Plain(nn.Module):
    def forward(self, x):
        return x * 2 + 1


class Chatty(nn.Module):
    def forward(self, x):
        y = x * 2
        print("between two graphs")
        return y + 1


def compiled(module):
    torch.compiler.config.fail_on_recompile_limit_hit = True
    return torch.compile(module, backend="eager", dynamic=False)


def test_a_plain_module_compiles_whole():
    compiled(Plain())(torch.ones(2))
    counts = compiler.counts()
    assert (counts.graph_breaks, counts.recompiles, counts.fell_back) == (0, 0, False)
    assert counts.frames_total == counts.frames_compiled == 1


def test_a_hidden_graph_break_is_counted(capsys):
    compiled(Chatty())(torch.ones(2))
    assert compiler.counts().graph_breaks >= 1


def test_a_recompilation_is_counted():
    call = compiled(Plain())
    call(torch.ones(2))
    call(torch.ones(3))
    assert compiler.counts().recompiles == 1


def test_a_recompilation_inside_the_timing_raises():
    call = compiled(Plain())
    call(torch.ones(2))
    with compiler.no_recompiles():
        call(torch.ones(2))
        with pytest.raises(RuntimeError, match="recompile"):
            call(torch.ones(3))


def test_reset_forgets_the_counts(capsys):
    compiled(Chatty())(torch.ones(2))
    compiler.reset()
    assert compiler.counts() == compiler.CompileCounts(graph_breaks=0, recompiles=0, frames_total=0, frames_compiled=0)


def test_the_limit_raises_instead_of_falling_back():
    torch._dynamo.config.fail_on_recompile_limit_hit = False
    compiler.compile_module(Plain(), "default")
    call = torch.compile(Plain(), backend="eager", dynamic=False)

    def nine_shapes():
        for size in range(2, 12):
            call(torch.ones(size))

    with pytest.raises(Exception, match=r"recompile_limit|FailOnRecompileLimitHit|Hard failure"):
        nine_shapes()


def test_a_cold_cache_is_empty_and_gone_afterwards(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "before")
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    with compiler.cold_cache() as folder:
        assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) == folder
        assert Path(os.environ["TRITON_CACHE_DIR"]).is_relative_to(folder)
        assert not list(folder.iterdir())
    assert not folder.exists()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "before"
    assert "TRITON_CACHE_DIR" not in os.environ


def test_a_missing_toolchain_is_told_from_a_bug():
    from torch._inductor.exc import InvalidCxxCompiler

    assert compiler.lacks_toolchain(InvalidCxxCompiler())
    wrapped = RuntimeError("backend failed")
    wrapped.__cause__ = InvalidCxxCompiler()
    assert compiler.lacks_toolchain(wrapped)
    assert not compiler.lacks_toolchain(RuntimeError("a bug"))


def test_recorded_graphs_are_read_off_inductors_own_count_without_moving_it(monkeypatch):
    from torch._inductor import cudagraph_trees

    assert "self.graph_counter = itertools.count" in inspect.getsource(cudagraph_trees.CUDAGraphTreeManager.__init__)
    assert compiler.graphs_recorded() == 0, "nothing was recorded on a CPU"
    manager = SimpleNamespace(graph_counter=itertools.count())
    monkeypatch.setattr(cudagraph_trees, "get_manager", lambda create_if_none_exists: manager)
    assert [next(manager.graph_counter), next(manager.graph_counter)] == [0, 1]
    assert compiler.graphs_recorded() == compiler.graphs_recorded() == 2


class Call(Struct):
    key: str
    count: int


@pytest.mark.parametrize(
    ("calls", "launches"),
    [
        ([Call("cudaGraphLaunch", 3), Call("cudaDeviceSynchronize", 1)], 3),
        ([Call("cuGraphLaunch", 1), Call("aten::add", 5)], 1),
        ([Call("cudaLaunchKernel", 40), Call("aten::cudnn_convolution", 4)], 0),
        ([Call("aten::add", 5), Call("cuda graphs of ours", 1)], None),
        ([], None),
    ],
)
def test_a_profiler_that_saw_no_call_of_the_runtime_says_nothing_of_graphs(calls, launches, monkeypatch):
    class Session:
        def __init__(self, activities):
            assert len(activities) == 2

        __enter__ = __exit__ = lambda self, *_: self

        def key_averages(self):
            return calls

    monkeypatch.setattr(torch.profiler, "profile", Session)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert compiler.cuda_graph_launches(lambda: None) == launches


@pytest.mark.slow
def test_inductor_fills_the_cache_that_it_was_given():
    with compiler.cold_cache() as folder, torch.inference_mode():
        call = compiler.compile_module(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "default")
        call(torch.ones(2, 4))
        assert any(folder.rglob("*.py"))
