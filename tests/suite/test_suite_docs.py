"""docs/suites.md: its example is a suite, and its table of keys is the grammar's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec

from archbench.model.axes import COMPILE_MODES, Metric
from archbench.model.cell import Network
from archbench.model.suite import Axes, Filter, Suite
from archbench.suite import json_schema, load_suite
from archbench.suite.plan import make_plan

METRICS = get_args(Metric)
PAGE = (Path(__file__).parents[2] / "docs" / "suites.md").read_text()


def test_the_example_is_a_suite_and_plans_as_described(tmp_path: Path) -> None:
    example = re.search("```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    (tmp_path / "backbones.yaml").write_text(example[1])
    suite = load_suite(tmp_path / "backbones.yaml")
    count = len(suite.architectures)

    cpu = make_plan(suite, "cpu")
    assert len(cpu.cells) == count
    assert len(cpu.rounds) == 3
    cuda = make_plan(suite, "cuda").cells
    # Three settings at three batches of inference and two of training, graphs at two, and the section's extra cell.
    assert len(cuda) == count * (3 * 3 + 3 * 2 + 2) + 1
    assert [cell.network.name for cell in cuda if cell.batch_size == 256] == ["resnet50"]


def test_the_table_has_every_key() -> None:
    keys, _, decisions = PAGE.partition("**Decisions.**")
    assert re.findall(r"^\| `(\w+)` \|", keys, re.MULTILINE) == list(json_schema()["$defs"]["SuiteFile"]["properties"])
    assert set(json_schema()["$defs"]["Decision"]["properties"]) <= set(re.findall(r"`(\w+)`", decisions))
    assert {name for struct in (Suite, Axes, Filter) for name in struct.__struct_fields__} <= set(
        re.findall(r"`(\w+)`", PAGE)
    )
    assert set(METRICS) <= set(re.findall(r"`(\w+)`", PAGE))


def test_the_defaults_are_the_types() -> None:
    defaults = {field.name: field.default for field in msgspec.structs.fields(Suite)}
    assert defaults["metrics"] == METRICS[:4]
    assert (defaults["rounds"], defaults["percentiles"], defaults["seed"]) == (None, (90,), 0)
    one = Suite(suite="s", architectures=(Network(name="resnet18"),))
    assert [len(make_plan(one, "cpu").rounds), len(make_plan(one, "cuda").rounds)] == [2, 1]
    assert "| 2 short ones on a CPU, else 1 |" in PAGE


def test_the_modes_that_a_cpu_lacks_are_the_ones_named() -> None:
    sentence = next(line for line in PAGE.split("\n\n") if line.startswith("**Unsupported toggles.**"))
    named = {mode for mode in COMPILE_MODES if f"`{mode}`" in sentence}
    assert named == {"reduce-overhead", "max-autotune"}
