"""Suites that are right: what each spelling means, and that no text at all breaks the reader."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archbench.catalog import family
from archbench.model.cell import Network
from archbench.model.errors import UsageError
from archbench.model.protocol import protocol_for
from archbench.model.suite import Axes, Filter, Section, Setting, Suite
from archbench.results import suite_hash
from archbench.suite import QUICK_PROTOCOL, is_suite_path, load_suite, read_suite, selects, suite_from_names
from archbench.suite.document import read_document


def load(text: str, folder: Path, *, allow_code: bool = False) -> Suite:
    file = folder / "s.yaml"
    file.write_text(text)
    return load_suite(file, allow_code=allow_code)


def values(text: str, folder: Path) -> object:
    file = folder / "v.yaml"
    file.write_text(f"v: {text}")
    return read_document(file).value["v"]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("''", ""),
        ("0", 0),
        ("-12", -12),
        ("+12", 12),
        ("1.5", 1.5),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("'010'", "010"),
        ("2026-01-02", "2026-01-02"),
        ("v1.0", "v1.0"),
        ("[off, 1]", ["off", 1]),
        ("{a: {b: no}}", {"a": {"b": "no"}}),
        ("|\n  1:30\n  010\n", "1:30\n010\n"),
        ("<<", "<<"),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text: str, meaning: object, tmp_path: Path) -> None:
    found = values(text, tmp_path)
    assert found == meaning
    assert type(found) is type(meaning)


def test_the_shortest_suite_has_the_documented_defaults(tmp_path: Path) -> None:
    suite = load("suite: s\narchitectures: resnet18\n", tmp_path)
    assert suite == Suite(suite="s", architectures=(Network(name="resnet18"),))


def test_every_kind_of_architecture(tmp_path: Path) -> None:
    suite = load(
        """
suite: s
architectures:
  - resnet50
  - legacy_xception
  - {family: mobilenet, num_classes: 10}
  - torchvision:resnet50
  - timm:resnet50
  - mypkg.nets:build
  - {name: densenet121, options: {memory_efficient: true}, num_classes: 10, in_channels: 1, head: none, input_size: 96}
  - {name: resnet18, input_size: 224}
""",
        tmp_path,
        allow_code=True,
    )
    dense = Network(
        name="densenet121",
        options={"memory_efficient": True},
        num_classes=10,
        in_channels=1,
        head="none",
        input_size=96,
    )
    assert suite.architectures == (
        Network(name="resnet50"),
        Network(name="xception"),  # an alias is its catalogue name
        *(Network(name=entry.name, num_classes=10) for entry in family("mobilenet")),
        Network(name="torchvision:resnet50"),
        Network(name="timm:resnet50"),
        Network(name="mypkg.nets:build"),
        dense,
        Network(name="resnet18"),  # its native size is no departure
    )


def test_a_family_may_hold_what_is_also_named(tmp_path: Path) -> None:
    suite = load("suite: s\narchitectures: [resnet50, {family: resnet}]\n", tmp_path)
    names = [network.name for network in suite.architectures]
    assert names[0] == "resnet50"
    assert sorted(names) == sorted(entry.name for entry in family("resnet"))


def test_one_value_stands_for_a_list_of_one(tmp_path: Path) -> None:
    short = """
suite: s
architectures: resnet18
axes: {batch_size: 8}
settings: {eager: {compile_mode: off, only: {batch_size: 8, device: cpu}}}
devices: {cpu: {phase: training, settings: eager, architectures: resnet18}}
exclude: {phase: training, batch_size: 1}
metrics: latency
percentiles: 99
"""
    long = """
