"""The README's picture of the newest reference run: the lines before the table, the table, and the plot.

python docs/readme_figures.py     # puts them into README.md
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from reference_runs import reference_runs

from archbench.choose.cell_summary import CellSummary
from archbench.model.units import GIGA, IMAGES, MIB, MILLION, MS, duration, excess, figure, fixed, rounded, whole
from archbench.rendering.run_data import read_run

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
NETWORKS = (
    *("alexnet", "vgg16", "googlenet", "resnet18", "resnet50", "resnet152", "densenet121", "resnext50_32x4d"),
    *("mobilenet_v2", "efficientnet_b0", "hrnet_w18", "convnext_tiny", "swin_t", "vit_b_16"),
)
HEADINGS = ("Network", "Params M", "GMACs", "Top-1 %", "Latency ms, batch 1", "img/s, batch 4", "Peak MiB, batch 4")
BLOCK = re.compile(r"(?<=<!-- reference run -->\n).*?(?=<!-- end of reference run -->)", re.DOTALL)


def block() -> str:
    """What stands between the README's two marks."""
    run = read_run(reference_runs("imagenet_backbones")[-1])
    place = run.path.relative_to(ROOT)
    found = {(one.network, one.batch_size): one for one in run.cells if one.phase == "inference" and one.is_plain}
    torch = ".".join(str(run.environment.torch_version).split(".")[:2])
    kept = [found[name, 1] for name in NETWORKS], [found[name, 4] for name in NETWORKS]
    assert run.trust.apart is not None
    networks = len({one.network for one in run.cells})
    alt = f"Top-1 accuracy over the latency of one image for {networks} networks; a stepped line joins those that no "
    lines = [
        f"Inference in fp32 on {run.environment.hardware_class} (a virtual machine), torch {torch}, from the",
        f"[reference run]({place}/report.md) of {len(run.cells)} cells in {duration(run.spent_s)}, which begins",
        f"with the decision matrix. Two networks that differ by more than {excess(run.trust.apart)} differ there, as",
        "the report says; `?` marks suspect figures, `-` what a neighbour spoiled.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"| --- |{' --: |' * (len(HEADINGS) - 1)}",
        *(f"| {' | '.join(row(*both))} |" for both in zip(*kept, strict=True)),
        "",
        f"![{alt}other beats in both.]({place}/plots/accuracy-over-latency.svg)",
        "",
    ]
    return "\n".join(lines)


def row(one: CellSummary, four: CellSummary) -> Sequence[str]:
    """A network's line, from its cells at batch 1 and 4."""
    latency = one.rank_latency_s, MS, one.rank_latency_low_s, one.rank_latency_high_s
    rate = four.rank_throughput_img_s, IMAGES, four.rank_throughput_low_img_s, four.rank_throughput_high_img_s
    return (
        one.network,
        fixed(one.params, MILLION, 1),
        fixed(one.macs, GIGA, 2),
        "-" if one.top1 is None else f"{one.top1:.1f}",
        marked(figure(*latency), one),
        marked(rounded(*rate), four),
        whole(four.peak_allocated_bytes, MIB),
    )


def marked(text: str, cell: CellSummary) -> str:
    """A figure with what its cell's verdict says of it."""
    return {"suspect": f"{text} ?", "invalid": "-"}.get(str(cell.verdict), text)


if __name__ == "__main__":
    README.write_text(BLOCK.sub(lambda _: block(), README.read_text()))
