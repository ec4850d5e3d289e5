"""Writes docs/picking.md: the language of `archbench pick`, and real questions with what they print.

    python docs/picking_page.py > docs/picking.md

The answers come from the newest reference run of imagenet_backbones on a CPU under `results/`.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from pathlib import Path

from reference_runs import reference_runs

from archbench.cli import app
from archbench.results import RunStore

ROOT = Path(__file__).parents[1]
QUESTIONS = {
    "Which network answers within 100 ms at batch 1, in nine calls of ten, with a top-1 of at least 76 %?": [
        "--where",
        "phase == inference and batch_size == 1 and precision == fp32",
        "--where",
        "latency_p90 <= 100ms",
        "--where",
        "top1 >= 76",
    ],
    "Which gives the most images per second at a top-1 of at least 76 %?": [
        "--where",
        "phase == inference and batch_size == 4",
        "--where",
        "top1 >= 76",
        "--maximize",
        "throughput",
        "--top",
        "5",
    ],
    "What is the most accurate network that trains in 512 MiB at batch 4?": [
        "--where",
        "phase == training and batch_size == 4",
        "--where",
        "peak_allocated <= 512MiB",
        "--maximize",
        "top1",
    ],
    "What is the smallest file at a top-1 of at least 77 %?": [
        "--where",
        "phase == inference and batch_size == 1 and precision == fp32",
        "--where",
        "top1 >= 77 and pretrained",
        "--minimize",
        "weight",
        "--top",
        "5",
    ],
    "DenseNet-121 or ResNet-50 for my job?": [
        "--where",
        "architecture in (densenet121, resnet50) and phase == inference and batch_size == 4",
        "--minimize",
        "latency_median",
        "--minimize",
        "peak_allocated",
        "--maximize",
        "top1",
    ],
}

OPENING = """\
# Picking a network

Written by `docs/picking_page.py`; the answers are real ones, of the reference run on two CPU cores.

`archbench pick RUN...` answers which network satisfies conditions, ranks those that do, each under its best setting,
and says of every other network which condition excludes it, and by how much. It reads stored results only.

## Conditions

`--where` takes a condition; several have to be satisfied all. Suites' `decisions` are written in the same language.

| you write | it means |
| --- | --- |
| `latency_p99 <= 5ms` | a column, an operator (`<` `<=` `>` `>=` `==` `!=`), a value |
| `family in (resnet, densenet)` | one of several; also `not in` |
| `year >= 2020 and depth <= 50` | what the catalogue knows, beside what was measured |
| `not host_bound and (macs < 1G or top1 >= 80)` | `not` before `and` before `or`; flags stand alone |
| `architecture == 'timm:hrnet_w18.ms_aug_in1k'` | text, quoted where it has spaces, brackets or signs |
| `peak_reserved <= 4GiB`, `macs <= 1.2G`, `mfu >= 40%` | numbers with a unit |

Columns are those of [columns.md](columns.md); their unit's ending may be left out (`latency_p99` is `latency_p99_s`).
A time or a size needs a unit, `5ms` or `4GiB`: a bare `5` is refused, unless the column's name says the unit
(`latency_p99_s <= 0.005`). Accuracies are in percent: `top1 >= 0.75` is refused.
A column that is null satisfies nothing, under `not` neither. Nothing is evaluated as code.

## What is ranked against what

`--minimize` and `--maximize` name the goal; several give the Pareto front, none means the smallest `latency_median`.
Rows that differ in phase, batch size, precision, threads, device, hardware, torch or protocol are never ranked
against each other: they come as separate rankings, unless `--across COLUMN` asks for one, which then carries a
footnote. Image size binds likewise, but for networks at the size that they were published for: those are compared as
they are meant to be used, with a footnote. Accuracies of different data sets are never ranked together either: where
a goal or a condition is about top1 or top5, `accuracy_dataset` binds as well. `compile_mode` and `memory_format` are
free; the best stands with each network, and a network that was never measured as the first was is named.

Two networks *tie* where they differ by less than the interval of their ratio, which contains how far processes differ;
of latency and throughput the answer then names the duel that settles it. Peaks tie within 0.5 %, what is counted or
published only where it is equal. `?` marks suspect figures; invalid ones are never ranked. Accuracies are published
ones, and the notes say whose. Several runs are merged; of a cell measured in several like ones, the newest by its
clock counts, and the answer says which run's cells that leaves out.

`--json` prints everything, also what the text leaves out. The exit code is 0, also where nothing satisfies the
conditions; 2 for a question that cannot be read.

## Five questions
"""


def reference_run() -> Path:
    """The newest CPU run of the main suite."""
    runs = reference_runs("imagenet_backbones")
    return next(run for run in reversed(runs) if RunStore.open(run).environment.device == "cpu").relative_to(ROOT)


def answer(words: list[str]) -> str:
    """What the command prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.chdir(ROOT):
        app(["pick", *words], standalone_mode=False)
    return text.getvalue().rstrip()


def page() -> str:
    """The whole page."""
    parts = [OPENING]
    for question, words in QUESTIONS.items():
        whole = [str(reference_run()), *words]
        command = shlex.join(["archbench", "pick", *whole])
        parts.append(f"### {question}\n\n```sh\n{command}\n```\n\n```text\n{answer(whole)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
