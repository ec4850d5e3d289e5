"""Networks in the roles in which they are used: pyramids, folded forms, what is trained; truths in closed form."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from archbench.analyze import counts
from archbench.analyze.memory import measured_peak, predict_module
from archbench.analyze.step import prepare_training
from archbench.catalog.build import build
from archbench.catalog.inputs import takes
from archbench.catalog.roles import deployed
from archbench.measure.workload import Workload
from archbench.model.axes import Roles
from archbench.model.cell import Cell, Network
from archbench.model.errors import UnsupportedError, UsageError
from archbench.suite import suite_from_names
from archbench.suite.cells import expand, parse_cell, unsupported

CPU = torch.device("cpu")
count = cache(counts.count)
"""Several tests hold a network against its usual form, which is built once."""


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet50", (256, 512, 1024, 2048)),
        ("timm:resnet50", (256, 512, 1024, 2048)),
        ("torchvision:densenet121", (256, 512, 1024, 1024)),
        ("timm:swin_tiny_patch4_window7_224", (96, 192, 384, 768)),
        ("torchvision:convnext_tiny", (96, 192, 384, 768)),
    ],
)
def test_the_pyramid_that_a_detector_reads(name: str, channels: tuple[int, ...]) -> None:
    found = count(Network(name=name, head="features"))
    assert [(one.stride, one.channels) for one in found.pyramid] == list(zip((4, 8, 16, 32), channels, strict=True))
    assert found.params < count(Network(name=name)).params


def test_a_pyramid_at_a_detectors_size() -> None:
    small, large = (count(Network(name="resnet50", head="features", input_size=size)) for size in (224, "640x1280"))
    assert large.macs * 7 * 7 == small.macs * 20 * 40
    assert large.pyramid == small.pyramid
    assert small.macs == count(Network(name="resnet50")).macs - 2048 * 1000


def test_one_resolution_is_no_pyramid() -> None:
    with pytest.raises(UsageError, match="no maps of two strides"):
        count(Network(name="torchvision:vit_b_16", head="features"))


def repvgg_a0() -> int:
    """Weights of the deployed form by its paper: a 3x3 convolution with bias a block, widths times 0.75 and 2.5."""
    widths, blocks = (48, 48, 96, 192, 1280), (1, 2, 4, 14, 1)
    total, before = 0, 3
    for width, number in zip(widths, blocks, strict=True):
        for _ in range(number):
            total += 9 * before * width + width
            before = width
    return total + 1280 * 1000 + 1000


def test_repvgg_folds_into_its_published_form() -> None:
    trained, folded = (count(Network(name="timm:repvgg_a0", deploy=deploy)) for deploy in (False, True))
    assert folded.params == repvgg_a0() == 8_309_384  # 8.30 M as published, 9.11 M before
    assert (trained.folds, folded.params < trained.params) == (True, True)
    assert round(folded.macs / 1e9, 2) == 1.36


@pytest.mark.parametrize(
    ("name", "millions", "giga"),
    [("mobileone_s0", 2.1, 0.275), ("repvit_m1_0", 6.8, 1.1), ("fastvit_t8", 3.6, 0.7), ("ghostnetv3_100", 6.1, 0.168)],
)
def test_folded_forms_have_their_published_sizes(name: str, millions: float, giga: float) -> None:
    folded = count(Network(name=f"timm:{name}", deploy=True))
    assert folded.params / 1e6 == pytest.approx(millions, rel=0.13)
    assert folded.macs / 1e9 == pytest.approx(giga, rel=0.13)
    assert folded.params < count(Network(name=f"timm:{name}")).params


def test_batch_norms_go_into_convolutions() -> None:
    """Each of ResNet-18's 20 norms follows a convolution: two numbers a channel go, a bias a channel comes."""
    plain, folded = (count(Network(name="resnet18", deploy=deploy)) for deploy in (False, True))
    channels = 64 + 4 * 64 + 5 * 128 + 5 * 256 + 5 * 512
    assert plain.params - folded.params == channels
    assert (folded.macs, folded.buffers) == (plain.macs, 0)


