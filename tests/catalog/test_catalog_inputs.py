"""What a network takes: said by a suite, by its own code, or an image; outputs of any kind; what errors name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from archbench.analyze.counts import count, count_module
from archbench.analyze.memory import predict_cell, predict_module
from archbench.analyze.step import figures_in, loss_of, settled
from archbench.catalog.build import takes_of
from archbench.catalog.inputs import Takes, takes_inputs
from archbench.measure.workload import Workload
from archbench.model.cell import Cell, Input, Network, parse_inputs, text_of
from archbench.model.errors import UnsupportedError, UsageError
from archbench.suite import suite_from_names
from archbench.suite.cells import parse_cell

CPU = torch.device("cpu")

NETS = """
import torch
from torch import nn

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(1000, 32)
        self.fc = nn.Linear(32, 10)
    def forward(self, ids):
        return self.fc(self.e(ids).mean(1))

class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 4, 4)
        self.b = nn.Conv2d(1, 8, 4, 4)
    def forward(self, image, mask):
        return (self.a(image) + self.b(mask)).mean((2, 3))

class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 4, 4)
    def forward(self, *, pixels):
        return self.a(pixels).mean((2, 3))

class Dictionary(ByName):
    def forward(self, batch):
        return self.a(batch["pixels"]).mean((2, 3))

class Unbatched(ByName):
    def forward(self, image):
        channels, height, width = image.shape
        return self.a(image[None])[0].mean((1, 2))

def gray():
    return nn.Sequential(nn.Conv2d(1, 8, 4, 4), nn.Flatten(), nn.LazyLinear(10))

class Says(Tokens):
    def example_inputs(self, batch_size):
        return torch.randint(0, 1000, (batch_size, 16))

def halves():
    return nn.Conv2d(3, 8, 4, 224).bfloat16()

class HasConfig(ByName):
    default_cfg = {"input_size": (3, 32, 48)}
    def forward(self, x):
        return self.a(x).mean((2, 3))
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "inputs_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    return "inputs_nets"


def network(name: str, inputs: str = "") -> Network:
    listed = msgspec.convert(parse_inputs(inputs), tuple[Input, ...]) if inputs else ()
    return Network(name=name, inputs=listed)


PATCHES = 8 * 8 * 8  # outputs of 8 kernels of 4x4 at stride 4 on 32x32


@pytest.mark.parametrize(
    ("name", "inputs", "macs"),
    [
        ("Tokens", "16/int64/0..1000", 320),
        ("Siamese", "3x32x32+1x32x32", PATCHES * 16 * (3 + 1)),
        ("ByName", "pixels=3x32x32", PATCHES * 48),
        ("Dictionary", "batch.pixels=3x32x32", PATCHES * 48),
        ("Unbatched", "3x32x32/unbatched", PATCHES * 48),
        ("gray", "1x32x32", PATCHES * 16 + PATCHES * 10),
        ("Says", "", 320),
        ("HasConfig", "", 8 * 12 * 8 * 48),
        ("halves", "", 8 * 48),  # an image of what its weights are
    ],
)
def test_counts_and_memory_of_what_a_network_takes(nets: str, name: str, inputs: str, macs: int) -> None:
    net = network(f"{nets}:{name}", inputs)
    assert count(net, allow_code=True).macs == macs
    for phase in ("inference", "training"):
        model = predict_cell(Cell(network=net, batch_size=2, phase=phase), allow_code=True)  # type: ignore[arg-type]
        assert model.peak_bytes(2) > model.weight_bytes


@pytest.mark.parametrize("inputs", ["16/int64/0..1000", "3x32x32+mask=1x32x32", "t=scalar/int64/unbatched/..10"])
def test_inputs_read_as_they_are_written(inputs: str) -> None:
    assert text_of(msgspec.convert(parse_inputs(inputs), tuple[Input, ...])) == inputs


