"""Writes docs/lecture.md: ten claims, judged by the reference runs under `results/`, with their pictures.

    python docs/lecture_page.py > docs/lecture.md

None of the ten needs a network to be built, so that the page is made in seconds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from reference_runs import reference_runs

import archbench
from archbench.folklore.claims import Judged
from archbench.rendering.folklore import probe_report
from archbench.rendering.run_data import read_run
from archbench.training.probe import Probe, read_probe

ROOT = Path(__file__).parents[1]
OPENING = """\
# The lecture: ten claims

Written by `docs/lecture_page.py` from runs of this repository on {machine}. Each claim is one that tutorials make;
each verdict is what an expression says of the figures ([claims.md](claims.md)). On another machine:

```sh
archbench run suites/claims.yaml
archbench train-probe
archbench claims
```

The machine is virtual and has neighbours: what the intervals of its times leave open is not settled here.
`results/claims/{run}/claims.md` has all 124 claims.
"""
TEN = {
    "002.09": "Numbers that cannot be right",
    "000.40": "Numbers of another network",
    "000.03": "Numbers that nobody computed",
    "000.14": "What a plain stack would cost",
    "003.26": "Fewer MACs, less time",
    "002.11": "Fewer MACs, and the time?",
    "000.49": "Few parameters are not speed",
    "003.12": "Small filters instead of a large one",
    "004.01": "Depth that does not train",
    "002.12": "Depth that does",
}
HISTORY = """\
## Twenty-two years

`results/{run}` has the networks from LeNet-5 to ConvNeXt at their native sizes: what each step cost and gained.
{extent}

![Top-1 accuracy over the latency of one image, by network.](../results/{run}/plots/accuracy-over-latency.svg)
"""


def probe() -> Probe:
    """The reference probe."""
    places = sorted((ROOT / "results" / "train-probe").glob("*/probe.json"))
    return read_probe(places[-1].parent.relative_to(ROOT))


def claim(one: Judged, title: str, number: int) -> str:
    """A claim, its verdict and what decides it."""
    right = f"\n\n{one.right}" if one.right and one.verdict != "confirmed" else ""
    figures = "\n".join(f"- {line}" for line in one.why.split("; "))
    return (
        f"## {number}. {title}\n\n> {one.statement}\n\n**{one.verdict.capitalize()}** ({one.id}).\n\n{figures}{right}\n"
    )


def pictures(trained: Probe) -> str:
    """The two curves and the gradients, as the probe's report has them."""
    text = " ".join(block.text for block in probe_report(trained).sections[0].blocks if hasattr(block, "text"))
    lead = " ".join(block.text for block in probe_report(trained).lead if hasattr(block, "text"))
    place = f"../{trained.path}/plots"
    curves = f"![Training loss over steps: plain networks left, residual ones right.]({place}/two-curves.svg)"
    gradients = f"![Gradient norms from the first layer to the last.]({place}/gradients.svg)"
    return f"## The two curves\n\n{text}\n\n{curves}\n\n{lead}\n\n{gradients}\n"


def page() -> str:
    """The whole page."""
    os.chdir(ROOT)
    trained = probe()
    runs = [run.relative_to(ROOT) for suite in ("claims", "history", "keras_2017") for run in reference_runs(suite)]
    found = {one.id: one for one in archbench.claims(runs, only=list(TEN), probe=trained.path)}
    history = archbench.Run(reference_runs("history")[-1])
    extent = read_run(history.path).extent() + "."
    parts = [
        OPENING.format(machine=trained.about.hardware_class, run=reference_runs("claims")[-1].name),
        *(claim(found[id], title, number) for number, (id, title) in enumerate(TEN.items(), 1)),
        pictures(trained),
        HISTORY.format(run=f"history/{history.path.name}", extent=extent),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
