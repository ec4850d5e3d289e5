"""Names: what resolves to what, and what is said of the rest. None of it imports torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from archbench.catalog import dataset_of, entries, facts, family, names, resolve, year_of
from archbench.catalog.names import families_by_name
from archbench.model.cell import Network
from archbench.model.errors import UsageError

NAMES = sorted(entries())


@given(name=st.sampled_from(NAMES))
def test_a_name_resolves_to_itself_and_so_do_its_aliases(name: str) -> None:
    entry = resolve(name)
    assert entry.name == name
    assert all(resolve(alias) == entry for alias in entry.aliases)


@given(name=st.sampled_from([name for name in NAMES if len(name) > 6]), data=st.data())
@settings(max_examples=30)
def test_one_wrong_letter_is_answered_with_the_right_name(name: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(name) - 1))
    misspelt = name[:place] + "q" + name[place + 1 :]
    # Among 1,500 names others may be as near, but something near is always there.
    with pytest.raises(UsageError, match=r"unknown architecture .*; did you mean "):
        resolve(misspelt)


@given(st.text(max_size=30))
@settings(max_examples=30)
def test_any_other_text_is_refused_in_one_line(text: str) -> None:
    assume(text not in NAMES)
    with pytest.raises(UsageError) as caught:
        resolve(text)
    assert len(str(caught.value).splitlines()) == 1


def test_names_of_stored_rows_that_nobody_knows_are_looked_up_without_looking_for_those_near_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which takes 15 ms each, of two thousand in a large run."""
    monkeypatch.setattr(names, "_suggestions", lambda name: pytest.fail("looked for others"))
    assert dataset_of("resnet50_of_yesterday") is None
    assert year_of("resnet50_of_yesterday") is None
    assert year_of("resnet50") == 2015


def test_library_names_need_no_row() -> None:
    entry = resolve("torchvision:regnet_y_400mf")
    assert (entry.source, entry.constructor, entry.family) == ("torchvision", "regnet_y_400mf", "regnet")
    assert entry.input_shape == (3, 224, 224)
    assert resolve("timm:convnextv2_tiny").family == "convnext"
    assert resolve("timm:resnet50.a1_in1k").constructor == "resnet50"


def test_library_names_share_the_rows_facts() -> None:
    named, bare = resolve("torchvision:googlenet"), resolve("googlenet")
    assert named.name == "torchvision:googlenet"
    assert (named.options, named.year, named.idea) == (bare.options, bare.year, bare.idea)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet5", "did you mean resnet5"),
        ("regnet_y_400m", "torchvision:regnet_y_400mf"),
        ("convnextv2_tiny", "did you mean timm:convnextv2_tiny"),
        ("torchvision:resnet500", "torchvision has no classification network 'resnet500'; did you mean resnet50"),
        ("torchvision:fcn_resnet50", "torchvision has no classification network 'fcn_resnet50'"),
        ("timm:nothing_x", "timm has no classification network 'nothing_x'; `timm.list_models()` names those"),
        ("timm:resnet5O", "timm has no classification network 'resnet5O'"),
        ("nets:", "unknown architecture 'nets:'"),
    ],
)
def test_unknown_names_come_with_the_nearest(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(name)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_user_code_needs_permission() -> None:
    with pytest.raises(UsageError, match="--allow-code"):
        resolve("my.nets:build")
    entry = resolve("my.nets:build", allow_code=True)
    assert (entry.source, entry.constructor, entry.family) == ("user code", "my.nets:build", None)


def test_families() -> None:
    assert [entry.name for entry in family("convnext")] == [f"convnext_{s}" for s in ("tiny", "small", "base", "large")]
    assert {"resnet18", "resnet50", "resnet50_v1", "resnet34_optA"} <= {entry.name for entry in family("resnet")}
    with pytest.raises(UsageError, match="unknown family 'resnets'; did you mean resnet"):
        family("resnets")
    with pytest.raises(UsageError, match="there are lenet, alexnet"):
        family("?")


def test_nothing_here_imports_torch() -> None:
    code = """
import sys
from archbench.catalog import entries, facts, resolve
from archbench.catalog.card import card, stored, summary
from archbench.model.cell import Network
for name in [*entries(), "timm:resnet50d", "torchvision:resnet50"]:
    summary(resolve(name)), facts(Network(name=name)), card(resolve(name), Network(name=name), None)
print(sorted({"torch", "timm", "torchvision", "pandas", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_names_read_from_sources_are_those_that_the_libraries_register() -> None:
    import timm
    import torchvision

    assert set(families_by_name("torchvision")) == set(torchvision.models.list_models(module=torchvision.models))
    assert set(families_by_name("timm")) == set(timm.list_models())


def test_facts_of_a_torchvision_network() -> None:
    known = facts(Network(name="resnet50"))
    assert (known.family, known.source, known.input_size) == ("resnet", "torchvision", 224)
    assert (known.top1, known.top5) == (76.13, 92.862)
    assert known.accuracy_source == "torchvision IMAGENET1K_V1 (crop 224, resize 256)"


def test_accuracy_from_an_unusual_recipe_says_so() -> None:
    assert "newer recipe" in (facts(Network(name="resnext101_64x4d")).accuracy_source or "")
    assert "SWAG" in (facts(Network(name="torchvision:regnet_y_128gf")).accuracy_source or "")


def test_accuracy_on_another_dataset_says_so() -> None:
    assert facts(Network(name="resnet20_cifar")).accuracy_source == "paper: CIFAR-10, test set, standard augmentation"


def test_accuracy_is_of_the_network_as_published_or_missing() -> None:
    for departure in ({"num_classes": 10}, {"in_channels": 1}, {"options": {"width_per_group": 128}}):
        known = facts(Network(name="resnet50", **departure))  # type: ignore[arg-type]
        assert (known.top1, known.top5, known.accuracy_source) == (None, None, None)
        assert known.family == "resnet"
    assert facts(Network(name="densenet121", options={"memory_efficient": True})).top1 == 74.434
    smaller = facts(Network(name="resnet50", input_size=160))
    assert smaller.top1 == 76.13
    assert smaller.accuracy_source == (
        "torchvision IMAGENET1K_V1 (crop 224, resize 256); not at this input size of 160"
    )
    assert (facts(Network(name="resnet50", head="none")).accuracy_source or "").endswith("; with its classifier")


def test_nothing_is_claimed_of_what_is_not_known() -> None:
    known = facts(Network(name="timm:convnextv2_tiny"))
    assert (known.top1, known.accuracy_source, known.input_size) == (None, None, None)
    assert facts(Network(name="my.nets:build")).source == "user code"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mynet.py:Net", "mynet:Net"),
        ("./nets/mynet.py:Net", "nets.mynet:Net"),
        ("nets/mynet.py:build", "nets.mynet:build"),
    ],
)
@pytest.mark.parametrize("allow_code", [True, False])
def test_a_file_in_a_modules_place_is_told_its_module(name: str, meant: str, allow_code: bool) -> None:
    with pytest.raises(UsageError, match=rf"did you mean {meant}\?$"):
        resolve(name, allow_code=allow_code)
