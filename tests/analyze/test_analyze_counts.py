"""Single layers against closed forms; what a whole network's count says beside MACs."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from archbench.analyze.counts import count, count_module
from archbench.model.cell import Network
from archbench.model.counts import Counts
from archbench.model.errors import UsageError


def macs(module: nn.Module, *shape: int) -> int:
    return count_module(module, shape).macs


@settings(max_examples=20, deadline=None)
@given(
    groups=st.integers(1, 3),
    width_in=st.integers(1, 3),
    width_out=st.integers(1, 3),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
)
def test_convolution(
    groups: int, width_in: int, width_out: int, kernel: int, stride: int, padding: int, dilation: int, bias: bool
) -> None:
    c_in, c_out = groups * width_in, groups * width_out
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation, groups, bias)
    counts = count_module(conv, (c_in, 13, 11))
    high, wide = ((side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for side in (13, 11))
    assert counts.activations == c_out * high * wide
    assert counts.macs == counts.activations * kernel**2 * width_in
    assert counts.flops == 2 * counts.macs
    assert counts.params == c_out * width_in * kernel**2 + c_out * bias
    assert counts.depth == 1


def test_depthwise_convolution_is_not_dense() -> None:
    assert macs(nn.Conv2d(32, 32, 3, padding=1, groups=32), 32, 7, 7) == 32 * 7 * 7 * 9


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution_takes_one_kernel_per_input_element(groups: int) -> None:
    conv = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=groups)
    assert macs(conv, 4, 5, 5) == 4 * 5 * 5 * (6 // groups) * 9


@pytest.mark.parametrize("tokens", [(), (9,)])
def test_linear(tokens: tuple[int, ...]) -> None:
    counts = count_module(nn.Linear(10, 7), (*tokens, 10))
    assert counts.macs == math.prod(tokens) * 70
    assert (counts.params, counts.activations, counts.depth) == (77, math.prod(tokens) * 7, 1)


class SelfAttention(nn.Module):
    """[N, T, C] through torch's own attention module."""

    def __init__(self, width: int, heads: int, *, weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.weights)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("weights", [False, True])
def test_multi_head_attention(weights: bool) -> None:
    """Three projections in, scores, scores times values, one projection out; fused or not."""
    tokens, width, heads = 5, 12, 3
    counts = count_module(SelfAttention(width, heads, weights=weights).eval(), (tokens, width))
    assert counts.macs == tokens * width * 3 * width + 2 * tokens * tokens * width + tokens * width * width
    assert counts.depth == 2, "the projections have weights, the two products have none"
    unfused = heads * tokens * tokens + tokens * width
    assert counts.activations == tokens * width * 4 + (unfused if weights else 0)


class BareAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x[..., :4])


def test_scaled_dot_product_attention() -> None:
    counts = count_module(BareAttention(), (2, 7, 8))
    assert counts.macs == 2 * 7 * 7 * (8 + 4)
    assert (counts.params, counts.activations, counts.depth) == (0, 0, 0)


class Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.long())  # type: ignore[no-any-return]


def test_embedding_multiplies_nothing() -> None:
    counts = count_module(Lookup(), (6,))
    assert (counts.macs, counts.activations, counts.depth, counts.params) == (0, 0, 0, 40)
    assert counts.uncounted == ()


