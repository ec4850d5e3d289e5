"""What may stand in a suite file, as types and, for editors that complete and check YAML, as a JSON Schema."""

from __future__ import annotations

from typing import Any

import msgspec

from archbench.catalog import entries
from archbench.model.axes import DEVICE_KINDS, Roles, Scalar
from archbench.model.cell import Input, PositiveInt, Size, StatedAccuracy
from archbench.model.protocol import Constant, Protocol, constants, protocol_for
from archbench.model.suite import Name, Pattern, Suite

Schema = dict[str, Any]


class ArchitectureEntry(Roles, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A network with what departs from its defaults, or (`family`) all networks of a family alike."""

    name: Name | None = None
    family: Name | None = None
    options: dict[str, Scalar] = {}
    num_classes: PositiveInt | None = None
    in_channels: PositiveInt | None = None
    input_size: Size | None = None
    inputs: tuple[Input, ...] = ()
    weights: Pattern | None = None
    accuracy: StatedAccuracy | None = None


class SuiteFile(Suite, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A suite as written. Wherever the type says a tuple, the file may hold one value in place of a list."""

    architectures: tuple[Name | ArchitectureEntry, ...]  # type: ignore[assignment]
    protocol: Protocol = Protocol()  # type: ignore[assignment]


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
    for one in constants():
        definitions["Protocol"]["properties"][one.name]["description"] = _constant(one)
    suite = definitions["SuiteFile"]["properties"]
    suite["architectures"] |= _one_or_list(_architecture())
    sections = suite["devices"]["additionalProperties"]
    suite["devices"] |= {"properties": dict.fromkeys(DEVICE_KINDS, sections), "additionalProperties": False}
    definitions["ArchitectureEntry"]["oneOf"] = [{"required": ["name"]}, {"required": ["family"]}]
    definitions["Decision"]["oneOf"] = [{"required": ["minimize"]}, {"required": ["maximize"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "archbench suite", **schema}


def _constant(one: Constant) -> str:
    defaults = ", ".join(f"{getattr(protocol_for(kind, {}), one.name):g} on {kind}" for kind in DEVICE_KINDS)
    return f"{one.meaning} Unit: {one.unit}; by default {defaults}."


def _description(struct: str, key: str) -> dict[str, str]:
    words = DESCRIPTIONS.get(struct, {}).get(key) or DESCRIPTIONS["Axes"].get(key)
    return {"description": words} if words else {}


def _relaxed(kind: Schema) -> Schema:
    """What the file's reader makes of a type: one value for a list, no empty list, no value left out."""
    kind = {key: value for key, value in kind.items() if key != "default"}
    if kind.get("type") == "array":
        return _one_or_list(_relaxed(kind["items"]), repeats=not kind.get("uniqueItems", True))
    if isinstance(kind.get("additionalProperties"), dict):
        return kind | {"additionalProperties": _relaxed(kind["additionalProperties"])}
    options = kind.pop("anyOf", [])
    if {"type": "boolean"} in options:  # an architecture's option: any plain value, null as well
        return kind | {"anyOf": options}
    options = [_relaxed(option) for option in options if option != {"type": "null"}]
    return kind | (options[0] if len(options) == 1 else {"anyOf": options} if options else {})


def _one_or_list(item: Schema, *, repeats: bool = False) -> Schema:
    plain = "$ref" not in item and "anyOf" not in item and not repeats
    unique = {"uniqueItems": True} if plain else {}
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 0 if repeats else 1, **unique}]}


def _architecture() -> Schema:
    names = [name for entry in entries().values() for name in (entry.name, *entry.aliases)]
    elsewhere = {"type": "string", "pattern": "^[^:]+:.+$"}  # torchvision:NAME, timm:NAME, module:function
    return {"anyOf": [{"enum": names}, elsewhere, {"$ref": "#/$defs/ArchitectureEntry"}]}


