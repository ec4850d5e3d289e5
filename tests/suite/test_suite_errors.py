"""Every mistake in a suite is one line: file, line, column, what is wrong, what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archbench.model.errors import UsageError
from archbench.suite import load_suite

HEAD = "suite: s\narchitectures: [resnet18, resnet50]\n"

# (what stands after HEAD, line:column, a part of the message)
MISTAKES = {
    "unknown key": ("rouns: 3", "3:1", "unknown key 'rouns'; did you mean rounds?"),
    "unknown key in a section": (
        "devices:\n  cpu: {batchsize: 1}",
        "4:9",
        "unknown key 'batchsize' in cpu; did you mean batch_size?",
    ),
    **{
        f"what others call it: {theirs}": (written, place, f"unknown key '{theirs}'{within}; did you mean {ours}?")
        for theirs, written, place, within, ours in (
            ("networks", "networks: [vgg16]", "3:1", "", "architectures"),
            ("models", "models: [vgg16]", "3:1", "", "architectures"),
            ("repeats", "repeats: 3", "3:1", "", "rounds"),
            ("dtype", "axes: {dtype: fp16}", "3:8", " in axes", "precision"),
            ("amp", "axes: {amp: true}", "3:8", " in axes", "precision"),
            ("batch_sizes", "axes: {batch_sizes: 1}", "3:8", " in axes", "batch_size"),
            ("resolution", "axes: {resolution: 96}", "3:8", " in axes", "input_size"),
        )
    },
    "batch size a level too high": ("batch_sizes: 1", "3:1", "unknown key 'batch_sizes'; did you mean axes: {batch_si"),
    "precision a level too high": ("amp: true", "3:1", "unknown key 'amp'; did you mean axes: {precision: ...}?"),
    "constant a level too high": ("min_sample: 3", "3:1", "did you mean protocol: {min_samples: ...}?"),
    "amp as a precision": ("axes: {precision: amp}", "3:19", "'amp' is not a choice; did you mean amp-bf16?"),
    "unknown key far from any": ("zzz: 3", "3:1", "unknown key 'zzz'; the keys are suite, description"),
    "key twice": ("rounds: 1\nseed: 2\nrounds: 3", "5:1", "the key 'rounds' stands twice, first in line 3"),
    "key twice inside": ("axes: {batch_size: 1, batch_size: 2}", "3:23", "'batch_size' stands twice"),
    "unknown device": ("devices: {gpu: {}}", "3:11", "'gpu' is not a choice; did you mean cuda?"),
    "batch twice": ("axes: {batch_size: [1, 1]}", "3:24", "batch_size lists 1 twice"),
    "batch 0": (
        "axes:\n  batch_size: [8, 0]",
        "4:19",
        "0 is out of range; give a number at least 1 and",
    ),
    "batch negative": ("axes: {batch_size: -4}", "3:20", "-4 is out of range"),
    "batch huge": ("axes: {batch_size: 5000000}", "3:20", "5000000 is out of range"),
    "batch of many digits": ("axes: {batch_size: 99999999999999999999}", "3:20", "20 digits"),
    "batch as text": ('axes: {batch_size: "32"}', "3:20", "'32' is not a whole number; write 32 without quotes"),
    "batch as words": ("axes: {batch_size: many}", "3:20", "'many' is not a whole number; give a number such as 8"),
    "batch with a point": ("axes: {batch_size: 8.0}", "3:20", "8.0 is not a whole number; write 8"),
    "batch true": ("axes: {batch_size: true}", "3:20", "true is not a whole number"),
    "batch octal": ("axes: {batch_size: 010}", "3:20", "010 reads as octal"),
    "batch hexadecimal": ("axes: {batch_size: 0x10}", "3:20", "write it in decimal"),
    "batch base 60": ("axes: {batch_size: 1:30}", "3:20", "1:30 reads as base 60"),
    "batch a mapping": ("axes: {batch_size: {min: 1}}", "3:20", "a mapping is not a whole number"),
    "batch list in list": ("axes: {batch_size: [[1, 2]]}", "3:21", "a list is not a whole number"),
    "axis empty": ("axes: {batch_size: []}", "3:20", "batch_size is an empty list; give at least one value"),
    "axis without value": ("axes:\n  batch_size:\n  phase: training", "4:3", "batch_size has no value"),
    "axes without value": ("axes:", "3:1", "axes has no value"),
    "axes a list": ("axes: [batch_size]", "3:7", "axes: a list is not a mapping"),
    "precision misspelt": ("axes: {precision: amp-bf1}", "3:19", "'amp-bf1' is not a choice; did you mean amp-bf16?"),
    "precision far off": ("axes: {precision: 32bit}", "3:19", "choose from amp-bf16, amp-fp16, bf16, fp16, fp32, tf32"),
    "precision a number": ("axes: {precision: 16}", "3:19", "16 is not a choice"),
    "compile_mode false": ("axes: {compile_mode: false}", "3:22", "compile_mode: false is not a choice; write off"),
    "nan": ("protocol: {target_half_width: .nan}", "3:31", ".nan is not a finite number"),
    "inf": ("protocol: {max_sampling_s: .inf}", "3:28", ".inf is not a finite number"),
    "overflow": ("protocol: {max_sampling_s: 1e999}", "3:28", "1e999 is too large"),
    "protocol unknown": (
        "protocol: {max_sampling: 3}",
        "3:12",
        "'max_sampling' in protocol; did you mean max_",
    ),
    "protocol below": ("protocol: {min_samples: 0}", "3:25", "0 is out of range; give a number at least 1"),
    "protocol above": (
        "protocol: {drift_limit: 1.0}",
        "3:25",
        "give a number above 0.0 and below 1.0",
    ),
    "protocol as text": ("protocol: {min_samples: few}", "3:25", "'few' is not a whole number"),
    "rounds": ("rounds: 0", "3:9", "rounds: 0 is out of range"),
    "percentile": ("percentiles: [90, 100]", "3:19", "100 is not a choice; choose from 90, 95, 99"),
    "metric": ("metrics: [latency, thruput]", "3:20", "'thruput' is not a choice; did you mean throughput?"),
    "settings alike": (
        "settings:\n  a: {precision: bf16}\n  b: {precision: bf16}",
        "5:3",
        "the settings a and b are the same",
    ),
    "settings alike but for spelling": ("settings: {a: {}, b: {precision: fp32}}", "3:19", "a and b are the same"),
    "setting not a mapping": (
        "settings: {a: bf16}",
        "3:15",
        "'bf16' is not a mapping; give {key: value}",
    ),
    "setting without value": ("settings:\n  fp32:", "4:3", "fp32 has no value"),
    "setting names settings": (
        "settings: {a: {only: {setting: a}}}",
        "3:23",
        "cannot name settings",
    ),
    "toggle beside settings": (
        "settings: {a: {}}\naxes: {precision: bf16}",
        "4:8",
        "precision stands among the axes, but settings already say it",
    ),
    "toggle beside settings in a section": (
        "settings: {a: {}}\ndevices: {cpu: [{settings: a, compile_mode: off}]}",
        "4:31",
        "compile_mode stands among the axes",
    ),
    "section with unknown setting": (
        "settings: {fp32: {}}\ndevices: {cpu: {settings: [fp23]}}",
        "4:28",
        "unknown setting 'fp23'; did you mean fp32?",
    ),
    "section with settings of none": ("devices: {cpu: {settings: fp32}}", "3:27", "the suite has no settings"),
    "section matching nothing": (
        "devices:\n  cpu:\n    - {batch_size: 1}\n    - {architectures: [resnet18, 'densenet*']}",
        "6:34",
        "'densenet*' matches none of the suite's architectures",
    ),
    "section with another family": ("devices: {cuda: {family: densenet}}", "3:26", "unknown family 'densenet'"),
    "exclude matching nothing": (
        "exclude:\n  - {architecture: resnt50}",
        "4:20",
        "matches none of the suite's architectures; did you mean resnet50",
    ),
    "exclude of an unknown setting": ("exclude: {setting: amp}", "3:20", "unknown setting 'amp'"),
    "exclude everything": ("exclude: [{}]", "3:11", "an empty exclusion would leave nothing"),
    "twin elsewhere": ("twin: densenet121", "3:7", "the twin 'densenet121' is not among the suite's architectures"),
    "twin misspelt": ("twin: resnet5", "3:7", "did you mean resnet50"),
    "decision without goal": (
        "decisions:\n  - situation: X\n    folklore: resnet50",
        "4:5",
        "the decision 'X' has neither minimize nor maximize; give one column",
    ),
    "decision with both": (
        "decisions: [{situation: X, minimize: params, maximize: top1}]",
        "3:13",
        "both minimize and maximize",
    ),
    "decision without situation": ("decisions: [{minimize: params}]", "3:13", "the key 'situation' is missing"),
    "decision twice": (
        "decisions: [{situation: X, minimize: params}, {situation: X, maximize: top1}]",
        "3:59",
        "'X' stands twice",
    ),
    "decision by an unknown column": (
        "decisions: [{situation: X, minimize: latency_medain_s}]",
        "3:38",
        "unknown column 'latency_medain_s'; did you mean latency_median",
    ),
    "decision by text": ("decisions: [{situation: X, minimize: verdict}]", "3:38", "'verdict' holds no numbers"),
    "bound on an unknown column": (
        "decisions: [{situation: X, minimize: params, at_least: {top11: 70}}]",
        "3:57",
        "unknown column 'top11'; did you mean top1",
    ),
    "bound as text": (
        "decisions: [{situation: X, minimize: params, at_least: {top1: high}}]",
        "3:63",
        "'high' is not a number",
    ),
    "bound in a wrong unit": (
        "decisions: [{situation: X, minimize: params, at_most: {latency_median: 5 GiB}}]",
        "3:72",
        "'GiB' is a size in bytes, and latency_median_s is a time",
    ),
    "bound without its unit": (
        'decisions: [{situation: X, minimize: params, at_most: {latency_median: "5"}}]',
        "3:72",
        "write 5ms or 5s",
    ),
    "bound as a share of 1": (
        "decisions: [{situation: X, minimize: params, at_least: {top1: 0.75}}]",
        "3:63",
        "0.75 of what? top1 is in percent; write 75",
    ),
    "where with a share of 1": (
        "decisions: [{situation: X, minimize: params, where: top1 >= 0.75}]",
        "3:61",
        "top1 is in percent; write 75",
    ),
    "where with an unknown column": (
        "decisions: [{situation: X, minimize: params, where: [batch_size == 1, latncy_p99 <= 5ms]}]",
        "3:71",
        "unknown column 'latncy_p99'; did you mean latency_p99",
    ),
    "where with a mistake inside quotes": (
        "decisions: [{situation: X, minimize: params, where: [\"phase == 'training'\", 'latency_p99 <= 5']}]",
        "3:93",
        "5 of what?",
    ),
    "where as one value": (
        "decisions: [{situation: X, minimize: params, where: top1 >= seventy}]",
        "3:61",
        "'seventy' is not a number",
    ),
    "where calls a function": (
        "decisions: [{situation: X, minimize: params, where: \"__import__('os')\"}]",
        "3:53",
        "calls a function",
    ),
    "where of an unknown network": (
        "decisions: [{situation: X, minimize: params, where: architecture == resnet5}]",
        "3:53",
        "'resnet5' is no architecture of the suite; did you mean resnet50",
    ),
    "where of a misspelt family": (
        "decisions: [{situation: X, minimize: params, where: family == renset}]",
        "3:53",
        "'renset' is no family of the suite; did you mean resnet",
    ),
    "relative bound without baseline": (
        "decisions: [{situation: X, minimize: params, at_most_of_baseline: {macs: 1.05}}]",
        "3:46",
        "at_most_of_baseline needs a baseline",
    ),
    "relative bound on an unknown column": (
        "decisions: [{situation: X, minimize: params, baseline: resnet18, at_most_of_baseline: {mac: 1.05}}]",
        "3:88",
        "unknown column 'mac'; did you mean macs",
    ),
    "relative bound of zero": (
        "decisions: [{situation: X, minimize: params, baseline: resnet18, at_most_of_baseline: {macs: 0}}]",
        "3:94",
        "0 is out of range",
    ),
    "baseline unknown": (
        "decisions: [{situation: X, minimize: params, baseline: resnet5}]",
        "3:56",
        "unknown architecture 'resnet5'; did you mean",
    ),
    "show of an unknown column": (
        "decisions: [{situation: X, minimize: params, show: [macs, memory]}]",
        "3:59",
        "unknown column 'memory'",
    ),
    "across what locks nothing": (
        "decisions: [{situation: X, minimize: params, across: [batch]}]",
        "3:55",
        "'batch' locks nothing; did you mean batch_size",
    ),
    "every_setting as text": (
        "decisions: [{situation: X, minimize: params, every_setting: yes}]",
        "3:61",
        "'yes' is neither true nor false",
    ),
    "folklore unknown": (
        "decisions: [{situation: X, minimize: params, folklore: [resnet50, densent121]}]",
        "3:67",
        "did you mean densenet121",
    ),
    "anchor": ("axes: &a {batch_size: 1}", "3:7", "anchors, aliases and merge keys"),
    "unquoted pattern": ("exclude: {architecture: *_cifar}", "3:25", "quote a pattern that begins with *"),
    "tag": ("seed: !!python/object/apply:os.system ['true']", "3:7", "tags (tag:yaml.org,2002:python/object"),
    "tag str": ("seed: !!str 3", "3:7", "tags (tag:yaml.org,2002:str)"),
    "key a number": ("settings: {8: {}}", "3:12", "the key 8 is not text"),
    "key a list": ("settings: {[a, b]: {}}", "3:12", "the key of a mapping is not text"),
    "tab": ("axes:\n\tbatch_size: 1", "4:1", "indent with spaces, not tabs"),
    "bracket open": ("axes: {batch_size: [1, 2\nseed: 1", "3:20", "close the bracket"),
    "colon in text": ("description: fast: or not", "3:18", "quote text that contains ': '"),
    "quote open": ('description: "half', "3:14", "close the quotation mark"),
    "second document": ("---\nsuite: t", "3:1", "a second document begins here"),
    "control character": ("description: \x07", "3:14", "a control character"),
    "surrogate": ('description: "\\ud83d"', "3:14", "half a character"),
    "too deep": ("axes: " + "[" * 30 + "]" * 30, "3:26", "nested deeper than 20 levels"),
    "text too long": ("twin: " + "x" * 200, "3:7", "the text has 200 characters; give at most 120"),
}


def message_of(text: str, folder: Path, *, allow_code: bool = False) -> str:
    file = folder / "s.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_suite(file, allow_code=allow_code)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{file}:")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_placed_and_explained(mistake: str, tmp_path: Path) -> None:
    rest, place, words = MISTAKES[mistake]
    message = message_of(HEAD + rest, tmp_path)
    assert message.startswith(f"{place}: "), message
    assert words in message
    assert re.search("[;?]", message), "no remedy"


ARCHITECTURES = {
    "misspelt": ("[resnet18, resnt50]", "2:27", "unknown architecture 'resnt50'; did you mean resnet50"),
    "misspelt in a mapping": ("[{name: densnet121}]", "2:24", "did you mean densenet121"),
    "unknown in a library": ("['timm:resnet5000000']", "2:17", "timm has no classification network"),
    "unknown family": ("[{family: resnets}]", "2:26", "unknown family 'resnets'; did you mean resnet"),
    "accuracy as a share of 1": (
        "[{name: resnet18, accuracy: {top1: 0.81, source: us, dataset: imagenet}}]",
        "2:51",
        "top1: 0.81 is out of range; give a number at least 1.0 and at most 100.0",
    ),
    "accuracy as text": (
        "[{name: resnet18, accuracy: {top1: 81, top5: high, source: us, dataset: imagenet}}]",
        "2:61",
        "top5: 'high' is not a number",
    ),
    "accuracy without a source": (
        "[{name: resnet18, accuracy: {top1: 81, dataset: imagenet}}]",
        "2:44",
        "the key 'source' is missing in accuracy",
    ),
    "accuracy of a family": (
        "[{family: resnet, accuracy: {top1: 81, source: us, dataset: imagenet}}]",
        "2:34",
        "an accuracy is of one network, not of a family; name the network",
    ),
    "neither": ("[{num_classes: 10}]", "2:17", "an architecture with neither name nor family"),
    "both": ("[{name: resnet18, family: resnet}]", "2:17", "an architecture with both name and family"),
    "twice": ("[resnet18, resnet50, resnet18]", "2:37", "architectures lists resnet18 twice"),
    "twice by an alias": ("[xception, legacy_xception]", "2:27", "xception is listed twice"),
    "empty": ("[]", "2:16", "architectures is an empty list"),
    "number": ("[18]", "2:17", "18 is not text; quote it"),
    "true": ("[true]", "2:17", "true is not text"),
    "unknown key": (
        "[{name: resnet18, option: {a: 1}}]",
        "2:34",
        "unknown key 'option' in architectures; did you",
    ),
    "option not plain": ("[{name: resnet18, options: {a: [1]}}]", "2:47", "a list is not a plain value"),
    "head": (
        "[{name: resnet18, head: maps}]",
        "2:40",
        "'maps' is not a choice; choose from classifier",
    ),
    "classes": ("[{name: resnet18, num_classes: 0}]", "2:47", "0 is out of range"),
    "code": ("['mypkg.nets:build']", "2:17", "--allow-code"),
}


@pytest.mark.parametrize("mistake", ARCHITECTURES)
def test_mistaken_architecture(mistake: str, tmp_path: Path) -> None:
    value, place, words = ARCHITECTURES[mistake]
    message = message_of(f"suite: s\narchitectures: {value}\n", tmp_path)
    assert message.startswith(f"{place}: "), message
    assert words in message


def test_missing_keys_and_bad_names(tmp_path: Path) -> None:
    assert message_of("suite: s\n", tmp_path).startswith("1:1: the key 'architectures' is missing; add")
    assert message_of("architectures: resnet18\n", tmp_path).startswith("1:1: the key 'suite' is missing")
    for name in ("My Suite", "../up", ".hidden", '"a\\n"', "über"):
        assert "is not a valid name; use lower-case letters" in message_of(
            f"suite: {name}\narchitectures: resnet18\n", tmp_path
        )


def test_files_that_are_no_suites(tmp_path: Path) -> None:
    assert message_of("", tmp_path).startswith("1:1: the file is empty; a suite needs at least")
    assert message_of("# nothing yet\n", tmp_path).startswith("1:1: the file is empty")
    assert message_of("- resnet18\n", tmp_path).startswith("1:1: a suite is a mapping of keys to values, and this file")
    assert "holds a single word or sentence" in message_of("resnet18\n", tmp_path)
    (tmp_path / "s.yaml").write_bytes(b"suite: s\narch: \xff\n")
    with pytest.raises(UsageError, match=r"s\.yaml:2:7: byte 0xff is not UTF-8; save the file as UTF-8"):
        load_suite(tmp_path / "s.yaml")
    (tmp_path / "s.yaml").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(UsageError, match=r"s\.yaml:1:5: a control character"):
        load_suite(tmp_path / "s.yaml")
    (tmp_path / "s.yaml").write_bytes(b" " * (1 << 20) + b"suite: s")
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        load_suite(tmp_path / "s.yaml")


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("suites").mkdir()
    Path("suites/smoke.yaml").write_text(HEAD)
    with pytest.raises(UsageError, match=r"^suites/smok\.yaml: no such file; did you mean suites/smoke\.yaml\?$"):
        load_suite("suites/smok.yaml")
    with pytest.raises(UsageError, match=r"^smoke: no such file; did you mean suites/smoke\.yaml\?$"):
        load_suite("smoke")
    with pytest.raises(UsageError, match=r"^suites: this is a directory; name a file in it, such as suites/smoke\."):
        load_suite("suites")
    with pytest.raises(UsageError, match=r"cannot be read \(Not a directory\)"):
        load_suite("suites/smoke.yaml/x.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        load_suite("\0")