class Gated(nn.Module):
    """Two branches, of which the longer one counts; a fixed filter and a product of data have no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.long = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.short = nn.Conv2d(4, 4, 1)
        self.unused = nn.Linear(4, 4)
        self.register_buffer("blur", torch.ones(4, 1, 3, 3))
        self.blur: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(x, self.blur, padding=1, groups=4)
        y = self.long(x) + self.short(x)
        return torch.bmm(y.flatten(2), y.flatten(2).transpose(1, 2))


def test_depth_idle_parameters_and_what_is_left_out() -> None:
    counts = count_module(Gated(), (4, 6, 6))
    assert counts.depth == 2
    assert counts.idle_params == 4 * 4 + 4
    assert counts.params == 3 * (16 + 4) + 8 + counts.idle_params
    assert counts.buffers == 36 + 4 + 4 + 1
    assert counts.weight_bytes == 4 * counts.params + 4 * (counts.buffers - 1) + 8
    assert counts.macs == 36 * (4 * 9 + 3 * 16) + 16 * 36
    assert [(u.operator, u.calls) for u in counts.uncounted] == [
        ("aten.add", 1), ("aten.batch_norm", 1), ("aten.relu_", 1)
    ]  # fmt: skip


def test_frozen_parameters_are_stored_but_not_trained() -> None:
    layer = nn.Linear(3, 2)
    layer.weight.requires_grad_(False)
    counts = count_module(layer, (3,))
    assert (counts.params, counts.weight_bytes, counts.depth) == (2, 4 * 8, 1)


def test_shared_parameters_count_once_and_are_paid_for_twice() -> None:
    shared = nn.Linear(5, 5, bias=False)
    counts = count_module(nn.Sequential(shared, shared), (5,))
    assert (counts.params, counts.macs, counts.depth) == (25, 50, 2)


class LooksAtValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if float(x.sum()) == 0 else x


def test_a_forward_that_looks_at_values_is_run_with_data() -> None:
    assert macs(LooksAtValues(), 3) == 9


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Dropout().eval())
    before = [parameter.clone() for parameter in module.parameters()]
    count_module(module, (1, 4, 4))
    assert [child.training for child in module] == [True, True, False]
    assert module[1].num_batches_tracked == 0
    assert all(torch.equal(was, now) for was, now in zip(before, module.parameters(), strict=True))
    assert not any(module._forward_hooks or child._forward_hooks for child in module)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_forward_that_fails_says_so_in_one_line() -> None:
    with pytest.raises(
        UsageError, match=r"^forward\(input\) raised RuntimeError: .*channels.* input = float32 1x3x4x4$"
    ) as caught:
        count_module(nn.Conv2d(2, 2, 1), (3, 4, 4))
    assert "\n" not in str(caught.value)


DEPTHS = [
    ("lenet5", 4),  # C1, C3, C5, F6; the output layer compares with codes that are not learned
    ("alexnet", 8),
    ("vgg16", 16),
    ("googlenet", 22),
    ("resnet18", 18),
    ("torchvision:squeezenet1_0", 18),
]
DEEPER = [
    ("inception_v3", 48),
    ("resnet152", 152),
    ("densenet121", 121),
    ("resnet110_cifar", 110),
    ("torchvision:mobilenet_v2", 53),
    ("vit_b_16", 50),  # patches, four a block, head
]


@pytest.mark.parametrize(
    ("name", "depth"), [*DEPTHS, *(pytest.param(*case, marks=pytest.mark.slow) for case in DEEPER)]
)
def test_depth_is_what_the_papers_count(name: str, depth: int) -> None:
    assert count(Network(name=name)).depth == depth


@pytest.fixture(scope="module")
def resnet50() -> Counts:
    return count(Network(name="resnet50"))


def test_resnet50_activations_are_those_of_the_regnet_paper(resnet50: Counts) -> None:
    """Radosavovic et al. 2020, table 5: 11.1 M."""
    assert resnet50.activations == pytest.approx(11.1e6, rel=0.005)
    assert resnet50.activation_bytes == 4 * resnet50.activations


def test_stages_of_a_resnet(resnet50: Counts) -> None:
    shapes = {stage.name: stage.output_shape for stage in resnet50.stages}
    assert shapes == {
        "conv1": (64, 112, 112),
        "maxpool": (64, 56, 56),
        "layer1": (256, 56, 56),
        "layer2": (512, 28, 28),
        "layer3": (1024, 14, 14),
        "layer4": (2048, 7, 7),
        "avgpool": (2048, 1, 1),
        "fc": (1000,),
    }
    assert sum(stage.macs for stage in resnet50.stages) == resnet50.macs


def test_a_trunk_of_many_resolutions_is_opened() -> None:
    counts = count(Network(name="densenet121"))
    names = [stage.name for stage in counts.stages]
    assert names[:4] == ["features.conv0", "features.pool0", "features.denseblock1", "features.transition1"]
    assert names[-1] == "classifier"
    assert sum(stage.macs for stage in counts.stages) == counts.macs


def test_count_follows_the_networks_departures() -> None:
    small = count(Network(name="resnet18", num_classes=10, in_channels=1, input_size=64))
    assert small.input_shape == (1, 64, 64)
    assert small.stages[-1].output_shape == (10,)
    assert count(Network(name="resnet18", head="none")).stages[-1].output_shape == (512, 7, 7)


def test_the_figures_can_be_read_without_torch() -> None:
    script = "import sys, archbench.model.counts as f; f.Counts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
