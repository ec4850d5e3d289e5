"""`archbench list` and `archbench show` as a user sees them."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from archbench.catalog import entries
from archbench.catalog.card import card
from archbench.cli.looking import list_command, show_command
from archbench.model.cell import Network
from archbench.model.errors import UsageError

TARGET_S = 0.8
"""What a user is promised on an idle machine."""


def run(command: Any, *words: str) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def document(command: Any, *words: str) -> Any:
    return json.loads(run(command, *words, "--json"))


def test_list_has_a_line_for_every_network() -> None:
    lines = run(list_command).splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(entries())
    resnet50 = next(line for line in lines if line.startswith("resnet50 "))
    assert resnet50.split()[1:6] == ["resnet", "2015", "25.6", "4.09", "76.13"]
    assert resnet50.rstrip().endswith("torchvision IMAGENET1K_V1 (crop 224, resize 256)")


def test_list_json() -> None:
    listed = {network["name"]: network for network in document(list_command)}
    assert list(listed) == list(entries())
    swin = listed["swin_t"]
    assert swin["aliases"] == ["swin_tiny_patch4_window7_224"]
    assert (swin["family"], swin["year"], swin["source"], swin["input_size"]) == ("swin", 2021, "torchvision", 224)
    assert swin["flops"] == 2 * swin["macs"]
    assert (swin["top1"], swin["accuracy_source"]) == (
        81.474,
        "torchvision IMAGENET1K_V1 (crop 224, resize 232)",
    )
    assert listed["mlp_probe"]["input_size"] is None
    assert listed["mlp_probe"]["input_shape"] == [256]


def test_list_can_be_narrowed() -> None:
    family = document(list_command, "--family", "densenet")
    assert {network["family"] for network in family} == {"densenet"}
    both = document(list_command, "--family", "densenet", "--source", "archbench")
    assert [network["name"] for network in both] == ["densenet264"]


@pytest.mark.parametrize(
    ("condition", "satisfies"),
    [
        ("year >= 2020", lambda one: one["year"] is not None and one["year"] >= 2020),
        ("not year >= 2020", lambda one: one["year"] is not None and one["year"] < 2020),  # null stays out
        ("top1 > 80 or params < 100k", lambda one: (one["top1"] or 0) > 80 or (one["params"] or 1e9) < 1e5),
        ("family in (vgg, vit) and macs <= 16G", lambda one: one["family"] in ("vgg", "vit") and one["macs"] <= 16e9),
        ("accuracy_dataset not in (ImageNet)", lambda one: one["dataset"] not in (None, "ImageNet")),
        ("depth == 50 and source == torchvision", lambda one: one["name"] in ("resnet50", "wide_resnet50_2")),
    ],
)
def test_list_by_conditions(condition: str, satisfies: Any) -> None:
    everything = document(list_command)
    found = [one["name"] for one in document(list_command, "--where", condition)]
    right = [one["name"] for one in everything if satisfies(one)]
    if condition.startswith("depth"):  # depth is counted, and other families have fifty layers, too
        assert set(right) <= set(found)
    else:
        assert found == right
    assert 0 < len(found) < len(everything)
    both = document(list_command, "--where", condition, "--where", "params >= 1M")
    assert [one["name"] for one in both] == [
        one["name"] for one in everything if one["name"] in found and (one["params"] or 0) >= 1e6
    ]


def test_list_sorted() -> None:
    everything = document(list_command)
    for column in ("params", "top1"):
        for words, reverse in ((column, False), (f"-{column}", True)):
            found = [one[column] for one in document(list_command, "--sort", words)]
            known = sorted((one[column] for one in everything if one[column] is not None), reverse=reverse)
            assert found == known + [None] * (len(everything) - len(known))  # nulls last either way


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--where", "yaer > 2000"), "unknown column 'yaer'; did you mean year?"),
        (("--where", "latency_median < 5ms"), "the catalogue has no latency_median_s"),
        (("--sort", "throughput"), "the catalogue has no throughput_img_s"),
        (("--where", "year >"), "a value for year should stand here"),
    ],
)
def test_what_the_catalogue_cannot_be_asked(words: tuple[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        run(list_command, *words)


ENTRY = re.compile(
    r"@misc\{(?P<key>[a-z]+[0-9]{4}[a-z0-9]+),\n(?P<fields>(  [a-z]+ = \{[^\n]*\},\n)+)\}",
)


def parsed(text: str) -> tuple[str, dict[str, str]]:
    """One entry, held to what BibTeX takes: balanced braces, no field twice, no bare character of TeX's."""
    found = ENTRY.fullmatch(text)
    assert found, text
    fields = dict(re.findall(r"^  ([a-z]+) = \{(.*)\},$", found["fields"], re.MULTILINE))
    assert len(fields) == found["fields"].count("\n")
    for value in fields.values():
        depth = 0
        for char in value:
            depth += {"{": 1, "}": -1}.get(char, 0)
            assert depth >= 0
        assert depth == 0
        assert not re.search(r"(?<!\\)[&%$#_~^]", value.replace("https://", ""))
    return found["key"], fields


