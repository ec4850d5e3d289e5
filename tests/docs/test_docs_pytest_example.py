"""The example of docs/pytest.md is one that runs, and docs/ci.md shows what the action really writes."""

from __future__ import annotations

import re
from pathlib import Path

import archbench.pytest_plugin.network  # the pytest inside forgets what it imports: a second a test  # noqa: F401

pytest_plugins = ["pytester"]
DOCS = Path(__file__).parents[2] / "docs"


def test_the_example_runs(pytester, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (code,) = re.findall(r"^```python\n(.*?)^```", (DOCS / "pytest.md").read_text(), re.MULTILINE | re.DOTALL)
    pytester.makepyfile(code)
    result = pytester.runpytest("--benchmark-disable", "-p", "no:hypothesispytest", "-p", "no:anyio")
    result.assert_outcomes(passed=2)


def test_the_options_named_are_the_plugins(pytester):
    known = pytester.runpytest("--help", "-p", "no:hypothesispytest", "-p", "no:anyio").stdout.str()
    named = set(re.findall(r"--(?:archbench|benchmark)-[a-z-]+", (DOCS / "pytest.md").read_text()))
    assert named
    for option in named:
        assert option in known, option


def test_the_templates_and_inputs_named_exist():
    import yaml

    text = (DOCS / "ci.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DOCS / link).exists(), link
    examples = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    steps = [step for example in examples if isinstance(example, list) for step in example if "uses" in step]
    (step,) = (step for step in steps if step["uses"].startswith("OWNER/"))
    action = yaml.safe_load((DOCS.parent / "action.yml").read_text())
    assert set(step["with"]) <= set(action["inputs"])