@given(
    st.lists(
        st.builds(
            Input,
            shape=st.lists(st.integers(1, 999), max_size=4).map(tuple),
            dtype=st.sampled_from(("float32", "bfloat16", "int64", "uint8", "bool")),
            low=st.none() | st.integers(-9, 9).map(float),
            high=st.none() | st.integers(10, 10**6).map(lambda whole: whole / 8),
            name=st.none() | st.sampled_from(("ids", "batch.pixels")),
            batched=st.booleans(),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_every_input_survives_its_text(listed: list[Input]) -> None:
    assert msgspec.convert(parse_inputs(text_of(listed)), list[Input]) == listed


def test_a_cell_is_named_with_its_inputs(nets: str) -> None:
    net = network(f"{nets}:Tokens", "16/int64/0..1000")
    cell = Cell(network=net, batch_size=4)
    assert parse_cell(cell.cell_id, "cpu", allow_code=True) == cell


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([{"shape": [16], "dtype": "int65"}], "int64"),
        ([{"shape": [0]}], "at least 1"),
        ([{"shape": [3], "high": 0.0}], "range /?..0 is empty|is empty"),
        ([{"name": "a"}, {"name": "a"}], "given twice"),
        ([{"name": "a"}, {"shape": 3}], "by position stands behind one by name"),
        ([{"shape": 3, "dtype": "int64", "high": 2.5}], "whole ends"),
        ([{"shap": 3}], "did you mean shape"),
        ("3x224x", "says no shape"),
    ],
)
def test_bad_inputs_in_one_line(inputs: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        suite_from_names(["resnet18"], common={"inputs": inputs})


def test_size_and_inputs_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="leave one of them out"):
        suite_from_names([{"name": "resnet18", "inputs": [{"shape": [3, 64, 64]}], "input_size": 64}])


def test_an_error_names_the_argument_and_what_was_tried(nets: str) -> None:
    with pytest.raises(UsageError) as raised:
        count(network(f"{nets}:Tokens"), allow_code=True)
    said = str(raised.value)
    assert "forward(ids)" in said
    assert "ids = float32 1x3x224x224" in said
    assert "inputs:" in said
    assert "cannot take" not in said
    with pytest.raises(UsageError) as raised:
        count(network(f"{nets}:Siamese", "3x32x32+2x32x32"), allow_code=True)
    assert "mask = float32 1x2x32x32" in str(raised.value)
    assert "an image was tried" not in str(raised.value)


@pytest.mark.parametrize(("size", "macs"), [("640x480", 4_089_184_256 * 300 // 49), (224, 4_089_184_256)])
def test_an_image_need_not_be_square(size: int | str, macs: int) -> None:
    counts = count(Network(name="resnet50", input_size=size))
    convolutions = counts.macs - 2048 * 1000
    assert convolutions == pytest.approx((macs - 2048 * 1000 * (macs // 4_089_184_256)), rel=1e-2)
    assert counts.input_shape == ((3, 640, 480) if size == "640x480" else (3, 224, 224))


@dataclass
class Out:
    logits: Tensor
    features: Tensor


class Pair(NamedTuple):
    logits: Tensor
    ids: Tensor


class Body(nn.Module):
    def __init__(self, give: Any) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 8, 4, 4)
        self.fc = nn.Linear(8, 10)
        self.give = give

    def forward(self, x: Tensor) -> Any:
        features = self.c(x)
        return self.give(self.fc(features.mean((2, 3))), features)


OUTPUTS: dict[str, tuple[Any, str, int]] = {
    "dict": (lambda y, f: {"logits": y, "features": f, "note": "x"}, "cross-entropy + mean-square", 2),
    "dataclass": (Out, "cross-entropy + mean-square", 2),
    "named tuple": (lambda y, f: Pair(y, y.topk(3).indices), "cross-entropy", 1),
    "mask": (lambda y, f: (y, y > 0), "cross-entropy", 1),
    "list of dicts": (lambda y, f: [{"boxes": one} for one in y], "3 x mean-square", 3),
    "flat": (lambda y, f: f.flatten(2).transpose(1, 2).reshape(-1, 8), "mean-square", 1),
    "scalar": (lambda y, f: y.square().mean(), "the output itself", 1),
    "complex": (lambda y, f: torch.complex(y, y), "mean-square", 1),
    "generator": (lambda y, f: (one for one in (y, f)), "cross-entropy + mean-square", 2),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_any_kind(kind: str) -> None:
    give, words, figures = OUTPUTS[kind]
    module = Body(give)
    assert count_module(module, (3, 16, 16)).macs == 4 * 4 * 8 * 48 + 80
    cell = Cell(network=Network(name="lenet5"), batch_size=3, phase="training")
    workload = Workload(cell, module, (3, 16, 16), CPU, ring=1, seed=0)
    before = module.c.weight.detach().clone()
    workload.step()
    assert workload.trained_on == words
    assert not torch.equal(before, module.c.weight)
    inference = Workload(Cell(network=cell.network, batch_size=3), module, (3, 16, 16), CPU, ring=1, seed=0)
    assert len(inference.output(inference.inputs[0])) == figures


@pytest.mark.parametrize("kind", ["dict", "dataclass", "named tuple", "mask", "flat", "scalar", "generator"])
def test_memory_of_training_is_predicted_for_outputs_of_any_kind(kind: str) -> None:
    cell = Cell(network=Network(name="lenet5"), batch_size=8, phase="training")
    model = predict_module(Body(OUTPUTS[kind][0]), (3, 16, 16), cell)
    assert model.peak_bytes(8) > 3 * model.weight_bytes


@pytest.mark.parametrize(
    ("loss", "kind", "expected"),
    [
        ("mean", "dict", lambda y, f: y.mean() + f.mean()),
        ("mean-square", "dict", lambda y, f: y.square().mean() + f.square().mean()),
        ("cross-entropy", "flat", lambda y, f: nn.functional.cross_entropy(rows_of(f).reshape(-1, 8), ids((48,), 8))),
        ("cross-entropy", "tokens", lambda y, f: nn.functional.cross_entropy(f.flatten(2), ids((3, 16), 8))),
        ("cross-entropy", "map", lambda y, f: nn.functional.cross_entropy(f, ids((3, 4, 4), 8))),
        (
            "binary-cross-entropy",
            "map",
            lambda y, f: nn.functional.binary_cross_entropy(f.sigmoid(), ids((3, 8, 4, 4), 2).float()),
        ),
    ],
)
def test_the_loss_that_is_named(loss: Any, kind: str, expected: Any) -> None:
    gives = {
        "tokens": lambda y, f: rows_of(f),
        "map": lambda y, f: f,
        **{name: one[0] for name, one in OUTPUTS.items()},
    }
    network = Network(name="lenet5", loss=loss)
    cell = Cell(network=network, batch_size=3, phase="training")
    workload = Workload(cell, Body(gives[kind]), (3, 16, 16), CPU, ring=1, seed=0)
    found = workload.loss()
    assert workload.trained_on == (f"2 x {loss}" if kind == "dict" else loss)
    body = workload.module
    assert isinstance(body, Body)
    features = body.c(workload.inputs[0].tensors[0])
    torch.testing.assert_close(found, expected(body.fc(features.mean((2, 3))), features))
    model = predict_module(Body(gives[kind]), (3, 16, 16), cell)
    assert model.peak_bytes(8) > 3 * model.weight_bytes


def rows_of(features: Tensor) -> Tensor:
    """[N, tokens, channels] of [N, channels, height, width]."""
    return features.flatten(2).transpose(1, 2)


def ids(shape: tuple[int, ...], below: int) -> Tensor:
    """The labels that a workload of seed 0 draws."""
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(0))


def test_cross_entropy_of_what_has_no_classes() -> None:
    cell = Cell(network=Network(name="lenet5", loss="cross-entropy"), batch_size=3, phase="training")
    workload = Workload(cell, Body(OUTPUTS["scalar"][0]), (3, 16, 16), CPU, ring=1, seed=0)
    with pytest.raises(UnsupportedError, match="needs an axis of classes"):
        workload.step()


def test_no_output_and_a_number() -> None:
    assert figures_in(None) == []
    assert figures_in(2.5)[0].item() == 2.5
    assert loss_of(None, 2, lambda *what: torch.zeros(1)) == (None, "")
    assert settled(iter((1, 2))) == (1, 2)


def test_values_lie_in_their_range() -> None:
    listed = msgspec.convert(parse_inputs("50/int64/3..5+200/float32/-1..1+4/bool"), tuple[Input, ...])
    whole, real, flags = takes_inputs(listed, "test").drawn(40, None).tensors
    assert set(whole.unique().tolist()) == {3, 4}
    assert whole.shape == (40, 50)
    assert -1 <= real.min() < -0.9
    assert 0.9 < real.max() <= 1
    assert flags.dtype == torch.bool


def test_the_networks_own_example_is_what_is_measured(nets: str) -> None:
    given_by = takes_of(network(f"{nets}:Says"), allow_code=True)
    assert isinstance(given_by, Takes)
    assert given_by.text == "16/int64"
    (ids,) = given_by.drawn(64, None).tensors
    assert ids.shape == (64, 16)
    assert ids.max() > 900
