"""Building: departures from the default, heads taken off, and every mistake in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from archbench.catalog.build import build, feature_width, input_shape
from archbench.model.cell import Network
from archbench.model.errors import UsageError


def without_data(network: Network, *, allow_code: bool = False) -> nn.Module:
    with torch.device("meta"):
        return build(network, allow_code=allow_code).eval()


def output_shape(network: Network) -> tuple[int, ...]:
    with torch.no_grad():
        output = without_data(network)(torch.empty(1, *input_shape(network), device="meta"))
    return tuple(output.shape[1:])


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_auxiliary_heads_are_built_only_on_request() -> None:
    assert parameters(without_data(Network(name="googlenet"))) == 6_624_904
    assert parameters(without_data(Network(name="googlenet", options={"aux_logits": True}))) == 13_004_888
    assert parameters(without_data(Network(name="torchvision:inception_v3"))) == 23_834_568
    assert parameters(without_data(Network(name="inception_v3", options={"aux_logits": True}))) == 27_161_264


@pytest.mark.parametrize(
    "name", ["resnet18", "deit_small", "plain20_cifar", "torchvision:vit_b_32", "timm:legacy_xception"]
)
def test_classes_and_channels(name: str) -> None:
    network = Network(name=name, num_classes=7, in_channels=5)
    assert input_shape(network)[0] == 5
    assert output_shape(network) == (7,)


# Every way in which torchvision's classes put a head on their features; the module whose input those features are.
HEADED = {
    "alexnet": "avgpool",
    "vgg11": "avgpool",
    "googlenet": "avgpool",
    "inception_v3": "avgpool",
    "resnet18": "avgpool",
    "resnext50_32x4d": "avgpool",
    "mobilenet_v3_small": "avgpool",
    "efficientnet_b0": "avgpool",
    "convnext_tiny": "avgpool",
    "regnet_x_400mf": "avgpool",
    "swin_t": "avgpool",
    "swin_v2_t": "avgpool",
    "squeezenet1_1": "classifier",
    "maxvit_t": "classifier",
}


QUICK = {"resnet18", "squeezenet1_1"}


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in HEADED])
def test_headless_torchvision_networks_return_what_their_head_would_have_read(name: str) -> None:
    network = Network(name=f"torchvision:{name}")
    torch.manual_seed(0)
    whole = build(network).eval()
    bare = build(Network(name=network.name, head="none")).eval()
    missing, left_over = bare.load_state_dict(whole.state_dict(), strict=False)
    assert missing == []
    assert all(key.startswith(("classifier", "fc", "head", "aux")) for key in left_over)
    read: list[Tensor] = []
    whole.get_submodule(HEADED[name]).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    image = torch.randn(1, *input_shape(network))
    with torch.inference_mode():
        whole(image)
        features = bare(image)
    torch.testing.assert_close(features, read[0])


@pytest.mark.slow
def test_headless_densenet_ends_in_its_functional_relu() -> None:
    torch.manual_seed(0)
    whole = build(Network(name="densenet121")).eval()
    bare = build(Network(name="densenet121", head="none")).eval()
    bare.load_state_dict(whole.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = whole(image)
        features = bare(image)
    assert features.min() >= 0
    torch.testing.assert_close(whole.classifier(features.mean(dim=(2, 3))), expected)


@pytest.mark.slow
def test_headless_vision_transformer_returns_tokens_class_token_first() -> None:
    torch.manual_seed(0)
    whole = build(Network(name="torchvision:vit_b_32")).eval()
    bare = build(Network(name="torchvision:vit_b_32", head="none")).eval()
    missing, _ = bare.load_state_dict(whole.state_dict(), strict=False)
    assert missing == []
    # torchvision leaves the head at zero, which would hide every difference.
    nn.init.normal_(whole.get_parameter("heads.head.weight"))
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        tokens = bare(image)
        assert tokens.shape == (1, 1 + 7 * 7, 768)
        torch.testing.assert_close(whole.heads(tokens[:, 0]), whole(image))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("xception", (2048, 10, 10)), ("deit_small", (197, 384)), ("plain20_cifar", (64, 8, 8)), ("mlp_probe", (256,))],
)
def test_headless_networks_of_the_other_sources(name: str, shape: tuple[int, ...]) -> None:
    assert output_shape(Network(name=name, head="none")) == shape


@pytest.mark.parametrize(
    ("name", "width"), [("densenet121", 1024), ("torchvision:vit_b_32", 768), ("xception", 2048), ("scse", None)]
)
def test_feature_width(name: str, width: int | None) -> None:
    assert feature_width(Network(name=name)) == width


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (Network(name="inception_v3"), (3, 299, 299)),
        (Network(name="resnet50", input_size=160, in_channels=1), (1, 160, 160)),
        (Network(name="timm:tf_efficientnet_b4"), (3, 380, 380)),
        (Network(name="timm:vit_base_patch16_224.augreg_in21k"), (3, 224, 224)),
        (Network(name="mlp_probe"), (256,)),
        (Network(name="mlp_probe", in_channels=64), (64,)),
    ],
)
def test_input_shape(network: Network, shape: tuple[int, ...]) -> None:
    assert input_shape(network) == shape


@pytest.mark.parametrize(
    "name",
    ["torchvision:vit_b_32", "deit_small", pytest.param("torchvision:maxvit_t", marks=pytest.mark.slow), "resnet18"],
)
def test_sizes_other_than_the_native_one(name: str) -> None:
    assert output_shape(Network(name=name, input_size=448)) == (1000,)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Network(name="vgg11", input_size=16), "cannot take 16x16 images (Given input size"),
        pytest.param(
            Network(name="torchvision:vit_b_32", input_size=100),
            "of the usual sizes it takes 32, 64, 96",
            marks=pytest.mark.slow,
        ),
        (Network(name="capsnet", input_size=32), "of the usual sizes it takes 28"),
        (Network(name="mlp_probe", input_size=64), "takes vectors, not images; set their width by in_channels"),
        (
            Network(name="resnet18", options={"wdth_per_group": 2}),
            "'wdth_per_group'; did you mean width_per_group?; it has",
        ),
        (Network(name="resnet18", options={"groups": 0}), "resnet18 refuses these options: "),
        (Network(name="resnet18", options={"weights": "DEFAULT"}), "archbench never loads weights"),
        (Network(name="hrnet_w18", options={"pretrained": True}), "archbench never loads weights"),
        (Network(name="resnet18", options={"num_classes": 7}), "it has a key of its own beside options"),
        (Network(name="deit_small", options={"depht": 3}), "no option 'depht'; did you mean depth"),
        (Network(name="lenet5", options={"variety": "paper"}), "no option 'variety'; did you mean variant"),
        (Network(name="lenet5", options={"nonsense": 1}), "lenet5 has no option 'nonsense'; it has variant"),
        (Network(name="conv_dense", num_classes=3), "conv_dense has no num_classes to choose"),
        (Network(name="resnet18", head="none", num_classes=3), "without its head the network has no classes"),
        (Network(name="timm:resnet50.a1_in2k"), "timm's resnet50 has no weights 'a1_in2k'; did you mean a1_in1k"),
    ],
    ids=lambda value: value.label if isinstance(value, Network) else "",
)
def test_mistakes_are_answered_in_one_line(network: Network, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        without_data(network)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert network.name.partition(".")[0].removeprefix("timm:") in str(caught.value)


USER_CODE = """
import torch
from torch import nn

