"""Whoever follows the README has runs of their own under results/, and the pages are not about those."""

from __future__ import annotations

import subprocess
from pathlib import Path

from reference_runs import reference_runs


def test_only_runs_that_git_tracks_are_reference_runs(tmp_path: Path) -> None:
    committed, own = tmp_path / "results/imagenet_backbones/20260101-a", tmp_path / "results/smoke/20260102-b"
    for run in (committed, own):
        run.mkdir(parents=True)
        (run / "results.parquet").touch()
    assert reference_runs(root=tmp_path) == [committed, own]  # an unpacked archive has no git to ask
    for words in (["init", "-q"], ["add", str(committed)]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, timeout=20)
    assert reference_runs(root=tmp_path) == reference_runs("imagenet_backbones", root=tmp_path) == [committed]
    assert reference_runs("smoke", root=tmp_path) == []
