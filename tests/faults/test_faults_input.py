"""Suites, words, conditions and stored bytes that nobody meant, driven by hypothesis: a line, and no code run.

What was found once stands as an example.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import make_record, make_rows, make_run, make_suite
from commands import FINE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import archbench
from archbench.cli import main
from archbench.comparison.history import history, read_runs
from archbench.model.errors import ArchbenchError
from archbench.results import RunStore
from archbench.results.files import is_whole

EXAMPLES = int(os.environ.get("ARCHBENCH_EXAMPLES", "500"))
often = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
SUITE = """\
suite: fuzz
description: every key that there is
architectures:
  - resnet18
  - {family: resnet, exclude: [resnet152]}
  - {name: googlenet, options: {aux_logits: true}, num_classes: 10, input_size: 192}
axes: {batch_size: [1, 8], phase: [inference, training], precision: [fp32, amp-bf16], input_size: [native, 160]}
settings: {plain: {}, fast: {precision: bf16, memory_format: channels_last}}
metrics: [static, latency, throughput, memory]
rounds: 2
twin: resnet18
protocol: {max_sampling_s: 1.5, cell_deadline_s: 60}
exclude: [{architecture: "resnet1*", batch_size: 8}]
decisions:
  - {situation: s, minimize: latency_median, where: "batch_size == 1", usual_choice: [resnet18]}
"""
SPITEFUL = st.sampled_from(
    [*"[]{}:,&*!|>'\"%@`#?-\n\t", "sentinel:make", "!!python/object/apply:sentinel.make []", "<<: *a", "&a [*a]",
     "-1", "0", "~", ".nan", ".inf", "0x7fffffffffffffff", "9" * 30, "\x1b[2J", "\ud800", "\x00", "[" * 400, "é",
     "../../x", "::error::", "true", "{a: 1}", "2026-01-01", "batch_size", "architectures:", "sentinel.py:make",
     "1e999", "on"]
)  # fmt: skip


@pytest.fixture(autouse=True)
def _sentinel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that tells of its import lies where the command runs."""
    monkeypatch.chdir(tmp_path)
    told = tmp_path / "code-was-run"
    (tmp_path / "sentinel.py").write_text(f"open({str(told)!r}, 'w').close()\ndef make(): ...\n")
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    assert not told.exists()
    assert "sentinel" not in sys.modules


