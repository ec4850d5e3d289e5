"""The training probe: repeats itself to the last bit, resumes, and takes a loss that is no number for a finding."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import archbench
from archbench.catalog.build import build
from archbench.cli import main
from archbench.model.cell import Network
from archbench.model.errors import UnfitError, UsageError
from archbench.rendering.folklore import probe_report
from archbench.rendering.report import FORMATS
from archbench.results.files import sealed_parquet
from archbench.training import loop
from archbench.training.probe import TABLE, read_probe
from archbench.training.settings import CIFAR_FILES, SUBJECTS, Schedule, Settings, cifar10, digits, schedules

QUICK = ["tanh-xavier", "relu-bn-he"]


def settings(name, **changed):
    schedule = Schedule(**{"steps": 20, "batch_size": 32, "learning_rate": 0.01, **changed})
    kind = SUBJECTS[name].kind
    return Settings(
        data="digits", image_size=8, seeds=(0,), subjects=(name,), schedules={kind: schedule}, device="cpu", points=4
    )


def trained(*words):
    points = loop.train(*words)
    assert points is not None
    return points


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Four steps of one network, made once for all that look at what is stored; `copied` for those that write to it."""
    return archbench.train_probe(QUICK[0], seeds=1, steps=4, out=tmp_path_factory.mktemp("probe") / "p")


@pytest.fixture
def copied(short, tmp_path):
    return Path(shutil.copytree(short.path, tmp_path / "p"))


def test_digits_are_split_once_and_normalised():
    images = digits()
    assert images.train.shape == (1437, 1, 8, 8)
    assert images.test.shape == (360, 1, 8, 8)
    assert abs(images.train.mean()) < 1e-5
    assert abs(images.train.std() - 1) < 1e-5
    again = digits()
    assert np.array_equal(images.test, again.test)
    everything = {image.tobytes() for image in (*images.train, *images.test)}
    from sklearn.datasets import load_digits

    assert len(everything) == len({image.tobytes() for image in load_digits().images})


def test_two_probes_of_one_seed_are_one_file(tmp_path):
    """Chains, and convolutions with batch normalisation: each training in its own process, beside others or none."""
    first, second = (
        archbench.train_probe([*QUICK, "resnet20"], seeds=2, steps=8, out=tmp_path / name, at_once=at_once)
        for name, at_once in (("a", 2), ("b", 1))
    )
    assert (first.path / TABLE).read_bytes() == (second.path / TABLE).read_bytes()
    assert len(first.last) == 6
    seeds = [one.train_loss for one in first.last if one.network == QUICK[0]]
    assert seeds[0] != seeds[1]


def test_a_training_learns_and_its_gradients_are_those_of_its_layers():
    points = trained("tanh-xavier", 0, settings("tanh-xavier", steps=200), "digits")
    assert points[-1].train_accuracy > 60 > points[0].train_accuracy
    assert [one.step for one in points] == [50, 100, 150, 200]
    assert all(len(one.gradient_norms) == 31 for one in points)


def test_the_first_loss_is_that_of_the_untrained_network():
    points = trained("relu-normal", 0, settings("relu-normal", steps=1, learning_rate=1e-9), "digits")
    # Naive weights let nothing through: all classes are as likely.
    assert points[0].train_loss == pytest.approx(math.log(10), abs=1e-3)
    assert points[0].gradient_norms[0] < 1e-20


def test_plain_and_residual_networks_differ_in_nothing_but_shortcuts():
    from archbench.catalog import counted_by_label

    for depth in (20, 56, 110):
        pair = [counted_by_label()[f"{kind}{depth}_cifar"].counts for kind in ("plain", "resnet")]
        assert pair[0].params == pair[1].params
        assert pair[0].macs == pair[1].macs
    kinds = schedules("digits", None)
    assert kinds["depth"] == kinds["joining"]


def test_adding_and_concatenating_have_as_many_parameters():
    joined = [
        sum(one.numel() for one in net.parameters())
        for net in (loop.densenet22_k12(1), build(Network(name="resnet20_cifar", in_channels=1)))
    ]
    assert joined[0] == pytest.approx(joined[1], rel=0.02)


def test_a_loss_that_is_no_number_ends_the_training_and_is_told(short):
    name = "relu-he"
    points = trained(name, 0, settings(name, learning_rate=1e20), "digits")
    assert math.isnan(points[-1].train_loss) or math.isinf(points[-1].train_loss)
    assert points[-1].step < 20
    diverged = archbench.training.probe.Probe(
        path=short.path, about=short.about, points=(*short.points[:-1], _as_nan(short.points[-1]))
    )
    text = FORMATS["md"](probe_report(diverged))
    assert "diverged at step 4" in text
    assert "NaN" in text


def _as_nan(point):
    from msgspec.structs import replace

    return replace(point, train_loss=math.nan)


def test_nan_survives_the_file(short, copied):
    from archbench.training import probe as probes

    (copied / TABLE).write_bytes(sealed_parquet(probes._parquet([_as_nan(short.points[-1])])))
    assert math.isnan(read_probe(copied).points[0].train_loss)


def test_what_is_trained_is_not_trained_again(copied):
    before = (copied / TABLE).read_bytes()
    told = []
    archbench.train_probe(QUICK[0], seeds=1, steps=4, out=copied, told=lambda probe, name, seed: told.append(name))
    assert told == []
    assert (copied / TABLE).read_bytes() == before


