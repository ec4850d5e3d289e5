"""What needs torch to judge a claim: what a network says of itself once it is built, and small experiments.

The former is without data. An experiment is done here and now, about signals, gradients or initialisation: it gives one
number, or one for each of three seeds, from which an interval is made.
"""

from __future__ import annotations

import itertools
import timeit
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial, wraps
from typing import ParamSpec

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from archbench.analyze.counts import count
from archbench.analyze.memory import predict_cell
from archbench.catalog import resolve
from archbench.catalog.build import build, input_shape
from archbench.model.axes import Scalar
from archbench.model.cell import Cell, Network
from archbench.model.errors import UsageError

P = ParamSpec("P")
SEEDS = (0, 1, 2)
BATCH = 32
_SIDE = 64
"""Of the vectors and matrices of the toy experiments."""
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


def _named(name: str, options: Mapping[str, Scalar]) -> Network:
    return Network(name=resolve(name).name, options=dict(options))


@cache
def _built(network: Network) -> nn.Module:
    with torch.device("meta"):
        return build(network).eval()


def counted(column: str, name: str, **options: Scalar) -> float:
    """A count of the analyzer, for options that no table has."""
    return float(getattr(count(_named(name, options)), column))


def modules(name: str, kind: str, **options: Scalar) -> int:
    """How many modules of a class the network has: `Conv2d`, `Inception`."""
    return sum(type(one).__name__ == kind for one in _built(_named(name, options)).modules())


def kernels(name: str, size: int, **options: Scalar) -> int:
    """How many convolutions have square filters of this side."""
    found = (one for one in _built(_named(name, options)).modules() if isinstance(one, nn.Conv2d))
    return sum(one.kernel_size == (size, size) for one in found)


def attribute(name: str, path: str, **options: Scalar) -> float:
    """A number that a module has: `conv1.stride`; of a pair the first. Raises `UsageError` where it has none."""
    place, _, last = path.rpartition(".")
    found = getattr(_part(name, place, options), last, None)
    found = found[0] if isinstance(found, tuple) else found
    if isinstance(found, int | float):
        return float(found)
    if last == "bias":
        return float(found is not None)
    raise UsageError(f"{name}: {place or 'the network'} has no number {last!r}")


def part_params(name: str, path: str, **options: Scalar) -> int:
    """Parameters of a part of a network, by its path, those of its own parts included."""
    return sum(one.numel() for one in _part(name, path, options).parameters())


def channels(name: str, path: str, **options: Scalar) -> int:
    """Channels of what a part gives."""
    return _shape(name, path, options)[1]


def side(name: str, path: str, **options: Scalar) -> int:
    """Height in pixels of what a part gives, at the network's native input."""
    return _shape(name, path, options)[2]


def training_bytes(name: str, batch: int, **options: Scalar) -> int:
    """Predicted peak memory of a training step in fp32, by the analyzer, bytes."""
    return predict_cell(Cell(network=_named(name, options), batch_size=batch, phase="training")).peak_bytes(batch)


def _part(name: str, path: str, options: dict[str, Scalar]) -> nn.Module:
    try:
        return _built(_named(name, options)).get_submodule(path)
    except AttributeError as error:
        raise UsageError(f"{name} has no part {path!r}: {error}") from None


def _shape(name: str, path: str, options: dict[str, Scalar]) -> tuple[int, ...]:
    network, seen = _named(name, options), list[tuple[int, ...]]()
    hook = _part(name, path, options).register_forward_hook(lambda module, given, out: seen.append(tuple(out.shape)))
    with torch.no_grad():
        _built(network)(torch.empty(1, *input_shape(network), device="meta"))
    hook.remove()
    return seen[0]