def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

def sized(num_classes, in_channels=3, width=4):
    stem = nn.Conv2d(in_channels, width, 3)
    return nn.Sequential(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

class Net(nn.Flatten):
    pass

def broken():
    raise RuntimeError("no such\\nthing")

def dictionary():
    return {}

constant = 3
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "catalog_user_nets.py").write_text(USER_CODE)
    (tmp_path / "catalog_user_broken.py").write_text("import torch\n1 / 0\n")
    monkeypatch.chdir(tmp_path)
    return "catalog_user_nets"


def test_user_code_is_found_in_the_current_directory(user_module: str) -> None:
    network = Network(name=f"{user_module}:sized", num_classes=7, options={"width": 6})
    module = build(network, allow_code=True)
    assert module(torch.zeros(2, 3, 8, 8)).shape == (2, 7)
    assert input_shape(network, allow_code=True) == (3, 224, 224)
    assert isinstance(build(Network(name=f"{user_module}:Net"), allow_code=True), nn.Flatten)
    assert parameters(build(Network(name=f"{user_module}:plain"), allow_code=True)) == 4 * 27 + 4 + 50


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("catalog_user_nets:plian", "has no 'plian'; did you mean plain"),
        ("catalog_user_nets:broken", "raised RuntimeError: no such (catalog_user_nets.py:16)"),
        ("catalog_user_nets:sized", "raised TypeError: sized() missing 1 required positional argument: 'num_classes'"),
        ("catalog_user_nets:dictionary", "returned a dict, not a torch.nn.Module"),
        ("catalog_user_nets:constant", "is a int, not a function"),
        ("catalog_user_broken:build", "cannot import catalog_user_broken: ZeroDivisionError: division by zero"),
        ("catalog_user_missing:build", "cannot import catalog_user_missing: ModuleNotFoundError"),
    ],
)
def test_user_code_that_gives_no_network(user_module: str, name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(Network(name=name), allow_code=True)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_network_loads_no_library_that_it_does_not_need() -> None:
    code = """
import sys
from archbench.catalog.build import build
from archbench.model.cell import Network
build(Network(name="resnet20_cifar"))
print(sorted({"timm", "torchvision"} & set(sys.modules)))
build(Network(name="torchvision:squeezenet1_1"))
print("timm" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


def test_user_code_runs_only_with_permission(user_module: str) -> None:
    with pytest.raises(UsageError, match="--allow-code"):
        build(Network(name=f"{user_module}:plain"))
