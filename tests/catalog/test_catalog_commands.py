"""`archbench list` and `archbench show` as a user sees them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from archbench.catalog import entries
from archbench.cli import list_command, show_command

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
    lines = run(list_command.command).splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(entries())
    resnet50 = next(line for line in lines if line.startswith("resnet50 "))
    assert resnet50.split()[1:6] == ["resnet", "2015", "25.6", "4.09", "76.13"]
    assert resnet50.rstrip().endswith("torchvision IMAGENET1K_V1 (crop 224, resize 256)")


def test_list_json() -> None:
    listed = {network["name"]: network for network in document(list_command.command)}
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
    family = document(list_command.command, "--family", "densenet")
    assert {network["family"] for network in family} == {"densenet"}
    both = document(list_command.command, "--family", "densenet", "--source", "archbench")
    assert [network["name"] for network in both] == ["densenet264"]


def test_show_gathers_every_figure_with_its_source() -> None:
    shown = document(show_command.command, "inception_v1")
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
    printed = run(show_command.command, "capsnet")
    assert "routing" in printed
    assert "Dynamic routing between capsules, 1710.09829" in printed
    assert "with reconstruction=True: 8.22 M parameters" in printed


def test_show_of_a_departure_counts_anew() -> None:
    shown = document(
        show_command.command, "resnet20_cifar", "--num-classes", "100", "--input-size", "64", "--batch-size", "4"
    )
    assert shown["variant"] == "resnet20_cifar[num_classes=100,input_size=64]"
    assert shown["params"] == 269_722 + 90 * 65
    assert shown["input_shape"] == [3, 64, 64]
    assert shown["top1"] is None
    assert shown["batch_size"] == 4
    assert shown["predicted_training_peak_bytes"] > shown["predicted_inference_peak_bytes"] > shown["weight_bytes"]
    assert abs(shown["second_opinion"]["disagreement"]) < 0.001


def test_show_takes_options_and_heads() -> None:
    shown = document(show_command.command, "lenet5", "--option", "variant=common")
    assert shown["params"] == 61_706
    assert shown["second_opinion"] is None, "it stands in the tables, so nothing had to be built"
    bare = document(show_command.command, "torchvision:squeezenet1_1", "--head", "none")
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
def test_mistakes_end_with_one_line_and_exit_code_2(words: list[str], said: str) -> None:
    done = subprocess.run([sys.executable, "-m", "archbench", *words], capture_output=True, text=True, check=False)
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

    assert min(seconds() for _ in range(3)) < TARGET_S
