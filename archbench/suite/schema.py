"""The JSON Schema of a suite file, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

import msgspec

from archbench.catalog import entries
from archbench.model.axes import DEVICE_KINDS
from archbench.suite.grammar import DESCRIPTIONS, SuiteFile

Schema = dict[str, Any]


def json_schema() -> Schema:
    """Return the schema (draft 2020-12). It accepts every file that `load_suite` does.

    What it cannot say (a twin that is not listed, two settings alike) only `load_suite` finds. Where a list is
    expected one value will do, as in the file; the catalogue's names are offered for completion.
    """
    schema = msgspec.json.schema(SuiteFile, ref_template="#/$defs/{name}")
    definitions: dict[str, Schema] = schema["$defs"]
    for struct, definition in definitions.items():
        definition.pop("description")  # a docstring, written for readers of the code
        definition["properties"] = {
            key: _relaxed(kind) | _description(struct, key) for key, kind in definition["properties"].items()
        }
    suite = definitions["SuiteFile"]["properties"]
    suite["architectures"] |= _one_or_list(_architecture())
    suite["devices"] = _devices(suite["devices"])
    definitions["ArchitectureEntry"]["oneOf"] = [{"required": ["name"]}, {"required": ["family"]}]
    definitions["Decision"]["oneOf"] = [{"required": ["minimize"]}, {"required": ["maximize"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "archbench suite", **schema}


def _description(struct: str, key: str) -> dict[str, str]:
    words = DESCRIPTIONS.get((struct, key)) or DESCRIPTIONS.get(("Axes", key))
    return {"description": words} if words else {}


def _relaxed(kind: Schema) -> Schema:
    """What the file's reader makes of a type: one value for a list, no empty list, no value left out."""
    kind = {key: value for key, value in kind.items() if key != "default"}
    if kind.get("type") == "array":
        return _one_or_list(_relaxed(kind["items"]))
    if isinstance(kind.get("additionalProperties"), dict):
        return kind | {"additionalProperties": _relaxed(kind["additionalProperties"])}
    options = kind.pop("anyOf", [])
    if {"type": "boolean"} in options:  # an architecture's option: any plain value, null as well
        return kind | {"anyOf": options}
    options = [_relaxed(option) for option in options if option != {"type": "null"}]
    return kind | (options[0] if len(options) == 1 else {"anyOf": options} if options else {})


def _one_or_list(item: Schema) -> Schema:
    plain = "$ref" not in item and "anyOf" not in item
    unique = {"uniqueItems": True} if plain else {}
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1, **unique}]}


def _architecture() -> Schema:
    names = [name for entry in entries().values() for name in (entry.name, *entry.aliases)]
    elsewhere = {"type": "string", "pattern": "^[^:]+:.+$"}  # torchvision:NAME, timm:NAME, module:function
    return {"anyOf": [{"enum": names}, elsewhere, {"$ref": "#/$defs/ArchitectureEntry"}]}


def _devices(kind: Schema) -> Schema:
    sections = kind["additionalProperties"]
    return kind | {"properties": dict.fromkeys(DEVICE_KINDS, sections), "additionalProperties": False}
