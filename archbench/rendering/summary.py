"""What a report prints, for other readers: `summary.parquet` and `summary.csv` in the run's folder, one row a cell.

`results.parquet` holds what each process measured, with nothing corrected for drift and no row seen beside the others.
Whoever averages that gets other times and verdicts than the report; these files have the report's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archbench.choose.toggles import alike, best_setting
from archbench.model.axes import ROLES, TOGGLES
from archbench.model.derived import judged_columns
from archbench.model.record import Column
from archbench.model.units import indented_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from archbench.rendering.run_data import RunData

PARQUET, CSV = "summary.parquet", "summary.csv"
_AS_THEY_ARE = (
    *("run_id", "cell_id", "architecture", "variant", "family", "device", "hardware_class", "phase", "batch_size"),
    *(
        "input_size",
        *TOGGLES,
        "threads",
        "inputs",
        *ROLES,
        "status",
        "verdict",
        "error_message",
    ),
    *("processes", "processes_used", "drift_corrected", "params", "macs", "activations", "weight_bytes"),
    *("compile_cold_s", "compile_warm_s", "artifact_bytes", "process_bytes", "quantized_share", "energy_j_per_img"),
    *("output_rel_error", "output_cosine", "output_top1_agreement", "top1_measured", "top1_drop"),
    *("top1", "top5", "accuracy_source", "accuracy_dataset", "torch_version"),
)
"""Columns of the summary over rounds that mean the same here."""
_RANKED = {
    "latency_s": ("rank_latency_s", "median latency of a step, corrected for drift where drift_corrected says so"),
    "latency_low_s": ("rank_latency_low_s", "95 % interval of latency_s, low end"),
    "latency_high_s": ("rank_latency_high_s", "95 % interval of latency_s, high end"),
    **{
        f"latency_{p}_s": (f"rank_latency_{p}_s", f"percentile {p[1:]}, in the same terms")
        for p in ("p90", "p95", "p99")
    },
    "throughput_img_s": ("rank_throughput_img_s", "images per second, corrected likewise"),
    "throughput_low_img_s": ("rank_throughput_low_img_s", "95 % interval of throughput_img_s, low end"),
    "throughput_high_img_s": ("rank_throughput_high_img_s", "95 % interval of throughput_img_s, high end"),
}
"""Figures as the report prints them: by column, where each comes from and what it means."""


def _text(name: str, description: str) -> Column:
    return Column(name=name, kind="text", unit=None, description=description)


_OWN = (
    _text("setting", "the suite's name for the toggles, or the toggles themselves"),
    _text("reasons", "reason codes of all processes, separated by spaces; null where there are none"),
    Column(
        name="peak_bytes",
        kind="whole",
        unit="B",
        description="peak memory of a step as the report has it: reserved on a GPU, allocated on the CPU",
    ),
    _text(
        "best_setting",
        "under which setting this network is fastest at this phase, batch and image size; null where one was measured",
    ),
)


def summary_columns() -> tuple[Column, ...]:
    """The columns of both files, in their order."""
    known = judged_columns()
    ranked = (
        Column(name=name, kind="real", unit=known[source].unit, description=meaning)
        for name, (source, meaning) in _RANKED.items()
    )
    return (*(known[name] for name in _AS_THEY_ARE), *_OWN, *ranked)


def summary_frame(run: RunData) -> pd.DataFrame:
    """One row a cell, in the order of the run; whole numbers `Int64`, flags `boolean`, null where nothing is known."""
    import pandas as pd

    cells = run.candidates.frame.set_index("cell_id", drop=False)
    printed = {one.cell_id: one for one in run.cells}
    of = [printed[cell_id] for cell_id in cells["cell_id"]]
    best = _best_settings(run)
    columns: dict[str, Any] = {name: cells[name] for name in _AS_THEY_ARE}
    columns |= {
        "setting": [one.setting_label for one in of],
        "reasons": [" ".join(one.reasons) or None for one in of],
        "peak_bytes": [one.peak_bytes for one in of],
        "best_setting": [best.get(one.cell_id) for one in of],
    }
    columns |= {name: cells[source] for name, (source, _) in _RANKED.items()}
    text = pd.Series([""]).dtype  # what this pandas gives text, also where a column is null throughout
    kinds: dict[str, Any] = {"whole": "Int64", "flag": "boolean", "real": "float64", "text": text}
    typed = {
        one.name: pd.Series(columns[one.name], index=cells.index, dtype=kinds[one.kind]) for one in summary_columns()
    }
    return pd.DataFrame(typed).reset_index(drop=True)


def _best_settings(run: RunData) -> dict[str, str]:
    found: dict[str, str] = {}
    for group in alike(run.cells):
        best = best_setting(group)
        if best is not None:
            found |= {one.cell_id: best.cell.setting_label for one in group.values()}
    return found


def write_summary(run: RunData) -> None:
    """Put both files into the run's folder, and its spread for later runs, each whole or not at all.

    Raises `UnfitError` where they cannot be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from archbench.choose.summary import SPREAD
    from archbench.results.files import atomic_write, write_bytes

    frame = summary_frame(run)
    table = pa.Table.from_pandas(frame, schema=_schema(), preserve_index=False)
    with atomic_write(run.path / PARQUET) as file, pq.ParquetWriter(file, table.schema) as writer:
        writer.write_table(table)
    write_bytes(run.path / CSV, frame.to_csv(index=False, lineterminator="\n").encode())
    write_bytes(run.path / SPREAD, indented_json(run.shown).encode())


def _schema() -> pa.Schema:
    """With what each column means, so that the file explains itself in any reader."""
    import pyarrow as pa

    kinds = {"whole": pa.int64(), "flag": pa.bool_(), "real": pa.float64(), "text": pa.string()}
    about = ((one, {"description": one.description, "unit": one.unit or ""}) for one in summary_columns())
    return pa.schema([pa.field(one.name, kinds[one.kind], metadata=meaning) for one, meaning in about])
