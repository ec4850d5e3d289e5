"""The line that loads a network with its weights: run here, with the download alone replaced."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torchvision.models import WeightsEnum

from archbench.catalog import entries
from archbench.catalog.card import loading_line, weights_tag
from archbench.catalog.tables import timm_tags
from archbench.model.cell import Network


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "inception_v3", "torchvision:squeezenet1_1"])
def test_a_line_for_torchvision_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    plain = torchvision.models.get_model(name.removeprefix("torchvision:"), **quick)
    asked = []

    def state(self: WeightsEnum, *_: object, **__: object) -> dict[str, torch.Tensor]:
        asked.append(self.name)
        return plain.state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", state)
    line = loading_line(Network(name=name))
    scope: dict[str, object] = {"torchvision": torchvision}
    exec(line, scope)
    assert isinstance(scope["model"], torch.nn.Module)
    assert asked == [weights_tag(name)] == ["IMAGENET1K_V1"]


def test_the_tags_are_those_of_the_installed_timm() -> None:
    constructors = [entry.constructor for entry in entries().values() if entry.source == "timm"]
    for name in constructors:
        assert timm_tags()[name] == timm.get_pretrained_cfg(name).tag, "stale: run docs/catalog_tables.py timm"
        assert timm.is_model_pretrained(f"{name}.{timm_tags()[name]}")


@pytest.mark.parametrize(
    ("network", "line"),
    [
        (Network(name="hrnet_w18"), "model = timm.create_model('hrnet_w18.ms_aug_in1k', pretrained=True)"),
        (Network(name="timm:resnet50.a1_in1k"), "model = timm.create_model('resnet50.a1_in1k', pretrained=True)"),
        (Network(name="zfnet"), "model = archbench.catalog.build.build(Network(name='zfnet'))  # no published weights"),
        (Network(name="my.nets:build", options={"width": 2}), "model = my.nets.build(width=2)  # your own code"),
        (
            Network(name="vgg16", options={"dropout": 0.1}, num_classes=10),
            (
                "model = torchvision.models.get_model('vgg16', weights='IMAGENET1K_V1', dropout=0.1)  # as published; "
                "measured with another num_classes"
            ),
        ),
        (Network(name="resnet5O"), "# 'resnet5O' is not in this version's catalogue"),
    ],
    ids=lambda value: value.name if isinstance(value, Network) else "",
)
def test_lines_for_other_sources(network: Network, line: str) -> None:
    assert loading_line(network) == line
    compile(line, "line", "exec")
