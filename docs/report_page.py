"""Writes docs/report.md: how to read a report, with excerpts of the reference run's as it is rendered today.

python docs/report_page.py > docs/report.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from reference_runs import reference_runs

from archbench.rendering.content import Table, every, report
from archbench.rendering.report import build_report
from archbench.rendering.run_data import read_run
from archbench.rendering.text import render_markdown
from archbench.results import RunStore

ROOT = Path(__file__).parents[1]
ROWS = 4
"""Of a table: enough to see how it reads."""

PAGE = """\
# Reading a report

Written by `docs/report_page.py`; the tables are excerpts of the reference run's report, on two CPU cores.

```sh
archbench report {run}
```

renders stored results: `report.md`, with its plots beside it, in the run's directory. A run that is still going or was
killed has a report of what is done. `--format html` makes one page to open from the disk, with plots that answer the
pointer, filters and tables that sort; `--format latex` the tables alone, for a paper; `--out` another place, `-` the
screen. Damaged files are named in a warning and left out.

`--only 'resnet*'` shows the cells that match, `--table matrix` the tables of that caption alone, `--label 'resnet*'`
says which networks plots name (else all that have room), `--plots png,pdf` stores the plots as such files, too.

## The first lines

They say what was run and where, how many rows are fit to be used, and from where on **two networks differ**: nearer
ones may be equal. `±` is each figure's own 95 % interval, which contains how far processes of one thing differ; every
tie, knee, front and change of places goes by it. A wide one is written out, `245 (237 to 323)`. Where each cell was
measured by one process alone, and no earlier run on this hardware lies beside it, how far processes differ is not
known: the report says so, and `±` is within the process. `-` is not measured, never zero. On a CPU, times are
corrected for the machine's own drift. What each verdict and reason means stands under *How far to trust this*.

## Which network

The decision matrix: what comes first in each situation, and whether the usual choice holds. [picking.md](picking.md)
has the language of its conditions.

{decisions}

## Accuracy against time and memory

The networks that no other beats in accuracy without being slower or larger, among cells of one setting and batch size.

{fronts}

## Toggles

What one toggle does, all else equal. *On top of* plain fp32 it stands alone; on top of another setting it is what it
adds there. A ratio counts as faster or slower only outside its own interval.

{toggles}

Below follow each network's gains, its best setting with those that cannot be told from it and the `archbench duel` that
would, the pairs of networks that change places when toggles are turned on, and what each setting does to the output.

**When compiling has paid for itself**: images until the time saved adds up to the compile time, with an empty cache and
with one that an earlier process filled. Suites that ask for the metric `compile` have it, such as
`suites/compile_modes.yaml`: one group of each network then compiles with nothing beside it.

## Batch sizes

The knee is the smallest batch within 5 % of the best throughput; an arrow says that the curve still rose at the largest
batch measured. It takes three batch sizes of a network to see; with two, as in the reference run, a sentence says so.

The largest batch that fits is predicted from the peaks of two batch sizes, without running it. It counts live tensors:
leave a tenth for the allocator, and for CUDA's context. Where a batch was measured that did not fit, the largest that
did and the smallest that did not stand beside it in brackets.

{largest}

## Are MACs a good predictor here?

{predictors}

## Memory in training

{training}

## Several runs

`archbench report RUN RUN...` puts runs side by side in `archbench-report.md`: machines, GPUs, versions of torch. Cells
that two of them share stand in one row. Runs on the same hardware class carry a ratio with its interval; across classes
nothing is ranked. Each run's own report follows below. A run that cannot be read is named in a warning and left out.
For a verdict on two runs, use `archbench compare`.
"""

EXCERPTS = {
    "decisions": "The decision matrix",
    "fronts": "Inference, fp32: accuracy against time and memory",
    "toggles": "What each toggle contributes",
    "largest": "Inference: the largest batch that fits",
    "predictors": "Rank correlation of latency with counts",
    "training": "Peak memory of a training step",
}
"""Places of the page, and the captions of the tables that stand there."""


def reference_run() -> Path:
    """The newest CPU run of the main suite."""
    runs = reference_runs("imagenet_backbones")
    return next(run for run in reversed(runs) if RunStore.open(run).environment.device == "cpu")


def excerpt(table: Table) -> str:
    """The first rows as markdown."""
    short = msgspec.structs.replace(table, rows=table.rows[:ROWS])
    return render_markdown(report("", short)).partition("\n\n")[2].rstrip()


def page() -> str:
    """The whole page."""
    run = reference_run()
    by_caption: dict[str, Table] = {}
    for table in every(Table, build_report(read_run(run)).sections):
        by_caption.setdefault(table.caption, table)
    filled = {place: excerpt(by_caption[caption]) for place, caption in EXCERPTS.items()}
    return PAGE.format(run=run.relative_to(ROOT), **filled)


if __name__ == "__main__":
    sys.stdout.write(page())
