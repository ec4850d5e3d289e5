"""Runs the `run:` steps of an action or a job as GitHub's runner does: bash, its variables, its files."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted([*(ROOT / "docs" / "ci").glob("*.yml"), *(ROOT / ".github" / "workflows").glob("*.yml")])
ACTION = ROOT / "action.yml"
_EXPRESSION = re.compile(r"\$\{\{\s*(\S+)\s*\}\}")


def read(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # all scalars as text, as the runner hands them on


def steps_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every step of an action or workflow, with a name for messages."""
    document = read(path)
    lists = (
        {"": document["runs"]["steps"]}
        if "runs" in document
        else {name: job["steps"] for name, job in document["jobs"].items()}
    )
    for job, steps in lists.items():
        for number, step in enumerate(steps):
            yield f"{path.name} {job} {step.get('name', number)}", step


class Runner:
    """A runner in `home`, working in `workspace`; `values` answer the expressions, outputs of steps join them."""

    def __init__(self, home: Path, workspace: Path, values: Mapping[str, str], env: Mapping[str, str]) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self._workspace = workspace
        self.values = {"runner.temp": str(home), **values}
        self._env = {**os.environ, **env, "RUNNER_TEMP": str(home)}
        self.summary = home / "summary"
        self.summary.touch()

    def run(self, step: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        """One step; its `if:` is the caller's business."""
        output = self.home / "output"
        output.write_text("")
        script = self.home / "step.sh"
        script.write_text(self._filled(step["run"]))
        files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(self.summary)}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self._workspace,
            env={**self._env, **files, **{name: self._filled(value) for name, value in step.get("env", {}).items()}},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            self.values[f"steps.{step.get('id')}.outputs.{name}"] = value
        return done

    def _filled(self, text: str) -> str:
        return _EXPRESSION.sub(lambda found: self.values.get(found[1], ""), text)
