"""Compiled kernels and the modules they were made from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from archbench.profiler.kernels import Written, attribute
from archbench.profiler.operators import Ran, _bound

FORWARD = (
    Written("fused_0", ("stem",)),
    Written("convolution", ("a.conv",)),
    Written("fused_relu_1", ("a.norm", "a.relu")),
    Written("convolution", ("b.conv",)),
    Written("fused_relu_1", ("b.norm", "b.relu")),
)
BACKWARD = (Written("fused_0", ("head",)), Written("convolution_backward", ("b.conv",)))


def run(*names: str) -> list[Ran]:
    return [Ran(name, 1.0) for name in names]


def test_the_same_kernel_called_twice_belongs_to_each_call_in_turn() -> None:
    found = attribute(run("fused_0", "convolution", "fused_relu_1", "convolution", "fused_relu_1"), [BACKWARD, FORWARD])
    assert [one.modules for one in found] == [one.modules for one in FORWARD]


def test_the_graph_that_fits_best_is_the_one() -> None:
    found = attribute(run("fused_0", "convolution_backward"), [FORWARD, BACKWARD])
    assert [one.modules for one in found] == [("head",), ("b.conv",)]


def test_what_nobody_wrote_is_unmapped() -> None:
    found = attribute(run("empty", "convolution", "copy_", "fused_relu_1"), [FORWARD])
    assert [one.modules for one in found] == [(), ("a.conv",), (), ("a.norm", "a.relu")]
    assert [one.modules for one in attribute(run("convolution"), [])] == [()]


@pytest.mark.slow
def test_inductor_says_what_its_kernels_are_for() -> None:
    import odd_networks
    import torch

    from archbench.device.kind import kind_of
    from archbench.measure.workload import Workload
    from archbench.model.cell import Cell, Network
    from archbench.profiler.kernels import map_kernels

    device = torch.device("cpu")
    cell = Cell(network=Network(name="lenet5"), batch_size=2, phase="training", compile_mode="default")
    module = odd_networks.in_place()
    found = map_kernels(
        lambda: Workload(cell, module, (3, 8, 8), device, ring=1, seed=0),
        kind_of(device).clock(device),
        1.0,
        lambda _: 0.5,
    )
    named = {path for kernel in found.kernels for path in kernel.modules}
    assert {"stem", "blocks.0.conv", "blocks.1.conv", "head"} <= named
    assert found.mapped_share > 0.8


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("aten::_flash_attention_forward", None),
        ("mkldnn::_linear_pointwise", None),
        ("aten::_addmm_activation", None),
        ("aten::upsample_bilinear2d", "memory"),
        ("aten::_convert_indices_from_coo_to_csr", "memory"),
        ("aten::native_batch_norm", "memory"),
    ],
)
def test_a_product_of_unknown_size_is_not_called_memory_bound(name: str, bound: str | None) -> None:
    assert _bound(SimpleNamespace(key=name, input_shapes=[]), {}, None) == bound
