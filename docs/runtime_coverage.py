"""What of the catalogue each runtime takes: tries it, and writes docs/runtime_coverage.md from what was found.

    python docs/runtime_coverage.py try [NAME ...]   # adds to docs/runtime_coverage.csv; all families unless named
    python docs/runtime_coverage.py > docs/runtime_coverage.md

A family stands by its smallest network. Each is prepared for one image, runs on it, and is held against fp32 eager;
one that cannot be has the reason, in the words of its row in a run.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path
from typing import Any

from reference_runs import reference_runs

from archbench import summary
from archbench.catalog import counted_by_label, entries
from archbench.model.axes import LEGAL
from archbench.model.cell import Cell, Network
from archbench.model.errors import UnsupportedError
from archbench.suite.cells import unsupported

CSV = Path(__file__).with_suffix(".csv")
SETTINGS: dict[str, dict[str, str]] = {
    "onnxruntime": {"runtime": "onnxruntime"},
    "onnxruntime int8-static": {"runtime": "onnxruntime", "quantize": "int8-static"},
    "openvino": {"runtime": "openvino"},
    "openvino int8-static": {"runtime": "openvino", "quantize": "int8-static"},
    "torch int8-static": {"quantize": "int8-static"},
    "aot-inductor": {"runtime": "aot-inductor"},
}
LIMITS = {True: 0.2, False: 0.01}
"""Relative errors beyond which an output is another one: quantised or not. One image says no more."""
HEADER = ("network", "family", "setting", "error", "reason")


def smallest_of_each_family() -> list[str]:
    """Names of the catalogue's smallest counted networks, one a family, the quickest to try first."""
    counted = counted_by_label()
    found: dict[str, tuple[float, str]] = {}
    for name, entry in entries().items():
        if name in counted and entry.family is not None:
            size = (counted[name].counts.macs, name)
            found[entry.family] = min(found.get(entry.family, size), size)
    return [name for _, name in sorted(found.values())]


def rows() -> list[dict[str, str]]:
    """What was found so far."""
    if not CSV.exists():
        return []
    with CSV.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def attempt(name: str) -> None:
    """Try a network under every setting that has no row yet, and write a row at once."""
    import torch

    from archbench.catalog.build import build, input_shape
    from archbench.catalog.inputs import Batch
    from archbench.catalog.weights import preprocessing
    from archbench.measure.metrics.correctness import drawn_images, make_comparable
    from archbench.measure.workload import Workload, first_tensor

    there = {(row["network"], row["setting"]) for row in rows()}
    network = Network(name=name)
    shape, wanted = input_shape(network), preprocessing(network)
    torch.manual_seed(0)
    module = build(network)
    make_comparable(module, Batch((drawn_images(shape, 8, 0, wanted),)))
    image = drawn_images(shape, 1, 2, wanted)
    for label, toggles in SETTINGS.items():
        if (name, label) in there:
            continue
        cell = Cell(network=network, batch_size=1, **toggles)  # type: ignore[arg-type]
        error, reason = "", unsupported(cell) or ""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                workload = Workload(
                    cell,
                    module,
                    shape,
                    torch.device("cpu"),
                    ring=1,
                    seed=0,
                    artifacts=Path(folder),
                    calibration=lambda: list(torch.split(drawn_images(shape, 8, 1, wanted), 1)),
                )
                (found, *_) = workload.output(Batch((image,)))
                with torch.inference_mode():
                    expected = first_tensor(module(image))
                error = f"{((found - expected).norm() / expected.norm()).item():.2g}"
            except UnsupportedError as refused:
                reason = str(refused)
        new = not CSV.exists()
        with CSV.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(HEADER)
            writer.writerow((name, entries()[name].family, label, error, reason))