def command(words: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    """Its exit code; whatever it says is text that no terminal obeys."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert "Traceback" not in text
        assert not any((ord(char) < 32 and char not in "\n\t") or "\x7f" <= char <= "\x9f" for char in text)
        text.encode()
    code = caught.value.code
    assert code is None or code in FINE, said.err
    return int(code or 0)


@st.composite
def mutated(draw: Any) -> bytes:
    """The suite with a few places changed: characters cut, doubled, replaced by something spiteful, lines swapped."""
    text = SUITE
    for _ in range(draw(st.integers(1, 4))):
        at, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        end = min(end, at + draw(st.integers(0, 12)))
        kind = draw(st.sampled_from(["cut", "double", "replace", "insert", "line"]))
        if kind == "line":
            lines = text.splitlines(keepends=True)
            one, other = (draw(st.integers(0, max(0, len(lines) - 1))) for _ in range(2))
            if lines:
                lines[one], lines[other] = lines[other], lines[one]
            text = "".join(lines)
        else:
            middle = {"cut": "", "double": text[at:end] * 2, "insert": draw(SPITEFUL) + text[at:end]}.get(kind)
            text = text[:at] + (draw(SPITEFUL) if middle is None else middle) + text[end:]
    content = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(content)))
        content = content[:place] + draw(st.binary(max_size=4)) + content[place:]
    return content


@pytest.mark.slow
@pytest.mark.timeout(3600)
@often
@given(content=mutated(), verb=st.sampled_from(["plan", "run"]))
@example(content=SUITE.encode(), verb="plan")
@example(content=b"suite: s\narchitectures: [!!python/object/apply:sentinel.make []]\n", verb="plan")
@example(content=b"suite: s\narchitectures: ['sentinel:make']\n", verb="run")
@example(content=b"suite: s\narchitectures: " + b"[" * 100_000, verb="plan")
def test_mutated_suites(content: bytes, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_bytes(content)
    # A run stops before it measures: no cell is called so.
    words = (
        ["plan", "s.yaml", "--device", "cpu"] if verb == "plan" else ["run", "s.yaml", "--only", "none-is-called-so"]
    )
    assert command(words, capsys) in (0, 2)
    assert not (tmp_path / "results").exists()


WORDS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            [*"()<>=!,@%", "and", "or", "not", "in", "==", "<=", "latency_median", "top1", "family", "resnet", "5ms",
             "1e999", "nan", "null", "batch_size", "true", "'", '"', "sentinel:make", "GiB", "%", "-", ".", "*", "["]
        ),
        max_size=9,
    ).map(" ".join),
)  # fmt: skip
PLACES: tuple[tuple[str, ...], ...] = (
    ("pick", "RUN", "--where", "{}"),
    ("pick", "RUN", "--where", "{} and top1 > 70"),
    ("pick", "RUN", "--where", "family in ({})"),
    ("pick", "RUN", "--minimize", "{}"),
    ("pick", "RUN", "--across", "{}"),
    ("list", "--where", "{}"),
    ("list", "--sort", "{}"),
    ("plan", "{}"),
    ("plan", "resnet18", "--batch-size", "{}"),
    ("plan", "resnet18", "--only", "{}"),
    ("plan", "resnet18[{}]"),
    ("run", "{}", "--only", "none-is-called-so"),
    ("show", "{}"),
    ("fits", "lenet5", "--memory", "{}"),
    ("duel", "{}", "lenet5"),
    ("report", "RUN", "--only", "{}", "--out", "-"),
    ("report", "RUN", "--table", "{}", "--out", "-"),
    ("compare", "RUN", "RUN", "--allow-different", "{}"),
    ("{}", "RUN"),
    ("history", "{}"),
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("words"), [make_record()])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@often
@given(place=st.sampled_from(PLACES), word=WORDS)
@example(place=PLACES[0], word="not " * 2000)
@example(place=PLACES[0], word="(" * 5000)
@example(place=PLACES[13], word="1e308TiB")
@example(place=PLACES[10], word="a=" + "[" * 10_000)
@example(place=PLACES[12], word="sentinel:make")
@example(place=PLACES[18], word="run")
def test_expressions_and_words(
    place: tuple[str, ...], word: str, stored: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = (stored / "results.parquet").read_bytes()
    command([str(stored) if part == "RUN" else part.replace("{}", word) for part in place], capsys)
    assert (stored / "results.parquet").read_bytes() == before


READERS: dict[str, Callable[[Path], object]] = {
    "load": archbench.load,
    "rows": lambda run: archbench.Run(run).rows,
    "pick": archbench.pick,
    "summary": archbench.summary,
    "report": archbench.report,
    "compare": lambda run: archbench.compare(run, run),
    "history": lambda run: history(str(run.parent), *read_runs(run.parent)),
}


@pytest.fixture(scope="module", params=[True, False], ids=["merged", "loose"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = list(make_rows(make_suite(rounds=3 if request.param else 1), networks=["resnet18", "resnet50"]))
    return make_run(tmp_path_factory.mktemp("flips"), rows, merge=request.param)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(often, max_examples=max(1, EXAMPLES * 3 // 10))
@given(
    file=st.integers(0, 10**6),
    place=st.integers(0, 10**9),
    bit=st.integers(0, 7),
    reader=st.sampled_from(sorted(READERS)),
)
def test_flipped_bits(file: int, place: int, bit: int, reader: str, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy" / whole.name
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole, run)
    files = sorted(path for path in run.rglob("*") if path.suffix in (".parquet", ".json"))
    chosen = files[file % len(files)]
    content = bytearray(chosen.read_bytes())
    content[place % len(content)] ^= 1 << bit
    chosen.write_bytes(content)
    assert not is_whole(bytes(content)) or b"archbench.crc32" not in content
    with contextlib.suppress(ArchbenchError):  # one line, as its constructor sees to
        assert READERS[reader](run) is not None
    truth = set(RunStore.open(whole).records())
    rows = RunStore.open(run).records()
    assert truth.issuperset(rows), "a wrong row is worse than none"
    assert len(rows) >= len(truth) - (64 if chosen.name == "results.parquet" else 1)