def test_another_schedule_is_another_probe(copied):
    with pytest.raises(UsageError, match="other settings; give another --out, or remove it to begin anew"):
        archbench.train_probe(QUICK[0], seeds=1, steps=5, out=copied)


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_probe_keeps_what_it_has_and_goes_on(tmp_path, blow):
    place = tmp_path / "p"
    names = ["tanh-xavier", "tanh-he", "relu-he", "relu-xavier"]
    words = [sys.executable, "-m", "archbench", "train-probe", *names, "--seeds", "1", "--steps", "150"]
    with subprocess.Popen(
        [*words, "--out", str(place), "--at-once", "1"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        process.stderr.readline()
        begun = time.monotonic()
        process.send_signal(blow)
        rest = process.stderr.read()
        code = process.wait(60)
    assert time.monotonic() - begun < 60
    if blow == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 130
        assert "the same command resumes" in rest
        assert "Traceback" not in rest
    kept = read_probe(place)
    assert 1 <= len(kept.last) < 4
    whole = archbench.train_probe(names, seeds=1, steps=150, out=place, at_once=2)
    assert len(whole.last) == 4
    assert set(kept.points) <= set(whole.points)


@pytest.mark.slow
def test_a_training_that_is_killed_is_one_line(tmp_path):
    place = tmp_path / "p"
    words = [
        sys.executable,
        "-m",
        "archbench",
        "train-probe",
        "plain20",
        "tanh-he",
        "--seeds",
        "1",
        "--out",
        str(place),
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        import psutil

        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = [one for one in psutil.Process(process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
            if found and found[0].cpu_times().user > 1:
                break
            time.sleep(0.1)
        os.kill(found[0].pid, signal.SIGKILL)
        err = process.stderr.read()
        assert process.wait(60) == 3
    assert "a training's process died" in err
    assert "Traceback" not in err


# CIFAR-10 from a folder


def cifar_folder(folder, per_file=8):
    """A made-up CIFAR-10: of class k every pixel is near 25 k in red, and dark elsewhere."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in CIFAR_FILES:
        labels = random.integers(0, 10, per_file, dtype=np.uint8)
        rows = np.zeros((per_file, 3073), dtype=np.uint8)
        rows[:, 0] = labels
        rows[:, 1:1025] = labels[:, None] * 25
        rows[:, 1025:] = random.integers(0, 9, (per_file, 2048))
        rows.tofile(folder / name)
    return folder


def test_cifar10_is_read_as_it_is_written(tmp_path):
    images = cifar10(cifar_folder(tmp_path / "cifar-10-batches-bin"))
    assert images.train.shape == (40, 3, 32, 32)
    assert images.test.shape == (8, 3, 32, 32)
    assert images.augmented
    red = images.train[:, 0].mean(axis=(1, 2))
    assert np.corrcoef(red, images.train_labels)[0, 1] > 0.999
    assert cifar10(tmp_path).train.shape == images.train.shape  # the folder above will do


def test_augmented_images_are_shifted_or_mirrored_originals():
    random = np.random.default_rng(1)
    image = torch.zeros(1, 1, 32, 32)
    image[..., 16, 10] = 1
    for _ in range(20):
        (found,) = loop._augmented(image, random)
        row, column = np.argwhere(found[0].numpy() == 1)[0]
        assert abs(row - 16) <= 4
        assert min(abs(column - 10), abs(31 - column - 10)) <= 4


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda folder: (folder / "test_batch.bin").unlink(), "holds no test_batch.bin"),
        (lambda folder: (folder / "data_batch_3.bin").unlink(), "data_batch_3.bin"),
        (lambda folder: (folder / "data_batch_3.bin").write_bytes(b"x" * 100), "no records"),
        (lambda folder: (folder / "data_batch_3.bin").write_bytes(b"\xff" * 3073), "the label 255"),
    ],
)
def test_a_folder_without_cifar10_is_told(tmp_path, break_it, words):
    folder = cifar_folder(tmp_path / "cifar")
    break_it(folder)
    with pytest.raises(UsageError, match=words):
        archbench.train_probe("plain20", data=folder, out=tmp_path / "p")


# Bad input


def test_without_scikit_learn_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UnfitError, match=r"pip install 'archbench\[probe\]'"):
        digits()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["plain57"], "did you mean plain56"),
        (["--seeds", "0"], "--seeds, --steps and --at-once are whole numbers"),
        (["--steps", "-1"], "--seeds, --steps and --at-once are whole numbers"),
        (["--data", "nowhere"], "--data nowhere: holds no test_batch.bin"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_bad_words_are_one_line(capsys, words, expected):
    with pytest.raises(SystemExit) as ended:
        main(["train-probe", *words])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert expected in err
    assert len(err.strip().splitlines()) == 1


def test_a_damaged_probe_is_told(copied):
    content = bytearray((copied / TABLE).read_bytes())
    content[len(content) // 2] ^= 255
    (copied / TABLE).write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        read_probe(copied)


def test_the_command_leaves_a_report_with_both_curves(tmp_path, capsys):
    main_words = ["train-probe", "plain20", "resnet20", "--seeds", "1", "--steps", "2", "--out", str(tmp_path / "p")]
    with pytest.raises(SystemExit) as ended:
        main([*main_words, "--json"])
    assert ended.value.code == 0
    assert {one["network"] for one in json.loads(capsys.readouterr().out)["points"]} == {"plain20", "resnet20"}
    assert Path(tmp_path / "p" / "plots" / "two-curves.svg").exists()
    assert (
        "At 20 layers" in (tmp_path / "p" / "report.md").read_text()
        or "at 20 layers" in (tmp_path / "p" / "report.md").read_text()
    )
