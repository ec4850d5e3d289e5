"""The JSON Schema for editors agrees with the reader: it takes what the reader takes, and misses little else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from typer.testing import CliRunner

from archbench.cli import app
from archbench.model.protocol import Protocol
from archbench.suite import json_schema
from archbench.suite.document import read_document
from archbench.suite.schema import DESCRIPTIONS

SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_shipped_suite_is_valid(validator: jsonschema.Draft202012Validator, path: Path) -> None:
    assert [error.message for error in validator.iter_errors(read_document(path).value)] == []


BASE: dict[str, Any] = {"suite": "s", "architectures": "resnet18"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"architectures": ["resnet18", "timm:resnet50", {"family": "resnet"}, {"name": "vgg16", "head": "none"}]},
        {"architectures": {"name": "densenet121", "options": {"memory_efficient": True, "weights": None}}},
        {"axes": {"batch_size": 8, "compile_mode": "off", "phase": ["inference", "training"]}},
        {"devices": {"cpu": {"batch_size": [1, 8]}, "cuda": [{"phase": "training"}, {}]}},
        {"settings": {"a": {"precision": "bf16", "only": {"batch_size": 8}}}, "exclude": {"setting": "a"}},
        {"protocol": {"min_samples": 40}, "percentiles": 99, "metrics": "latency", "twin": "resnet18"},
        {"decisions": {"situation": "X", "minimize": "params", "at_least": {"top1": 70}, "folklore": "vgg16"}},
    ],
)
def test_schema_takes(validator: jsonschema.Draft202012Validator, more: dict[str, Any]) -> None:
    assert [error.message for error in validator.iter_errors({**BASE, **more})] == []


@pytest.mark.parametrize(
    "more",
    [
        {"rouns": 3},
        {"suite": "My Suite"},
        {"architectures": []},
        {"architectures": "resnt50"},
        {"architectures": [{"num_classes": 10}]},
        {"axes": {"batch_size": 0}},
        {"axes": {"batch_size": []}},
        {"axes": {"batch_size": [1, 1]}},
        {"axes": {"batch_size": "32"}},
        {"axes": {"batch_size": None}},
        {"axes": {"compile_mode": False}},
        {"devices": {"gpu": {}}},
        {"devices": {"cpu": {"batchsize": 1}}},
        {"protocol": {"drift_limit": 1.0}},
        {"decisions": [{"situation": "X"}]},
        {"rounds": 0},
    ],
)
def test_schema_refuses(validator: jsonschema.Draft202012Validator, more: dict[str, Any]) -> None:
    assert not validator.is_valid({**BASE, **more})


def test_every_key_is_described_and_nothing_else() -> None:
    definitions = json_schema()["$defs"]
    keys = {(struct, key) for struct, definition in definitions.items() for key in definition["properties"]}
    undescribed = {
        (struct, key) for struct, key in keys if not definitions[struct]["properties"][key].get("description")
    }
    assert undescribed == set()
    assert {(struct, key) for struct, described in DESCRIPTIONS.items() for key in described} - keys == set()


def test_constants_have_their_unit_and_the_defaults_of_each_device() -> None:
    described = {name: one["description"] for name, one in json_schema()["$defs"]["Protocol"]["properties"].items()}
    assert described.keys() == set(Protocol.__struct_fields__)
    assert described["max_sampling_s"].endswith("Unit: s; by default 1 on cpu, 5 on cuda.")
    assert described["drift_limit"].endswith("Unit: share; by default 0.1 on cpu, 0.1 on cuda.")
    assert described["host_bound_ratio"].endswith("Unit: ratio; by default 1.1 on cpu, 1.1 on cuda.")
    assert described["min_samples"].endswith("Unit: count; by default 30 on cpu, 30 on cuda.")
    for name, words in described.items():
        assert name.endswith("_s") == ("Unit: s;" in words), name


def test_command_prints_the_schema() -> None:
    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(msgspec.json.encode(json_schema()))
