"""Conditions on rows: three values, so that what is null satisfies nothing however it is asked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from archbench.choose.conditions import evaluate, satisfied
from archbench.query.parsing import parse

FRAME = pd.DataFrame(
    {
        "top1": pd.Series([70.0, 76.0, np.nan]),
        "params": pd.Series([5, None, 25_000_000], dtype="Int64"),
        "host_bound": pd.Series([True, False, None], dtype="boolean"),
        "family": pd.Series(["resnet", None, "vgg"], dtype=object),
        "reasons": pd.Series([("drift", "contended"), (), ("drift",)], dtype=object),
        "phase": ["training", "inference", "inference"],
    }
)


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ("top1 >= 76", [0, 1, 0], [1, 0, 0]),
        ("not top1 >= 76", [1, 0, 0], [0, 1, 0]),
        ("top1 != 76", [1, 0, 0], [0, 1, 0]),
        ("params < 1M", [1, 0, 0], [0, 0, 1]),
        ("params in (5, 6)", [1, 0, 0], [0, 0, 1]),
        ("host_bound", [1, 0, 0], [0, 1, 0]),
        ("not host_bound", [0, 1, 0], [1, 0, 0]),
        ("family == resnet", [1, 0, 0], [0, 0, 1]),
        ("family != resnet", [0, 0, 1], [1, 0, 0]),
        ("family in (resnet, vgg)", [1, 0, 1], [0, 0, 0]),
        ("family not in (resnet, densenet)", [0, 0, 1], [1, 0, 0]),
        ("reasons == drift", [1, 0, 1], [0, 1, 0]),
        ("reasons != contended", [0, 1, 1], [1, 0, 0]),
        # Unknown or true is true, unknown and false is false: what is null decides nothing.
        ("top1 >= 76 or phase == inference", [0, 1, 1], [1, 0, 0]),
        ("top1 >= 76 and phase == training", [0, 0, 0], [1, 1, 1]),
        ("not (top1 >= 76 and phase == inference)", [1, 0, 0], [0, 1, 0]),
    ],
)
def test_truth_row_by_row(condition: str, yes: list[int], no: list[int]) -> None:
    truth = evaluate(parse(condition), FRAME)
    assert truth.fillna(False).astype(int).tolist() == satisfied(parse(condition), FRAME).astype(int).tolist() == yes
    assert (~truth).fillna(False).astype(int).tolist() == no
