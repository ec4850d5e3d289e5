"""What the networks were written for: relations between them, options, and how signals pass through them."""

from __future__ import annotations

import pytest
import torch
from networks_truth import TRUTH, builders
from test_networks_counts import build, built, counted, params, run
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from archbench.catalog.networks.classic import C3_INPUTS
from archbench.catalog.networks.nonresidual import squash
from archbench.model.errors import UsageError


@pytest.mark.parametrize(
    ("plain", "residual"),
    [
        ("plain34", "resnet34_optA"),
        ("plain20_cifar", "resnet20_cifar"),
        ("plain56_cifar", "resnet56_cifar"),
        pytest.param("plain110_cifar", "resnet110_cifar", marks=pytest.mark.slow),
    ],
)
def test_option_a_shortcuts_cost_nothing(plain: str, residual: str) -> None:
    assert counted(plain)[:2] == counted(residual)[:2]


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110, 1202])
def test_cifar_resnet_parameters_in_closed_form(depth: int) -> None:
    units = (depth - 2) // 6
    convs = 27 * 16 + 9 * (2 * units * 16**2 + 16 * 32 + (2 * units - 1) * 32**2 + 32 * 64 + (2 * units - 1) * 64**2)
    norms = 2 * 16 + 2 * 2 * units * (16 + 32 + 64)
    assert TRUTH[f"resnet{depth}_cifar"].params == convs + norms + 64 * 10 + 10


