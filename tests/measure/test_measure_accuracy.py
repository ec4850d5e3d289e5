"""Trained weights and labelled images: what is read is what was written, and each mistake is one line."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import archbench
from archbench.catalog.build import build
from archbench.catalog.weights import Preprocessing, preprocessing
from archbench.labelled import MOST_IMAGES, labelled_images, require_readable
from archbench.measure.metrics.correctness import pixels_of
from archbench.model.cell import Cell, Network
from archbench.model.errors import UsageError
from archbench.stats.intervals import wilson_interval
from archbench.suite.cells import parse_cell

COLOURS = ((250, 20, 20), (20, 250, 20), (20, 20, 250))


class Redness(nn.Module):
    """Tells red, green and blue images apart: a truth that no training is needed for."""

    def forward(self, images):
        return images.mean((2, 3))


class Colourblind(nn.Module):
    """Takes everything for the first class."""

    def forward(self, images):
        return images.mean((2, 3)) * torch.tensor([0.0, 0.0, 0.0]) + torch.tensor([1.0, 0.0, 0.0])


def folder_of(place, each=3, colours=COLOURS):
    for number, colour in enumerate(colours):
        (place / f"{number}").mkdir(parents=True)
        for one in range(each):
            Image.new("RGB", (40, 30), colour).save(place / f"{number}" / f"{one}.png")
    return place


@pytest.mark.slow
def test_accuracy_of_what_was_timed_is_its_share_of_right_answers_with_its_interval(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    images = folder_of(tmp_path / "images")

    def run(network, **options):
        done = archbench.run(
            {"name": network, "input_size": 16}, images=images, metrics=["latency", "numerics"], rounds=1,
            device="cpu", force=True, progress=False, batch_size=4, **options,
        )  # fmt: skip
        return done.frame.iloc[0]

    right = run(Redness())
    assert right["top1_measured"] == 100.0
    assert right["accuracy_images"] == 9
    assert right["top1_drop"] == 0.0
    assert right["top1_measured_low"] == pytest.approx(100 * wilson_interval(9, 9)[0])
    third = run(Colourblind())
    assert third["top1_measured"] == pytest.approx(100 / 3)
    assert third["top1_measured_low"] < 34 < third["top1_measured_high"]
    others = run("resnet20_cifar")
    assert np.isnan(others["top1_measured"])
    assert "top1_measured:random_weights" in others["reasons"]
    weights = tmp_path / "own.pth"
    torch.save(build(Network(name="resnet20_cifar")).state_dict(), weights)
    done = archbench.run(
        {"name": "resnet20_cifar", "weights": str(weights)}, images=images, metrics="latency", rounds=1,
        device="cpu", force=True, progress=False,
    )  # fmt: skip
    assert "top1_measured:other_classes" in done.frame.iloc[0]["reasons"], "ten outputs, three folders"


@pytest.mark.slow
def test_a_folder_of_other_classes_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "images", each=1)
    torch.save(build(Network(name="resnet20_cifar")).state_dict(), tmp_path / "own.pth")
    (tmp_path / "two.yaml").write_text(
        "suite: two\narchitectures: [{name: resnet20_cifar, weights: own.pth}, lenet5]\nmetrics: latency\nrounds: 1\n"
    )
    words = ["run", "two.yaml", "--images", "images", "--device", "cpu", "--force"]
    said = subprocess.run(
        [sys.executable, "-m", "archbench", *words], capture_output=True, text=True, check=False
    ).stderr
    assert "top-1 of resnet20_cifar was not measured: the network has another number of classes than the fold" in said
    assert "top-1 of lenet5 was not measured: the weights are random; give the network `weights:`" in said


def test_images_are_those_of_the_folders_in_the_order_of_their_names(tmp_path):
    found = labelled_images(folder_of(tmp_path / "images", each=2))
    assert found.classes == 3
    assert sorted(found.labels) == [0, 0, 1, 1, 2, 2]
    for file, label in zip(found.files, found.labels, strict=True):
        assert file.parent.name == str(label)
        pixels = pixels_of(file, (3, 16, 16), Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
        assert pixels.shape == (3, 16, 16)
        assert pixels.mean((1, 2)).argmax() == label
        torch.testing.assert_close(pixels[label], torch.full((16, 16), 250 / 255))
    assert labelled_images(tmp_path / "images") == found, "a fixed order, so that every cell sees the same sample"
    assert MOST_IMAGES >= 6


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda place: place / "nowhere", "no such folder"),
        (lambda place: place / "0", "holds no images in folders of their classes"),
    ],
)
def test_a_folder_that_is_none_is_told_in_a_line(damage, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        labelled_images(damage(folder_of(tmp_path / "images")))


def test_an_image_that_is_cut_off_is_named_before_anything_runs(tmp_path):
    images = folder_of(tmp_path / "images", each=1)
    require_readable(labelled_images(images))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name in ("1/cut.png", "1/cut.jpg"):
        file = images / name
        Image.fromarray(noise).save(file)
        file.write_bytes(file.read_bytes()[:-200])
        with pytest.raises(UsageError, match=rf"{name} is no image that can be read \(.+\); remove it"):
            require_readable(labelled_images(images))
        file.unlink()


def test_weights_of_a_file_are_those_of_the_network_and_nothing_else_is_taken(tmp_path):
    plain = Network(name="lenet5")
    trained = build(plain)
    state = trained.state_dict()
    file = tmp_path / "trained.pth"
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}, file)
    network = Network(name="lenet5", weights=str(file))
    for key, tensor in build(network).state_dict().items():
        assert torch.equal(tensor, state[key])
    assert network.label == "lenet5[weights=trained.pth]"
    assert Cell(network=network, batch_size=1).cell_id.startswith("lenet5[weights=trained.pth]@batch_size=1")
    with torch.device("meta"):
        assert next(build(network).parameters()).is_meta, "what is only counted needs no weights"
    first = next(iter(state))
    for damaged, said in (
        ({**state, first: state[first][:1]}, rf"{first} is \[1.*\] there and \[.*\] here"),
        ({key: state[key] for key in state if key != first}, f"they lack {first}"),
        ({**state, "more": torch.ones(1)}, "it has no more"),
        ([1, 2], "holds no state dict"),
    ):
        torch.save(damaged, file)
        with pytest.raises(UsageError, match=said):
            build(network)
    file.write_bytes(b"no weights at all")
    with pytest.raises(UsageError, match="cannot be read"):
        build(network)
    file.unlink()
    with pytest.raises(UsageError, match="there are no weights at"):
        build(network)
    with pytest.raises(UsageError, match="no library publishes weights"):
        build(Network(name="lenet5", weights="BEST"))


def test_published_weights_are_taken_from_the_cache_and_never_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network = Network(name="torchvision:squeezenet1_1", weights="IMAGENET1K_V1")
    with pytest.raises(UsageError, match=r"downloads nothing: fetch https://download\.pytorch\.org/models/squeezenet"):
        build(network)
    with pytest.raises(UsageError, match="torchvision has no weights 'IMAGENET1K_V9' for it; did you mean"):
        build(Network(name="torchvision:squeezenet1_1", weights="IMAGENET1K_V9"))
    state = build(Network(name="torchvision:squeezenet1_1")).state_dict()
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    for key, tensor in build(network).state_dict().items():
        assert torch.equal(tensor, state[key])


def test_preprocessing_is_the_librarys_own():
    vit = preprocessing(Network(name="swin_t"))
    assert (vit.mean, vit.bicubic, round(vit.crop_share, 3)) == ((0.485, 0.456, 0.406), True, round(224 / 232, 3))
    deit = preprocessing(Network(name="timm:vit_base_patch16_224.augreg_in21k"))
    assert deit.mean == (0.5, 0.5, 0.5)
    assert preprocessing(Network(name="resnet20_cifar")).crop_share == 1.0
    assert preprocessing(Network(name="lenet5")).std == (0.229, 0.224, 0.225)


def test_the_interval_of_a_share_is_wilsons():
    """Agresti and Coull 1998: 0 of 10 reaches to z^2 / (10 + z^2); and an interval covers as often as it says."""
    z2 = 1.959964**2
    assert wilson_interval(0, 10)[0] == pytest.approx(0.0, abs=1e-12)
    assert wilson_interval(0, 10)[1] == pytest.approx(z2 / (10 + z2))
    low, high = wilson_interval(76, 100)
    assert (round(low, 4), round(high, 4)) == (0.6677, 0.8331)
    random = np.random.default_rng(0)
    covered = [
        low <= 0.75 <= high for low, high in (wilson_interval(int(n), 200) for n in random.binomial(200, 0.75, 2000))
    ]
    assert 0.93 < np.mean(covered) < 0.97


def test_a_cell_of_a_network_with_weights_is_named_by_them():
    cell = parse_cell("torchvision:squeezenet1_1[weights=IMAGENET1K_V1]@batch_size=2", "cpu")
    assert cell.network.weights == "IMAGENET1K_V1"
    assert parse_cell(cell.cell_id, "cpu") == cell


def test_weights_that_are_not_there_are_found_before_anything_is_measured(tmp_path):
    lost = {"name": "lenet5", "weights": str(tmp_path / "none.pth")}
    with pytest.raises(UsageError, match=r"^lenet5\[weights=none.pth\]: there are no weights at .*; mend the path"):
        archbench.run(lost, out=tmp_path / "out", device="cpu", progress=False)
    assert not (tmp_path / "out").exists()
