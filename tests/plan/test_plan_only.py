"""`--only`: which cells a pattern means, and what is said of one that means none."""

from __future__ import annotations

import pytest

from archbench.model.cell import Network
from archbench.model.errors import UsageError
from archbench.model.suite import Axes, Setting, Suite
from archbench.suite.plan import make_plan

SUITE = Suite(
    suite="s",
    architectures=(
        Network(name="resnet18"),
        Network(name="resnet50"),
        Network(name="xception"),
        Network(name="densenet121", options={"memory_efficient": True}),
    ),
    axes=Axes(batch_size=(1, 8), phase=("inference", "training")),
    settings={"fp32": Setting(), "amp": Setting(precision="amp-bf16"), "tf32": Setting(precision="tf32")},
)


def selected(*patterns: str) -> set[tuple[str, int, str, str | None]]:
    cells = make_plan(SUITE, "cuda", only=patterns).cells
    return {(cell.network.name, cell.batch_size, cell.phase, cell.setting) for cell in cells}


@pytest.mark.parametrize(
    ("pattern", "networks", "count"),
    [
        ("resnet50", {"resnet50"}, 12),
        ("resnet*", {"resnet18", "resnet50"}, 24),
        ("legacy_xception", {"xception"}, 12),  # an alias
        ("densenet121", {"densenet121"}, 12),
        ("densenet121[memory_efficient=true]", {"densenet121"}, 12),
        ("resnet50@batch_size=1", {"resnet50"}, 6),
        ("resnet50@batch_size=1,phase=training", {"resnet50"}, 3),
        ("resnet50@batch_size=1, precision=amp-*", {"resnet50"}, 2),
        ("@setting=amp", {"resnet18", "resnet50", "xception", "densenet121"}, 16),
        ("@family=densenet,batch_size=8,device=cuda", {"densenet121"}, 6),
        ("@input_size=299", {"xception"}, 12),
    ],
)
def test_pattern(pattern: str, networks: set[str], count: int) -> None:
    found = selected(pattern)
    assert {name for name, *_ in found} == networks
    assert len(found) == count


def test_a_cell_is_its_own_pattern() -> None:
    for cell in make_plan(SUITE, "cuda").cells:
        assert make_plan(SUITE, "cuda", only=[cell.cell_id]).cells == (cell,)


def test_several_patterns_are_united() -> None:
    assert selected("resnet18", "resnet*@batch_size=1") == selected("resnet18") | selected("resnet50@batch_size=1")


def test_skipped_cells_count_as_matched() -> None:
    plan = make_plan(SUITE, "cpu", only=["@setting=tf32"])
    assert plan.cells == ()
    assert len(plan.skipped) == 16


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("resnet5", "--only 'resnet5' matches no cell of the suite; did you mean resnet50"),
        ("zzz", "matches no cell of the suite; it has resnet18, resnet50, xception, densenet121"),
        ("vgg*", "matches no cell of the suite; it has resnet18"),
        ("resnet50@batch_size=4", "matches no cell of the suite; batch_size is 1, 8 there"),
        ("@setting=compiled", "setting is fp32, amp, tf32 there"),
        ("resnet50@input_size=224,family=densenet", "family is resnet there"),
        ("@setting=amp,precision=fp32", "each condition matches some cell, but no cell matches all of them"),
        ("resnet50@batchsize=1", "unknown key 'batchsize'; did you mean batch_size"),
        ("resnet50@q=1", "unknown key 'q'; the keys are batch_size, input_size"),
        ("resnet50@1", "'1' is not KEY=VALUE; write for example resnet50@batch_size=1"),
        ("resnet50@batch_size=", "'batch_size=' is not KEY=VALUE"),
        ("", "--only '' is empty"),
        ("@", "--only '@' is empty"),
    ],
)
def test_pattern_that_means_nothing(pattern: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(SUITE, "cuda", only=["resnet18", pattern])
    assert message in str(caught.value)