suite: s
architectures: [resnet18]
axes: {batch_size: [8]}
settings: {eager: {compile_mode: "off", only: {batch_size: [8], device: [cpu]}}}
devices: {cpu: [{phase: [training], settings: [eager], architectures: [resnet18]}]}
exclude: [{phase: [training], batch_size: [1]}]
metrics: [latency]
percentiles: [99]
"""
    suite = load(short, tmp_path)
    assert suite == load(long, tmp_path)
    assert suite.axes == Axes(batch_size=(8,))
    assert suite.settings == {"eager": Setting(only=Filter(batch_size=(8,), device=("cpu",)))}
    section = Section(phase=("training",), settings=("eager",), architectures=("resnet18",))
    assert suite.devices == {"cpu": (section,)}


def test_protocol_overrides_reach_the_protocol(tmp_path: Path) -> None:
    suite = load("suite: s\narchitectures: resnet18\nprotocol: {min_samples: 40, max_sampling_s: 2}\n", tmp_path)
    stored = msgspec.json.decode(msgspec.json.encode(suite), type=Suite)
    for one in (suite, stored):
        protocol = protocol_for("cpu", one.protocol)
        assert (protocol.min_samples, protocol.max_sampling_s) == (40, 2.0)


def test_aliases_in_patterns_twin_and_folklore_become_names(tmp_path: Path) -> None:
    suite = load(
        """
suite: s
architectures: [xception, nin_imagenet]
twin: nin
devices: {cpu: {architectures: [legacy_xception, "nin*"]}}
exclude: {architecture: nin, batch_size: 4}
decisions: {situation: X, minimize: latency_p95, folklore: legacy_xception}
""",
        tmp_path,
    )
    assert suite.twin == "nin_imagenet"
    assert suite.devices["cpu"][0].architectures == ("xception", "nin*")
    assert suite.exclude[0].architecture == ("nin_imagenet",)
    assert suite.decisions[0].usual_choice == ("xception",)


def test_a_variant_is_named_by_its_label(tmp_path: Path) -> None:
    label = "densenet121[memory_efficient=true]"
    suite = load(
        f"""