def page() -> str:
    """The page, as markdown."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows():
        found.setdefault(row["network"], {})[row["setting"]] = row
    every = smallest_of_each_family()
    missing = ", ".join(name for name in every if name not in found)
    tried = {label: [one[label] for one in found.values() if label in one] for label in SETTINGS}
    tried = {label: some for label, some in tried.items() if some}
    lines = [
        "# What of the catalogue each runtime takes",
        "",
        "Written by `docs/runtime_coverage.py` from what it tried on a CPU: of each family of the catalogue the",
        "network with the fewest MACs, prepared for one image and run on it. A figure is the relative error of the",
        "output against fp32 eager, with random weights, in int8 after calibration on eight seeded images; `no` has",
        "its reason below. Beyond 1 % (in int8 20 %) the output is another one, in bold, and the network not taken.",
        "",
        f"Tried so far: {len(found)} of {len(every)} families.{f' Not yet: {missing}.' if missing else ''}",
        "",
        *_heading(["Setting", ">Takes"]),
        *(f"| {label} | {sum(_taken(one) for one in some)} of {len(some)} |" for label, some in tried.items()),
        "",
        *_heading(["Network", "Family", *(f">{label}" for label in tried)]),
    ]
    for name, settings in sorted(found.items()):
        family = next(iter(settings.values()))["family"]
        cells = [_cell(settings.get(label)) for label in tried]
        lines.append(f"| {name} | {family} | {' | '.join(cells)} |")
    refused = [row for row in rows() if row["reason"]]
    if refused:
        lines += ["", *_heading(["Network", "Setting", "Why not"])]
        lines += [f"| {row['network']} | {row['setting']} | {_escaped(row['reason'])} |" for row in refused]
    return "\n".join([*lines, *_measured(), ""])


_OUTPUTS = {
    "Relative error": ("output_rel_error", 1, ".2g", "max"),
    "Cosine": ("output_cosine", 1, ".5f", "min"),
    "Same class %": ("output_top1_agreement", 100, ".0f", "min"),
}
_COSTS = {
    "File MiB": ("artifact_bytes", 2**-20, ".1f", "max"),
    "Process MiB": ("process_bytes", 2**-20, ".0f", "max"),
    "Cold s": ("compile_cold_s", 1, ".1f", "max"),
    "Warm s": ("compile_warm_s", 1, ".1f", "max"),
}
"""By heading: the column, by what it is multiplied and how printed, and which end is the worst."""
_ORDER = ("runtime", "quantize", "precision", "compile_mode")
"""Of rows: eager first."""


def _measured() -> list[str]:
    """What the reference run of the suite found, in lines; nothing without one."""
    runs = reference_runs("runtimes")
    if not runs:
        return []
    cells = summary(runs[-1])
    for axis in _ORDER:
        cells[axis] = cells[axis].map(LEGAL[axis].index)
    cells = cells[cells["status"] == "ok"].sort_values([*_ORDER, "variant"])
    plain = cells[cells["setting"] == "eager"].set_index("variant")["latency_s"]
    cells["times"] = (cells["variant"].map(plain) / cells["latency_s"]).where(cells["verdict"] != "invalid")
    together = {
        "× eager": ("times", 1, ".2f", "min"),
        **_OUTPUTS,
        "In eight bits %": ("quantized_share", 100, ".0f", "min"),
    }
    each = {"Latency ms": ("latency_s", 1e3, ".1f", "max"), **_OUTPUTS, **_COSTS}
    return [
        "",
        "## Measured",
        "",
        f"The reference run `results/runtimes/{runs[-1].name}`, one image a step, random weights. The",
        "middle of the networks, in brackets the worst: speed over fp32 eager (an invalid row has none), the output",
        "against its, and the share of convolutions and linear layers that run in eight bits.",
        "",
        *_heading(["Setting", ">Networks", *(f">{name}" for name in together)]),
        *(
            f"| {setting} | {len(some)} | {' | '.join(_spread(some, *form) for form in together.values())} |"
            for setting, some in cells.groupby("setting", sort=False)
        ),
        "",
        "Each cell, in brackets where it is invalid. The file is what is shipped, the process what serving adds to",
        "one; cold is converting and the first step, warm the same with what that left.",
        "",
        *_heading(["Network", "Setting", *(f">{name}" for name in each)]),
        *(
            f"| {one['variant']} | {one['setting'] if one['verdict'] != 'invalid' else '(' + one['setting'] + ')'} | "
            + " | ".join(_number(one[column], size, form) for column, size, form, _ in each.values())
            + " |"
            for one in cells.sort_values("variant", kind="stable").to_dict("records")
        ),
    ]


def _heading(names: list[str]) -> list[str]:
    """The first two lines of a table; figures, marked by `>`, to the right."""
    return [
        f"| {' | '.join(name.removeprefix('>') for name in names)} |",
        f"| {' | '.join('---:' if name.startswith('>') else '---' for name in names)} |",
    ]


def _spread(cells: Any, column: str, size: float, form: str, worst: str) -> str:
    """`1.40 (1.12)`: the median, and in brackets the worst."""
    known = cells[column].dropna()
    return f"{_number(known.median(), size, form)} ({_number(known.agg(worst), size, form)})" if len(known) else "-"


def _number(value: Any, size: float, form: str) -> str:
    import pandas as pd

    return "-" if pd.isna(value) else format(float(value) * size, form)


def _taken(row: dict[str, str]) -> bool:
    return bool(row["error"]) and float(row["error"]) <= LIMITS["int8" in row["setting"]]


def _cell(row: dict[str, str] | None) -> str:
    if row is None:
        return "not tried"
    return row["error"] if _taken(row) else f"**{row['error']}**" if row["error"] else "no"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    if sys.argv[1:2] == ["try"]:
        for one in sys.argv[2:] or smallest_of_each_family():
            attempt(one)
    elif sys.argv[1:2] == ["names"]:
        print(*smallest_of_each_family())
    else:
        sys.stdout.write(page())
