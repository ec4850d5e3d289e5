"""`archbench profile` from outside: what it refuses, what it prints, what it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_environment

from archbench.model.cell import Cell, Network
from archbench.model.errors import UnfitError, UsageError
from archbench.model.messages import ProfileRequest, Ready, encode
from archbench.profiling import _other, run_profile
from archbench.worker import WorkerClient

ODD = Path(__file__).parents[1] / "profile"


def profile(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "archbench", "profile", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "TMPDIR": str(cwd), "PYTHONPATH": str(ODD), "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


def lines_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in done.stderr
    # What the preflight says of the machine is true of it, and of no account here.
    return [line for line in done.stderr.splitlines() if line and not line.startswith("archbench: warning: ")]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["resnet5O"], 2, "did you mean"),
        (["resnet50", "--batch-size", "0"], 2, "--batch-size"),
        (["resnet50", "--batch-size", "1,8"], 2, "one cell"),
        (["resnet50", "--precision", "amp-bf61"], 2, "amp-bf16"),
        (["resnet50", "--precision", "tf32", "--device", "cpu"], 2, "TF32"),
        (["resnet50", "--device", "cuda:17"], 2, "cuda:17"),
        (["resnet50", "--trace", "no/such/place/t.json"], 2, "--trace no/such/place/t.json: cannot be written"),
        (["resnet50", "--trace", "."], 2, "that is a directory"),
        (["resnet50", "--html", "no/such/place/p.html"], 2, "--html no/such/place/p.html: cannot be written"),
        (["resnet50", "--snapshot", "s.pickle", "--device", "cpu"], 2, "CUDA"),
        (["resnet50", "--against", "resnet50"], 2, "the same network at the same settings"),
        (["resnet50", "--against", "@batchsize=2"], 2, "did you mean batch_size"),
        (["resnet50", "--against", "resnet5O"], 2, "did you mean"),
        (["resnet50", "--against", "resnet18", "--stage", "layer1"], 2, "leave out --against, or --stage"),
        (["resnet50", "--stage", "layr1", "--device", "cpu"], 2, "runs no module of that name; did you mean layer1"),
        (["odd_networks:fails"], 2, "--allow-code"),
        (["vgg16", "--batch-size", "1000000", "--device", "cpu"], 3, "no room on cpu"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], code: int, says: str, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = command("profile", *arguments)
    assert done.returncode == code
    assert len(lines_of(done)) == 1
    assert says in done.stderr
    assert not done.stdout


def test_nothing_is_left_of_a_place_that_was_only_tried(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    command("profile", "resnet5O", "--trace", "tried.json")
    assert not (tmp_path / "tried.json").exists()


@pytest.mark.parametrize(
    ("name", "options", "code", "says"),
    [
        ("fails", (), 2, "odd_networks:fails failed in the phase 'first call': ValueError: the shapes do not fit"),
        pytest.param("full_of_memory", ("--phase", "training"), 3, "out of memory on cpu", marks=pytest.mark.slow),
        pytest.param("dies", (), 3, "the process died in the phase 'first call'", marks=pytest.mark.slow),
    ],
)
def test_a_network_that_fails_is_told_in_one_line(
    name: str,
    options: tuple[str, ...],
    code: int,
    says: str,
    command: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ODD))  # of the process that measures
    done = command("profile", f"odd_networks:{name}", "--allow-code", "--device", "cpu", *options)
    assert done.returncode == code
    assert len(lines_of(done)) == 1
    assert says in done.stderr


@pytest.mark.slow
def test_one_profile_as_json_with_its_trace(place: Path) -> None:
    arguments = ("--allow-code", "--device", "cpu", "--phase", "training", "--json", "--trace", "trace.json")
    done = profile("odd_networks:gives_dict", *arguments, cwd=place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["macs"] == sum(row["own_macs"] for row in found["modules"]) > 0
    assert {row["path"] for row in found["modules"]} >= {"", "stem", "blocks.0.block.conv", "head"}
    assert found["memory"]["measured_peak_bytes"] > 0
    assert found["gradients"]["layers"]
    assert found["findings"]
    events = json.loads((place / "trace.json").read_text())["traceEvents"]
    names = {event["name"] for event in events if "name" in event}
    assert {"module: blocks.0.block.conv", "module: blocks.0.block.conv backward"} <= names


@pytest.mark.slow
def test_two_settings_on_one_screen_without_colours(place: Path) -> None:
    done = profile("lenet5", "--against", "@batch_size=4", "--device", "cpu", "--no-memory", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "\x1b[" not in done.stdout
    text = done.stdout.splitlines()
    assert text[0].startswith("A lenet5: inference, batch size 1, fp32, eager")
    assert any(line.startswith("B lenet5: inference, batch size 4") for line in text)
    assert any(line.startswith("all ") and "100 %" in line for line in text)


def test_what_against_does_not_say_stays_as_it_is() -> None:
    axes = {"batch_size": "8", "precision": "fp32"}
    assert _other("resnet50", axes, "densenet121") == ("densenet121", axes)
    assert _other("resnet50", axes, "@precision=bf16") == ("resnet50", {"batch_size": "8", "precision": "bf16"})
    assert _other("resnet50", axes, "vgg16@batch_size=2") == ("vgg16", {"batch_size": "2", "precision": "fp32"})
    with pytest.raises(UsageError, match="no AXIS=VALUE"):
        _other("resnet50", axes, "vgg16@batch_size")


def say(*lines: str, then: str = "") -> tuple[str, ...]:
    ready = Ready(archbench_version="9", pid=1, environment=make_environment())
    told = [encode(ready).decode(), *lines]
    return "-c", "import sys, time\n" + "\n".join(f"print({line!r}, flush=True)" for line in told) + f"\n{then}"


IN_TIME = '{"type":"phase-started","cell_id":"x","phase":"time"}'


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (say('{"type":"profile-failed","kind":"usage","message":"no"}'), UsageError, "^no$"),
        (say('{"type":"profile-failed","kind":"unfit","message":"no"}'), UnfitError, "^no$"),
        (say("hello"), UnfitError, "no message"),
        (say(IN_TIME), UnfitError, "lost in the phase 'time': worker exited with code 0"),
        (say(IN_TIME, then="time.sleep(60)"), UnfitError, "lost in the phase 'time': no word from the worker"),
    ],
)
def test_a_process_that_misbehaves(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], error: type[Exception], says: str
) -> None:
    monkeypatch.setattr("archbench.profiling.HOST_GRACE_S", 0.0)
    cell = Cell(network=Network(name="lenet5"), batch_size=1)
    request = ProfileRequest(cell=cell, environment=make_environment(), silence_s=1.0)
    with pytest.raises(error, match=says), WorkerClient(arguments=arguments) as worker:
        run_profile(worker, request)