def _derivatives(function: str, low: float, high: float) -> Tensor:
    x = torch.linspace(low, high, 16001, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(_FUNCTIONS[function](x).sum(), x)[0]


def max_derivative(function: str, low: float = -8.0, high: float = 8.0) -> float:
    """The largest derivative between two places, by autograd at 16,001 points."""
    return float(_derivatives(function, low, high).max())


def mean_derivative(function: str, low: float = -8.0, high: float = 8.0) -> float:
    """The mean derivative between two places, by autograd at 16,001 points."""
    return float(_derivatives(function, low, high).mean())


def _from_each_seed(experiment: Callable[P, float]) -> Callable[P, list[float]]:
    """The experiment done once from each of `SEEDS`."""

    @wraps(experiment)
    def repeated(*arguments: P.args, **options: P.kwargs) -> list[float]:
        found = []
        for seed in SEEDS:
            torch.manual_seed(seed)
            found.append(experiment(*arguments, **options))
        return found

    return repeated


@_from_each_seed
def init_variance(init: str, fan_in: int, fan_out: int) -> float:
    """Variance of weights that torch draws by `xavier` or `he`, normal."""
    weight = torch.empty(fan_out, fan_in)
    if init == "he":
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
    else:
        nn.init.xavier_normal_(weight)
    return float(weight.var())


def _batchnorm() -> Tensor:
    torch.manual_seed(0)
    found: Tensor = nn.BatchNorm2d(8).train()(3 + 5 * torch.randn(BATCH, 8, 16, 16)).detach()
    return found.transpose(0, 1).flatten(1)


def batchnorm_mean() -> float:
    """The largest mean, over channels, of what batch normalisation gives in training."""
    return float(_batchnorm().mean(1).abs().max())


def batchnorm_std() -> float:
    """The deviation, in the channel where it is furthest from 1."""
    found = _batchnorm().std(1)
    return float(found[(found - 1).abs().argmax()])


def _network(name: str, options: dict[str, Scalar]) -> tuple[nn.Module, Tensor]:
    network = _named(name, options)
    return build(network).train(), torch.randn(BATCH, *input_shape(network))


def _size(tensor: Tensor) -> Tensor:
    return tensor.pow(2).mean().sqrt()


@_from_each_seed
def gradient_ratio(name: str, **options: Scalar) -> float:
    """Gradient by the first weight layer's output over that by the last hidden one's, untrained, in training mode."""
    net, inputs = _network(name, options)
    outputs: list[Tensor] = []
    layers = [one for one in net.modules() if isinstance(one, nn.Conv2d | nn.Linear)][:-1]
    for one in (layers[0], layers[-1]):
        one.register_forward_hook(lambda module, given, out: outputs.append(out))
    loss = nn.functional.cross_entropy(net(inputs), torch.arange(BATCH) % 10)
    first, last = torch.autograd.grad(loss, outputs)
    return float(_size(first) / _size(last))  # per element: layers differ in how many outputs they have


@_from_each_seed
def signal_ratio(name: str, **options: Scalar) -> float:
    """Root mean square of a network's features over that of its input, untrained."""
    network = _named(name, options)
    if network.name.endswith(("probe", "chain")):
        network = replace(network, head="none")
    inputs = torch.randn(BATCH, *input_shape(network))
    with torch.no_grad():
        return float(_size(build(network).train()(inputs)) / _size(inputs))


def receptive_field(name: str) -> int:
    """Side in pixels of the square of the input that one pixel of the output depends on."""
    torch.manual_seed(0)
    net = build(Network(name=resolve(name).name, in_channels=1)).double()
    for weight in net.parameters():
        nn.init.ones_(weight)
    image = torch.rand(1, 1, 31, 31, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(net(image)[0, 0, 15, 15], image)[0]
    return int((gradient[0, 0].abs().sum(0) > 0).sum())


def dropout_masks(units: int) -> int:
    """How many subsets dropout can choose of so many units, counted one by one."""
    return len(set(itertools.product((False, True), repeat=units)))


def shortcut_jacobian() -> float:
    """How far, at most, the derivative of x + F(x) less that of F(x) is from the identity."""
    torch.manual_seed(0)
    branch = nn.Sequential(nn.Linear(_SIDE, _SIDE), nn.Tanh(), nn.Linear(_SIDE, _SIDE)).double()
    x = torch.randn(_SIDE, dtype=torch.float64)
    jacobian: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor] = torch.autograd.functional.jacobian
    with_shortcut, without = jacobian(lambda v: v + branch(v), x), jacobian(branch, x)
    return float((with_shortcut - without - torch.eye(_SIDE, dtype=torch.float64)).abs().max())


@_from_each_seed
def zero_share(name: str, **options: Scalar) -> float:
    """The share of activations after ReLUs that are 0, untrained, on noise."""
    net, inputs = _network(name, options)
    zeros: list[Tensor] = []
    for one in net.modules():
        if isinstance(one, nn.ReLU):
            one.register_forward_hook(lambda module, given, out: zeros.append((out == 0).flatten()))
    with torch.no_grad():
        net(inputs[:4])
    return float(torch.cat(zeros).float().mean())


def sparse_slowdown(density: float, side: int = 512) -> list[float]:
    """Time of a sparse (CSR) matrix product over that of the dense one, in turns; above 1 sparse is slower."""
    torch.manual_seed(0)
    kept = torch.rand(side, side) < density
    dense, other = torch.randn(side, side) * kept, torch.randn(side, side)
    with warnings.catch_warnings():  # that the format is in beta
        warnings.simplefilter("ignore")
        sparse = dense.to_sparse_csr()
    found = []
    for _ in range(7):
        times = [_timed(partial(torch.matmul, left, other)) for left in (sparse, dense)]
        found.append(times[0] / times[1])
    return found


def _timed(work: Callable[[], object]) -> float:
    work()
    return min(timeit.repeat(work, number=1, repeat=9))


@_from_each_seed
def identity_loss(kind: str) -> float:
    """Mean squared error after 200 steps of learning the identity by two layers, `plain` or `residual`."""
    branch = nn.Sequential(nn.Linear(_SIDE, _SIDE), nn.ReLU(), nn.Linear(_SIDE, _SIDE))
    optimizer = torch.optim.SGD(branch.parameters(), 0.1)
    for _ in range(200):
        x = torch.randn(128, _SIDE)
        loss = (branch(x) + (x if kind == "residual" else 0) - x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())