suite: s
architectures: [densenet121, {{name: densenet121, options: {{memory_efficient: true}}}}]
twin: "{label}"
exclude: {{architecture: "{label}", batch_size: 4}}
""",
        tmp_path,
    )
    plain, efficient = suite.architectures
    assert suite.twin == label
    assert not selects(label, plain)
    assert selects(label, efficient)
    assert selects("densenet121", plain)
    assert selects("densenet121", efficient)


def test_a_byte_order_mark_and_windows_lines_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_bytes("\ufeffsuite: s\r\narchitectures: [resnet18]\r\n".encode())
    assert load_suite(tmp_path / "s.yaml").suite == "s"


def test_names_make_the_same_suite_as_a_file(tmp_path: Path) -> None:
    quick = suite_from_names(
        ["resnet50", "legacy_xception"], {"batch_size": "1, 8", "precision": "amp-bf16"}, metrics="latency"
    )
    file = "architectures: [resnet50, xception]\naxes: {batch_size: [1, 8], precision: amp-bf16}\nmetrics: latency\n"
    assert quick == load(f"suite: {quick.suite}\n{file}protocol: {json.dumps(QUICK_PROTOCOL)}\n", tmp_path)
    assert suite_from_names(["resnet18"]).axes == Axes()


@pytest.mark.parametrize(
    ("names", "axes", "message"),
    [
        (["resnt50"], {}, "^unknown architecture 'resnt50'; did you mean resnet50"),
        (["resnet18"], {"batch_size": "0"}, "^--batch-size: 0 is out of range; give a number at least 1"),
        (["resnet18"], {"batch_size": "-1"}, "^--batch-size: -1 is out of range"),
        (["resnet18"], {"batch_size": "1,1"}, "^--batch-size: .* lists 1 twice"),
        (["resnet18"], {"batch_size": "08"}, "^--batch-size: '08' is not a whole number; write 8$"),
        (["resnet18"], {"batch_size": "1.5"}, "^--batch-size: '1.5' is not a whole number"),
        (["resnet18"], {"batch_size": ","}, "^--batch-size: .* is an empty list"),
        (["resnet18"], {"precision": "amp"}, "^--precision: 'amp' is not a choice"),
        (["resnet18", "resnet18"], {}, "lists resnet18 twice"),
        (["a.b:c"], {}, "--allow-code"),
        ([], {}, "no networks named"),
    ],
)
def test_mistakes_on_the_command_line_name_the_option(names: list[str], axes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        suite_from_names(names, axes)


def test_which_words_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("resnet50").mkdir()
    Path("mysuite").write_text("")
    assert [is_suite_path(word) for word in ("a.yaml", "b.yml", "suites/c", "mysuite")] == [True] * 4
    assert not is_suite_path("resnet18," * 40)
    assert not is_suite_path("a\0b")
    assert [is_suite_path(word) for word in ("resnet50", "timm:resnet50.a1_in1k", "pkg.mod:net")] == [False] * 3


# No text breaks the reader: it gives a suite, or one line with the place.

WORDS = """
suite s architectures resnet18 resnet50 axes batch_size settings devices cpu only exclude off 1 0 - , : { } [ ] | >
& * ! % @ ` " ' # ? ~ null .nan 010 1:30
"""
words = st.sampled_from([*WORDS.split(), "\t", ""])
layout = st.sampled_from([" ", "\n", "\n  ", "\n    ", ": ", "\n- ", ", "])
documents = st.lists(st.tuples(words, layout), max_size=30).map(lambda pairs: "".join(a + b for a, b in pairs))


@settings(max_examples=300, deadline=None)
@given(st.one_of(documents, documents.map("suite: s\narchitectures: resnet18\n{}".format), st.text(max_size=60)))
def test_any_text_gives_a_suite_or_one_line_with_a_place(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "s.yaml"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            suite = load_suite(file)
        except UsageError as error:
            message = str(error)
            assert "\n" not in message
            place = re.match(r":(\d+):(\d+): ", message.removeprefix(str(file)))
            assert place, message
            lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
            assert 1 <= int(place[1]) <= len(lines) + 1
        else:
            assert suite.architectures


scalars = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.none())
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from(sorted(Suite.__struct_fields__)), value=trees)
def test_any_value_under_a_known_key_is_taken_or_refused(key: str, value: object) -> None:
    content = {"suite": "s", "architectures": ["resnet18"], key: value}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "s.yaml"
        with contextlib.suppress(UsageError):
            # JSON is YAML, but for its NaN and for what YAML's reader takes for no text; both are refused.
            file.write_text(json.dumps(content))
            suite = load_suite(file)
            assert load_again(suite, file) == suite


def load_again(suite: Suite, file: Path) -> Suite:
    """A suite as stored is a suite file."""
    file.write_bytes(msgspec.json.encode(suite))
    return load_suite(file)


def test_a_suite_from_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "s.yaml"
    os.mkfifo(pipe)
    text = "suite: pipe\narchitectures: [resnet18]\n"
    writer = threading.Thread(target=pipe.write_text, args=[text], daemon=True)
    writer.start()
    suite, read = read_suite(pipe)
    assert (suite.suite, read) == ("pipe", text)


def test_a_suites_identity_stays_what_stored_runs_have(tmp_path: Path) -> None:
    """A hash that changes with the code would have every run begin anew: this one is of before it was written down."""
    suite = load(
        """
        suite: pinned
        architectures: [resnet18, vgg11]
        axes: {batch_size: [1, 8]}
        settings:
          fp32: {precision: fp32}
          compiled: {compile_mode: default, only: {architecture: resnet*, phase: inference, device: cpu}}
        devices:
          cpu: {batch_size: 1, architectures: vgg11}
        exclude:
          - {architecture: vgg11, setting: compiled, batch_size: 8, device: cuda}
        """,
        tmp_path,
    )
    assert suite_hash(suite) == "73cf87905145217c"


def test_another_runtime_or_format_is_judged_unless_metrics_are_named(tmp_path):
    usual = suite_from_names(["resnet50"], {"runtime": "torch", "compile_mode": "default"}).metrics
    assert "numerics" not in usual
    assert suite_from_names(["resnet50"], {"runtime": "torch,openvino"}).metrics == (*usual, "numerics")
    assert suite_from_names(["resnet50"], {"quantize": "int8-static"}).metrics == (*usual, "numerics")
    assert suite_from_names(["resnet50"], {"runtime": "openvino"}, metrics="latency").metrics == ("latency",)
    for converted in ("settings: {one: {runtime: openvino}}", "devices: {cpu: {quantize: int8-static}}"):
        path = tmp_path / "suite.yaml"
        path.write_text(f"suite: one\narchitectures: [resnet50]\n{converted}\n")
        assert load_suite(path).metrics == (*usual, "numerics"), converted