def test_preactivation_1001_without_normalisation_is_the_published_count() -> None:
    net = built("preact_resnet1001_cifar")
    norms = sum(params(module) for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    assert params(net) - norms == 10_178_490


def test_inception_reductions_save_what_the_paper_says() -> None:
    reduced, naive = counted("inception_module_3a"), counted("inception_module_3a_naive")
    pixels = 28 * 28
    assert reduced[1] == pixels * 192 * (64 + 96 + 16 + 32) + pixels * (9 * 96 * 128 + 25 * 16 * 32)
    assert naive[1] == pixels * 192 * (64 + 9 * 128 + 25 * 32)
    assert reduced[1] / naive[1] == pytest.approx(0.42, abs=0.005)


def test_three_small_filters_against_one_large() -> None:
    stack, single = counted("conv3x3_stack3"), counted("conv7x7_single")
    assert stack[0] / single[0] == stack[1] / single[1] == 27 / 49


def test_receptive_field_of_three_small_filters_is_seven() -> None:
    block = builders()["conv3x3_stack3"](in_channels=1)
    for parameter in block.parameters():
        nn.init.ones_(parameter)
    x = torch.zeros(1, 1, 15, 15)
    x[..., 7, 7] = 1
    assert (block(x) > 0).sum() == 49


def test_depthwise_separable_against_dense() -> None:
    separable, dense = counted("conv_depthwise_separable"), counted("conv_dense")
    assert separable[0] / dense[0] == separable[1] / dense[1] == pytest.approx(1 / 256 + 1 / 9)


def test_v1_and_later_resnet50_differ_in_macs_alone() -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        later = torchvision.models.resnet50()
    assert params(later) == counted("resnet50_v1")[0]
    with FlopCounterMode(display=False) as counter:
        run(later.eval(), (3, 224, 224), batch=1)
    # Striding one layer later leaves the first 1x1 of three units at four times the pixels.
    later_1x1 = 3 * 56**2 * 256 * 128 + 3 * 28**2 * 512 * 256 + 3 * 14**2 * 1024 * 512
    assert counter.get_total_flops() // 2 - counted("resnet50_v1")[1] == later_1x1 // 4


def test_simple_vgg22_is_vgg19_and_three_convolutions() -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        vgg19 = torchvision.models.vgg19()
    extra = sum(9 * width**2 + width for width in (256, 512, 512))
    assert params(build("simple_vgg22")) == params(vgg19) + extra


def test_bn_inception_with_the_usual_departures_is_the_usual_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from archbench.catalog.networks import inception

    for row in ("4c", "4d"):
        monkeypatch.setitem(inception.BN_INCEPTION, row, inception.BN_INCEPTION[row]._replace(projection=128))
    net = build("bn_inception")
    biases = sum(module.out_channels for module in net.modules() if isinstance(module, nn.Conv2d))
    assert params(net) + biases == 11_295_240


def test_lenet_connections_and_its_common_form() -> None:
    assert sum(map(len, C3_INPUTS)) == 60
    assert len(set(C3_INPUTS)) == 16
    assert params(build("lenet5", variant="common")) == 61_706
    # Multiplications of C1, C3, C5, F6 and the output by the paper's figures 2 and table I.
    assert counted("lenet5")[1] == 25 * 6 * 28**2 + 25 * 60 * 10**2 + 25 * 16 * 120 + 120 * 84 + 84 * 10


def test_lenet_output_is_minus_the_squared_distance_to_the_codes() -> None:
    classifier = builders()["lenet5"]().classifier
    assert isinstance(classifier, nn.Sequential)
    output = classifier[-1]
    codes = output.get_buffer("codes")
    x = torch.randn(3, 84)
    distances = torch.cdist(x.double(), codes.double()).square()
    assert torch.allclose(output(x), -distances.float(), rtol=1e-4)
    assert len({tuple(code.tolist()) for code in output.codes}) == 10


def test_googlenet_auxiliary_classifiers() -> None:
    net = build("googlenet_paper", aux_logits=True)
    assert params(net) == 13_378_280
    assert run(net, (3, 224, 224)).shape == (2, 1000)
    assert [tuple(output.shape) for output in run(net.train(), (3, 224, 224))] == [(2, 1000)] * 3
    with pytest.raises(UsageError, match="aux_logits"):
        build("googlenet_paper", aux_logits=True, head="none")


def test_capsnet_reconstruction() -> None:
    net = build("capsnet", reconstruction=True)
    assert params(net) == 8_215_568
    lengths, drawing = run(net, (1, 28, 28))
    assert lengths.shape == (2, 10)
    assert drawing.shape == (2, 1, 28, 28)


def test_capsule_lengths_stay_below_one() -> None:
    vectors = torch.randn(100, 8) * torch.logspace(-3, 3, 100)[:, None]
    squashed = squash(vectors)
    lengths = vectors.norm(dim=1)
    assert torch.allclose(squashed.norm(dim=1), lengths**2 / (1 + lengths**2), atol=1e-4)
    assert torch.allclose(nn.functional.cosine_similarity(vectors, squashed), torch.ones(100), atol=1e-4)


def test_routing_follows_agreement() -> None:
    from archbench.catalog.networks.nonresidual import RoutedCapsules

    torch.manual_seed(0)
    u = squash(torch.randn(1, 20, 8))
    once, thrice = (RoutedCapsules(20, 2, iterations) for iterations in (1, 3))
    with torch.no_grad():
        # For class 0 every capsule votes alike, for class 1 at random: routing must lengthen the first.
        once.weight.normal_(std=0.1)
        once.weight[:, 0] = 0
        once.weight[:, 0, 0] = 2 * torch.nn.functional.normalize(u[0], dim=-1)
        thrice.load_state_dict(once.state_dict())
        before, after = once(u)[0].norm(dim=-1), thrice(u)[0].norm(dim=-1)
    assert after[0] > before[0]
    assert after[1] < before[1]


def gradient_ratio(key: str, **options: object) -> float:
    """Norm of the loss's gradient at the input over that at the last hidden layer, in float64."""
    torch.manual_seed(0)
    net = builders()[key](**options).double()
    x = torch.randn(64, 256, dtype=torch.float64, requires_grad=True)
    hidden = net.features(x)
    hidden.retain_grad()
    net.classifier(hidden).square().sum().backward()
    assert x.grad is not None
    assert hidden.grad is not None
    return float(x.grad.norm() / hidden.grad.norm())


def test_gradients_vanish_behind_sigmoids_and_survive_behind_relus() -> None:
    # A sigmoid's derivative is at most 1/4, and these weights keep a vector's length: at most 4^-50 = 8e-31.
    assert 1e-36 < gradient_ratio("sigmoid_chain") < 4.0**-50
    assert 0.1 < gradient_ratio("relu_chain") < 10
    assert 1e-3 < gradient_ratio("tanh_chain") < 1


def test_initialisation_decides_the_gradient_behind_relus() -> None:
    # Half of the units are off: each layer scales the gradient by sqrt(256 * variance / 2).
    xavier, normal = (gradient_ratio("mlp_probe", init=init) for init in ("xavier", "normal"))
    assert xavier == pytest.approx(2.0**-25, rel=3)
    assert normal == pytest.approx((128 * 1e-4) ** 25, rel=3)


def test_mlp_probe_options() -> None:
    assert params(build("mlp_probe", depth=2, width=8, batch_norm=True)) == 256 * 8 + 8 + 16 + 64 + 8 + 16 + 80 + 10
    for wrong in ({"activation": "gelu"}, {"init": "lecun"}, {"depth": 0}):
        with pytest.raises(UsageError, match="mlp_probe"):
            build("mlp_probe", **wrong)


@pytest.mark.parametrize(
    ("key", "option"),
    [
        ("lenet5", {"variant": "full"}),
        ("capsnet", {"routing_iterations": 0}),
        ("toy_residual_block", {"blocks": 0}),
        ("toy_dense_block", {"layers": 0}),
    ],
)
def test_options_out_of_range_are_refused(key: str, option: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=key):
        build(key, **option)


def test_toy_residual_block_with_zero_weights_is_relu() -> None:
    x = torch.randn(4, 64)
    assert torch.equal(builders()["toy_residual_block"](weight_scale=0.0)(x), x.relu())
    assert not builders()["toy_residual_block"](weight_scale=0.0, shortcut=False)(x).any()


def test_a_highway_with_closed_gates_carries() -> None:
    from archbench.catalog.networks.nonresidual import HighwayConv

    layer = HighwayConv(4)
    assert layer.gate.bias is not None
    nn.init.constant_(layer.gate.bias, -100.0)
    x = torch.randn(1, 4, 8, 8)
    assert torch.allclose(layer(x), x)


def test_fractal_columns_are_one_two_and_four_deep() -> None:
    from archbench.catalog.networks.nonresidual import Fractal

    fractal = Fractal(1, 1, columns=3).eval()
    for module in fractal.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.constant_(module.weight[..., 1, 1], 2.0)
    with torch.no_grad():
        depths = [float(column.mean()) for column in fractal.columns(torch.ones(1, 1, 4, 4))]
    # Each convolution doubles; between its halves the deepest column reads the mean of 2 and 4.
    assert depths == pytest.approx([2, 6, 12], rel=1e-3)
