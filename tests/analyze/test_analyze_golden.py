"""torchvision's published figures (`num_params` and `_ops` of its weights) against ours, for all 80 classifiers."""

from __future__ import annotations

import pytest
from msgspec import Struct
from torchvision import models

from archbench.analyze.counts import count
from archbench.model.axes import Scalar
from archbench.model.cell import Network

MODELS = tuple(models.list_models(module=models))
AUXILIARY = {"googlenet": 6_379_984, "inception_v3": 3_326_696}
"""Parameters in the auxiliary heads. torchvision's metadata leave googlenet's out and count inception_v3's."""
QUICK = {"alexnet", "googlenet", "inception_v3", "mobilenet_v3_small", "resnet50", "shufflenet_v2_x0_5", "vit_b_32"}
_ROUNDING = 0.0005
"""Published to three decimals of a billion."""


class Published(Struct, frozen=True, kw_only=True):
    """Of the first weights of a model: the others differ in input size only where `image_size` has to follow."""

    params: int
    gmacs: float
    crop: int


def published(name: str) -> Published:
    weights = next(iter(models.get_model_weights(name)))
    return Published(
        params=weights.meta["num_params"], gmacs=weights.meta["_ops"], crop=weights.transforms.keywords["crop_size"]
    )


def network(name: str, crop: int) -> Network:
    """The model at `crop` pixels, with its auxiliary heads where it has any."""
    options: dict[str, Scalar] = {"aux_logits": True} if name in AUXILIARY else {}
    return Network(name=f"torchvision:{name}", input_size=crop, options=options)


def check(name: str) -> None:
    truth = published(name)
    counts = count(network(name, truth.crop))
    auxiliary = AUXILIARY.get(name, 0)
    in_metadata = counts.params - auxiliary if name == "googlenet" else counts.params
    assert in_metadata == truth.params
    assert counts.idle_params == auxiliary, "the evaluation forward pass uses all but the auxiliary heads"
    assert counts.macs / 1e9 == pytest.approx(truth.gmacs, rel=0.005, abs=_ROUNDING)
    assert sum(stage.macs for stage in counts.stages) <= counts.macs


def test_there_are_eighty() -> None:
    assert len(MODELS) == 80
    assert set(MODELS) >= QUICK


@pytest.mark.parametrize("name", sorted(QUICK))
def test_published_figures(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(set(MODELS) - QUICK))
def test_published_figures_of_the_rest(name: str) -> None:
    check(name)


@pytest.mark.parametrize(("name", "heads"), AUXILIARY.items())
def test_auxiliary_heads_have_parameters_and_no_part_in_evaluation(name: str, heads: int) -> None:
    bare = count(Network(name=f"torchvision:{name}"))
    full = count(Network(name=f"torchvision:{name}", options={"aux_logits": True}))
    assert (full.params - bare.params, full.idle_params, bare.idle_params) == (heads, heads, 0)
    assert (full.macs, full.activations, full.depth) == (bare.macs, bare.activations, bare.depth)


def test_a_transformer_is_built_for_the_size_asked_for() -> None:
    """vit_h_14's first weights are for 518 pixels; ViT-B/32 at 384 has 145 tokens where it has 50 at 224."""
    width, mlp, blocks, patch = 768, 3072, 12, 3 * 32 * 32
    macs = {size: count(Network(name="torchvision:vit_b_32", input_size=size)).macs for size in (224, 384)}
    for size, found in macs.items():
        patches = (size // 32) ** 2
        tokens = patches + 1
        block = tokens * (4 * width * width + 2 * width * mlp) + 2 * tokens * tokens * width
        assert found == patches * width * patch + blocks * block + width * 1000
