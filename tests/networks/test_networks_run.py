"""Every own network with real numbers on the CPU: forward, backward, determinism, torch.compile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from networks_truth import TRUTH, builders
from torch import Tensor, nn

QUICK = {"lenet5", "scse", "toy_residual_block"}
OPTIONS: list[tuple[str, dict[str, object]]] = [
    ("lenet5", {"variant": "common"}),
    ("googlenet_paper", {"aux_logits": True}),
    ("capsnet", {"reconstruction": True}),
    ("wrn28_10_cifar", {"dropout": 0.3}),
    ("mlp_probe", {"batch_norm": True, "activation": "tanh"}),
]
CASES = [
    *(pytest.param(key, {}, id=key, marks=() if key in QUICK else pytest.mark.slow) for key in sorted(TRUTH)),
    *(
        pytest.param(key, options, id=f"{key}-{next(iter(options))}", marks=pytest.mark.slow)
        for key, options in OPTIONS
    ),
]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.compiler.reset()


def inputs(key: str) -> Tensor:
    return torch.randn(2, *TRUTH[key].input)


def tensors(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (output,) if isinstance(output, Tensor) else output


def step(net: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Outputs of a training step, after its backward pass."""
    outputs = tensors(net(x))
    sum(output.square().mean() for output in outputs).backward()  # type: ignore[union-attr]
    return outputs


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("key", "options"), CASES)
def test_runs_learns_repeats_and_compiles_in_one_graph(key: str, options: dict[str, object]) -> None:
    net = builders()[key](**options)
    x = inputs(key)

    assert all(output.isfinite().all() for output in step(net.train(), x))
    dead = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert not dead, "a parameter takes no part in the output"
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())  # type: ignore[union-attr]

    net.eval()
    with torch.no_grad():
        first, second = tensors(net(x)), tensors(net(x))
    assert tuple(first[0].shape[1:]) == TRUTH[key].output
    assert all(a.isfinite().all() for a in first)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    compiled = torch.compile(net, backend="eager", fullgraph=True, dynamic=False)
    assert isinstance(compiled, nn.Module)
    step(compiled.train(), x)
    if key in QUICK or options:
        # Tracing takes most of the time: of the evaluation graph, these stand for all.
        with torch.no_grad():
            third = tensors(compiled.eval()(x))
        assert all(a.shape == b.shape and b.isfinite().all() for a, b in zip(first, third, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("key", ["resnet1202_cifar", "preact_resnet1001_cifar", "pyramidnet110_a270"])
def test_untrained_evaluation_stays_in_range(key: str) -> None:
    # Without the damped branches a residual sum doubles its variance with every unit: 2^333 in the second of these.
    net = builders()[key](head="none").eval()
    with torch.no_grad():
        assert 1e-2 < float(net(inputs(key)).square().mean()) < 1e2


def test_no_torchscript() -> None:
    with torch.device("meta"):
        nets = [builder() for key, builder in builders().items() if key in QUICK]
    assert not any(isinstance(module, torch.jit.ScriptModule) for net in nets for module in net.modules())