def test_every_paper_of_the_catalogue_has_an_entry() -> None:
    keys: dict[str, str] = {}
    for entry in entries().values():
        known = card(entry, Network(name=entry.name), None).bibtex
        assert (known is None) == (entry.paper is None), entry.name
        if known is None or entry.paper is None:
            continue
        key, fields = parsed(known)
        assert keys.setdefault(key, entry.paper) == entry.paper  # no two papers under one key
        assert fields["title"] == "{" + entry.paper.replace("&", "\\&") + "}"
        assert fields["year"] == str(entry.year)
        assert all(re.fullmatch(r"[^,]+, [^,]+", name) for name in fields["author"].split(" and "))
        if entry.arxiv:
            assert (fields["eprint"], fields["archiveprefix"]) == (entry.arxiv, "arXiv")
            assert fields["year"] == f"20{entry.arxiv[:2]}"
            assert fields["url"] == f"https://arxiv.org/abs/{entry.arxiv}"
        else:
            assert "eprint" not in fields
            assert fields["howpublished"]


def test_show_prints_an_entry_on_request() -> None:
    key, fields = parsed(run(show_command, "resnext50_32x4d", "--bibtex").rstrip("\n"))
    assert key == "xie2016aggregated"
    assert fields["author"].startswith("Xie, Saining and Girshick, Ross and Dollár, Piotr")
    assert document(show_command, "resnet50")["bibtex"].startswith("@misc{he2015deep,")
    with pytest.raises(UsageError, match="names no paper of mlp_probe"):
        run(show_command, "mlp_probe", "--bibtex")


def test_show_gathers_every_figure_with_its_source() -> None:
    shown = document(show_command, "inception_v1")
    assert shown["name"] == "googlenet"
    assert (shown["params"], shown["depth"], shown["feature_width"]) == (6_624_904, 22, 1024)
    assert shown["variants"] == [{"options": {"aux_logits": True}, "params": 13_004_888, "macs": 1_498_376_192}]
    assert [size["origin"] for size in shown["published"]] == ["torchvision IMAGENET1K_V1", "paper"]
    assert [accuracy["origin"] for accuracy in shown["accuracies"]] == ["torchvision", "paper"]
    assert shown["stages"][0] == {
        "name": "conv1",
        "kind": "BasicConv2d",
        "output_shape": [64, 112, 112],
        "params": 9536,
        "macs": 118_013_952,
    }
    assert shown["second_opinion"] is None


def test_show_prints_stages_notes_and_an_own_networks_docstring() -> None:
    printed = run(show_command, "capsnet")
    assert "routing" in printed
    assert "Dynamic routing between capsules, 1710.09829" in printed
    assert "with reconstruction=True: 8.22 M parameters" in printed


def test_show_of_a_departure_counts_anew() -> None:
    shown = document(show_command, "resnet20_cifar", "--num-classes", "100", "--input-size", "64", "--batch-size", "4")
    assert shown["variant"] == "resnet20_cifar[num_classes=100,input_size=64]"
    assert shown["params"] == 269_722 + 90 * 65
    assert shown["input_shape"] == [3, 64, 64]
    assert shown["top1"] is None
    assert shown["batch_size"] == 4
    assert shown["predicted_training_peak_bytes"] > shown["predicted_inference_peak_bytes"] > shown["weight_bytes"]
    assert abs(shown["second_opinion"]["disagreement"]) < 0.001


def test_show_takes_options_and_heads() -> None:
    shown = document(show_command, "lenet5", "--option", "variant=common")
    assert shown["params"] == 61_706
    assert shown["second_opinion"] is None, "it stands in the tables, so nothing had to be built"
    bare = document(show_command, "torchvision:squeezenet1_1", "--head", "none")
    assert bare["stages"][-1]["output_shape"] == [512, 13, 13]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--family", "resnets"], "unknown family 'resnets'; did you mean resnet"),
        (["list", "--source", "tim"], "unknown source 'tim'; did you mean timm?"),
        (["list", "--source", "keras"], "there are torchvision, timm, archbench"),
        (["show", "densenet122"], "did you mean densenet121"),
        (["show", "resnet18", "--option", "aux"], "must be KEY=VALUE"),
        (["show", "resnet18", "--head", "gone"], "must be classifier or none"),
        (["show", "mypkg.nets:build"], "--allow-code"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_with_one_line_and_exit_code_2(
    words: list[str], said: str, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["show", "resnet1202_cifar"], ["show", "hrnet_w18"]])
def test_answers_at_once(words: list[str]) -> None:
    def seconds() -> float:
        """CPU time of the one thread that a command runs; unlike the wall's, it is not the neighbours'."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "archbench", *words], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert any(seconds() < TARGET_S for _ in range(3))