DESCRIPTIONS: dict[str, dict[str, str]] = {
    "SuiteFile": {
        "suite": "Name of the suite; its results go to results/NAME/.",
        "description": "The question that the suite answers, in a sentence.",
        "architectures": (
            "Networks: a catalogue name or alias, torchvision:NAME, timm:NAME, module:function (needs --allow-code), "
            "{family: NAME}, or {name: NAME, options: {...}, num_classes: N, in_channels: N, input_size: N, "
            "head: features, deploy: true, inputs: [...], accuracy: {...}}."
        ),
        "axes": "Values to cross with each other; a missing axis has its default alone.",
        "settings": "Named bundles of toggles, in place of crossing precision, compile_mode and the like.",
        "devices": "What changes on cpu or cuda: one section, or a list of sections whose cells are united.",
        "exclude": "Cells to leave out: every given field must match, a field matches any of its values.",
        "metrics": "What to measure; energy, compile, numerics, accuracy, profile cost time and are off unless named.",
        "rounds": (
            "Passes over the suite, each in an order of its own and with fresh processes (default: on a CPU two, the "
            "last for times alone, since processes differ; on a GPU one)."
        ),
        "percentiles": "Latency percentiles to give; a high one needs many samples.",
        "seed": "Seed of the order, of the inputs and of the weights.",
        "twin": "A network measured first, in between and last: tells how far processes differ.",
        "images": "A folder with a folder of images for each class: top-1 is measured on it.",
        "protocol": "Constants of the measurement protocol that this suite changes.",
        "decisions": "Rows of the decision matrix.",
    },
    "ArchitectureEntry": {
        "name": "Catalogue name or alias, torchvision:NAME, timm:NAME or module:function.",
        "family": "Every catalogue network of this family.",
        "options": "Keyword arguments of the network's constructor.",
        "num_classes": "Outputs of the classifier.",
        "in_channels": "Channels of the input.",
        "weights": "Trained weights: a file, or a tag of its library's, which is not downloaded.",
        "input_size": "Side of the image, or [height, width]; goes before the input_size axis.",
        "inputs": "Arguments of its forward: [{shape: [3, 224, 160]}, {name: ids, shape: 77, ...}].",
        "accuracy": "Its accuracy where archbench knows none, or yours: {top1, top5, source, dataset}.",
    },
    "Input": {
        "shape": "Of one sample, without the batch axis; left out: one number a sample.",
        "dtype": "float32 (default), int64, bool and so on.",
        "low": "The smallest value.",
        "high": "Above the largest value; of whole numbers 2 unless said.",
        "name": "The argument's name; batch.pixels for an entry of a dictionary; left out: by position.",
        "batched": "false: the tensor has no batch axis.",
    },
    "StatedAccuracy": {
        "top1": "Top-1 accuracy in percent.",
        "top5": "Top-5 accuracy in percent.",
        "source": "Whose figure it is, such as 'our training, run 17'; printed wherever the figure is.",
        "dataset": "Data set of the figure, such as imagenet; others are never ranked with it.",
    },
    "Axes": {
        "batch_size": "Images a step (default 1).",
        "input_size": "Side of the image, or HEIGHTxWIDTH (default: what each network was published for).",
        "phase": "inference (default) or training.",
        "precision": "fp32 (default; TF32 off), tf32, amp-bf16, amp-fp16, bf16 or fp16.",
        "compile_mode": "torch.compile mode, or off (default).",
        "memory_format": "contiguous (default) or channels_last, of model and input.",
        "runtime": "What runs the network: torch (default), onnxruntime, openvino, aot-inductor or tensorrt.",
        "quantize": "off (default), int8-dynamic, int8-static, int8-weight-only or fp8.",
        "head": "classifier (default), none for the last map, features for the maps that a detector reads.",
        "deploy": "true: folded for inference, branches into one and batch norms into convolutions.",
        "train": "full (default), head for the last linear layer alone, or frozen-bn.",
        "optimizer": "sgd (default, with momentum) or adamw.",
        "checkpointing": "true: what blocks hold inside is computed again in the backward pass.",
        "loss": "cross-entropy, binary-cross-entropy, mean-square or mean of every output (default: by-output).",
        "threads": "Threads of one operator, on the CPU (default: OMP_NUM_THREADS, else the usable cores).",
    },
    "Section": {
        "architectures": "Only these of the suite's networks; shell patterns over names.",
        "family": "Only the suite's networks of these families.",
        "settings": "Only these of the suite's settings.",
    },
    "Setting": {"only": "Use the setting for matching cells only."},
    "Filter": {
        "architecture": "Shell patterns over the names of the suite's networks.",
        "family": "Families of networks.",
        "setting": "Names of settings.",
        "device": "cpu or cuda.",
    },
    "Decision": {
        "situation": "The reader's situation, as a tutorial would put it.",
        "where": 'Conditions on rows of results, such as "phase == \'training\'" or "top1 >= 76".',
        "minimize": "The column whose smallest value wins.",
        "maximize": "The column whose largest value wins.",
        "at_least": 'Least values of columns, such as {top1: 70} or {throughput: "100 img/s"}.',
        "at_most": 'Largest values of columns, in stored units or with one: {latency_median: "5 ms"}.',
        "baseline": "The network that gains and costs are given against.",
        "at_most_of_baseline": "Largest values relative to the baseline's: {macs: 1.05} is 5 % more at most.",
        "across": "Columns in which rows may differ and be ranked against each other all the same.",
        "show": "Columns whose figures stand beside the answer.",
        "every_setting": "Show the usual networks under every setting, and not only under their best.",
        "not_measurable": "Why measurements cannot judge this; figures are then shown without a verdict.",
        "folklore": "The networks that people usually take.",
        "note": "What the reader should know beside the answer.",
    },
}
"""What each key means, for editors. A key of `Axes` means the same in sections, settings and filters."""