class Shared(nn.Module):
    """Its first convolution is read by a norm and by the sum: it must not be folded; the second one may."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.na, self.nb = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        x = self.a(x)
        return x + self.nb(self.b(self.na(x).relu()))


def test_what_is_folded_computes_the_same() -> None:
    torch.manual_seed(0)
    for module, shape in ((Shared(), (3, 8, 8)), (build(Network(name="timm:repvgg_a0")), (3, 64, 64))):
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()  # type: ignore[union-attr, operator]
                part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
        image = torch.randn(2, *shape)
        with torch.no_grad():
            expected = module.eval()(image)
            folded = deployed(module, takes(shape), "it")(image)
        torch.testing.assert_close(folded, expected, rtol=1e-3, atol=1e-4)
        if isinstance(module, Shared):
            assert isinstance(module.na, nn.BatchNorm2d)
            assert isinstance(module.nb, nn.Identity)


def small() -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), block, nn.Flatten(), nn.Linear(8 * 14 * 14, 10))


@pytest.mark.parametrize(
    ("roles", "trained"),
    [
        (Roles(), 224 + 16 + 584 + 16 + 15_690),
        (Roles(train="head"), 15_690),
        (Roles(train="frozen-bn"), 224 + 584 + 15_690),
    ],
)
def test_what_is_trained(roles: Roles, trained: int) -> None:
    module = small().train()
    assert sum(weight.numel() for weight in prepare_training(module, roles)) == trained
    assert module[1].training == (roles.train != "frozen-bn")


def test_roles_that_a_network_cannot_take() -> None:
    with pytest.raises(UnsupportedError, match="last linear"):
        prepare_training(nn.Conv2d(3, 3, 1), Roles(train="head"))
    with pytest.raises(UnsupportedError, match="batch norms"):
        prepare_training(nn.Linear(3, 3), Roles(train="frozen-bn"))
    with pytest.raises(UnsupportedError, match="has none"):
        prepare_training(nn.Linear(3, 3), Roles(checkpointing=True))


@pytest.mark.parametrize(
    "roles",
    [
        {},
        {"train": "head"},
        {"train": "frozen-bn"},
        {"optimizer": "adamw"},
        {"checkpointing": True},
        {"loss": "mean-square"},
    ],
    ids=lambda roles: "-".join(map(str, roles.values())) or "usual",
)
def test_memory_predicted_for_each_role_is_what_is_measured(roles: dict[str, Any]) -> None:
    # On a CPU with AVX2 alone oneDNN's gradients of weights over maps of 2 x 2 take eight copies of these.
    network = Network(name="resnet18", input_size=128, **roles)
    module = build(network)
    cell = Cell(network=network, batch_size=4, phase="training")
    predicted = predict_module(module, (3, 128, 128), cell).peak_bytes(4)
    workload = Workload(cell, module, (3, 128, 128), CPU, ring=1, seed=0)
    standing = measured_peak(lambda: None)
    workload.step()
    ours = sum(one.numel() * one.element_size() for one in (*module.parameters(), *module.buffers()))
    measured = measured_peak(workload.step) - standing + ours + 4 * 3 * 128 * 128 * 4
    assert measured == pytest.approx(predicted, rel=0.05)


def test_roles_are_axes_labels_and_parts_of_ids() -> None:
    axes = {"phase": "inference,training", "optimizer": "sgd,adamw", "deploy": "false,true", "loss": "mean"}
    cells = expand(suite_from_names(["resnet18"], axes), "cpu")
    assert [(cell.network.label, cell.phase) for cell in cells if unsupported(cell) is None] == [
        ("resnet18", "inference"),
        ("resnet18[deploy=true]", "inference"),
        ("resnet18[loss=mean]", "training"),
        ("resnet18[optimizer=adamw,loss=mean]", "training"),
    ]
    for cell in cells:
        if unsupported(cell) is None:
            assert parse_cell(cell.cell_id, "cpu") == cell


def test_bad_roles_in_one_line() -> None:
    for axes, said in (({"train": "heads"}, "--train: .*head"), ({"deploy": "yes"}, "neither true nor false")):
        with pytest.raises(UsageError, match=said):
            suite_from_names(["resnet18"], axes)
