"""The action and the workflows: valid by schema, sound as shell, and run as the runner would run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from workflow_steps import ACTION, ROOT, WORKFLOWS, Runner, read, steps_of

import archbench

SCRIPTS = [
    pytest.param(step, id=name) for path in (ACTION, *WORKFLOWS) for name, step in steps_of(path) if "run" in step
]
MYNETS = """
import torch
def good():
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""
PLAIN = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
CITATION = ROOT / "CITATION.cff"
FORMS = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-actions", [ACTION]),
        ("github-issue-forms", FORMS),
        ("citation-file-format", [CITATION]),
    ],
)
def test_the_schema_holds(schema, paths):
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_what_is_cited_is_this_version():
    assert read(CITATION)["version"] == archbench.__version__


@pytest.mark.parametrize("step", SCRIPTS)
def test_a_step_is_sound_shell(step, tmp_path):
    script = tmp_path / "step.sh"
    script.write_text("#!/usr/bin/env bash\nset -eo pipefail\n" + re.sub(r"\$\{\{.*?\}\}", "value", step["run"]))
    assert "${{" not in step["run"], "an expression in a script's text can bring in commands: hand it over by env"
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_every_input_that_a_workflow_gives_is_one_of_the_actions():
    known = read(ACTION)["inputs"]
    steps = [(name, step) for path in WORKFLOWS for name, step in steps_of(path)]
    ours = [(name, step["with"]) for name, step in steps if step.get("uses") in ("./", "OWNER/archbench@main")]
    assert ours
    for name, given in ours:
        assert set(given) <= set(known), name
        assert "suite" in given


def act(tmp_path, workspace, env=PLAIN, **inputs):
    """Run the action's steps; return the runner and each step's outcome by name."""
    action = read(ACTION)
    given = {name: one.get("default", "") for name, one in action["inputs"].items()}
    given |= {"python": sys.executable, "allow-code": "true", **{k.replace("_", "-"): v for k, v in inputs.items()}}
    # The lock of the device: other tests measure too, and need not wait for this one.
    runner = Runner(
        tmp_path / "runner",
        workspace,
        {f"inputs.{name}": value for name, value in given.items()},
        {**env, "TMPDIR": str(tmp_path)},
    )
    done = {}
    for step in action["runs"]["steps"]:
        judged = runner.values.get("steps.judge.outputs.code", "") != ""
        if "run" in step and (step.get("id") == "judge" or judged):
            done[step["name"]] = runner.run(step)
    return runner, done


@pytest.fixture
def project(tmp_path):
    """A repository with networks of its own, and two commits that differ in nothing but a comment."""
    place = tmp_path / "project"
    place.mkdir()
    (place / "mynets.py").write_text(MYNETS)
    (place / "mine.yaml").write_text("suite: mine\narchitectures: ['mynets:good']\n")
    (place / ".gitignore").write_text("__pycache__/\n")
    git(place, "init", "-q", "-b", "main")
    commit(place, "one")
    (place / "mynets.py").write_text(f"# a comment\n{MYNETS}")
    commit(place, "two")
    return place


def git(place, *arguments):
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    done = subprocess.run(["git", "-C", str(place), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def commit(place, message):
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", message)


@pytest.mark.slow
def test_nothing_changed_passes(tmp_path, project):
    runner, done = act(tmp_path, project, suite="mine.yaml", mode="static", device="cpu")
    assert done["Judge"].returncode == done["Verdict"].returncode == 0, done["Judge"].stderr
    assert runner.values["steps.judge.outputs.verdict"] == "passed"
    assert "::error" not in done["Judge"].stdout
    assert "::notice title=archbench::No regression" in done["Judge"].stdout
    assert runner.summary.read_text().startswith("# No regression")


def test_a_larger_network_fails_with_an_annotation_on_its_cell(tmp_path, project):
    (project / "mynets.py").write_text(MYNETS.replace("3, 8,", "3, 16,").replace("Linear(8", "Linear(16"))
    commit(project, "larger")
    runner, done = act(tmp_path, project, suite="mine.yaml", mode="static", device="cpu", runner_notes="a quiet one")
    assert git(project, "worktree", "list").count("\n") == 1  # nothing of it is left behind
    assert done["Judge"].returncode == 0  # so that the summary is written; the last step has the verdict
    assert done["Verdict"].returncode == 1
    assert runner.values["steps.judge.outputs.verdict"] == "regressed"
    place = "::error file=mine.yaml,line=2,title=mynets%3Agood::"
    assert f"{place}batch_size=1: params 314 → 618, +96.8 %25 (must be equal)" in done["Judge"].stdout
    headline = "Regressed: mynets:good (params +96.8 %, macs +100.0 %): what is counted of 1 cell; 2 failing findings"
    assert runner.values["steps.judge.outputs.headline"] == f"{headline}."
    summary = runner.summary.read_text()
    assert summary.startswith(f"# {headline}\n")
    assert "| fails | mynets:good | batch_size=1 | params 314 → 618, +96.8 % (must be equal) |" in summary
    assert "Commit this as `mine.accepted.yaml`" in summary
    assert "This runner: a quiet one" in summary
    assert (runner.home / "archbench" / "comparison.json").exists()
    assert {"base.parquet", "head.parquet"} <= set(os.listdir(runner.home / "archbench"))


@pytest.mark.slow
def test_what_the_summary_proposes_to_commit_is_what_is_accepted_once(tmp_path, project):
    """The reviewer's way: the lines of the summary are committed with the change, and count for no later one."""
    larger = MYNETS.replace("3, 8,", "3, 16,").replace("Linear(8", "Linear(16")
    (project / "mynets.py").write_text(larger)
    commit(project, "larger")
    runner, _ = act(tmp_path, project, suite="mine.yaml", mode="static", device="cpu")
    (proposed,) = re.findall(r"```yaml\n(.*?)```", runner.summary.read_text(), re.DOTALL)
    (project / "mine.accepted.yaml").write_text(proposed.replace("WHY", "a wider stem"))
    git(project, "add", "-A")
    git(project, "commit", "-q", "--amend", "-m", "larger, and meant")
    (tmp_path / "again").mkdir()
    runner, done = act(tmp_path / "again", project, suite="mine.yaml", mode="static", device="cpu")
    assert done["Verdict"].returncode == 0
    assert runner.values["steps.judge.outputs.headline"] == (
        "No regression but what was accepted: what is counted of 1 cell; 2 changes accepted."
    )
    assert "(must be equal); accepted: a wider stem |" in runner.summary.read_text()
    assert "::error" not in done["Judge"].stdout
    # Merged, it is of the base: the same growth once more is not covered.
    (project / "mynets.py").write_text(larger.replace("3, 16,", "3, 32,").replace("Linear(16", "Linear(32"))
    commit(project, "larger still")
    (tmp_path / "later").mkdir()
    runner, done = act(tmp_path / "later", project, suite="mine.yaml", mode="static", device="cpu")
    assert done["Verdict"].returncode == 1
    assert "the entry of mynets:good (params) is in the base already: delete it." in runner.summary.read_text()


def test_archbench_is_installed_from_the_actions_own_checkout(tmp_path, project):
    fake = tmp_path / "python"
    fake.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$RUNNER_TEMP/told"\n')
    fake.chmod(0o755)
    (step,) = [step for step in read(ACTION)["runs"]["steps"] if step["name"] == "Install"]
    values = {"inputs.python": str(fake), "github.action_path": str(ROOT)}
    runner = Runner(tmp_path / "runner", project, values, PLAIN)
    assert runner.run(step).returncode == 0
    told = (runner.home / "told").read_text().splitlines()
    assert told == ["-m", "pip", "install", "--quiet", str(ROOT)]
    assert (ROOT / "pyproject.toml").is_file(), "what is installed there is archbench"


def test_templates_install_nothing_that_nobody_has_published():
    """`pip install archbench` is somebody else's package, or nobody's, until there is a release."""
    for path in sorted((ROOT / "docs" / "ci").glob("*.yml")):
        assert not re.search(r"pip install .*\barchbench(\[\w+\])?'?(?! @)(\s|$)", path.read_text()), path.name


@pytest.mark.parametrize(
    ("inputs", "code", "says"),
    [
        ({"suite": "missing.yaml"}, 2, "missing.yaml"),
        ({"base": "no-such-revision"}, 2, "no-such-revision"),
        ({"only": "vgg*"}, 2, "vgg*"),
        ({"base": "/bin/false", "head": sys.executable}, 3, "/bin/false"),
    ],
)
def test_what_cannot_be_judged_says_why_in_annotation_and_summary(tmp_path, project, inputs, code, says):
    runner, done = act(tmp_path, project, **{"suite": "mine.yaml", "mode": "static", "device": "cpu", **inputs})
    assert done["Verdict"].returncode == code, done["Judge"].stderr
    assert runner.values["steps.judge.outputs.verdict"] == "unfit"
    (error,) = (line for line in done["Judge"].stdout.splitlines() if line.startswith("::error"))
    assert says in error
    assert says in runner.summary.read_text()
    assert "Traceback" not in done["Judge"].stderr


def test_an_exception_is_no_regression(tmp_path, project):
    """Python ends with 1 for what nobody foresaw, the same as the gate for a regression."""
    fake = tmp_path / "python"
    fake.write_text('#!/usr/bin/env bash\nprintf "Traceback\\nRuntimeError: out of luck\\n" >&2\nexit 1\n')
    fake.chmod(0o755)
    runner, done = act(tmp_path, project, suite="mine.yaml", python=str(fake))
    assert runner.values["steps.judge.outputs.verdict"] == "unfit"
    assert "::error title=archbench::RuntimeError: out of luck" in done["Judge"].stdout
    assert "# archbench could not judge" in runner.summary.read_text()
    assert done["Verdict"].returncode == 3


def test_a_mode_that_is_none_is_refused_before_anything_runs(tmp_path, project):
    _, done = act(tmp_path, project, suite="mine.yaml", mode="fast")
    assert set(done) == {"Judge"}
    assert done["Judge"].returncode == 2
    assert "neither gate nor static" in done["Judge"].stdout


def test_every_input_reaches_the_gate(tmp_path, project):
    """The interpreter is a script that writes down what it was told."""
    fake = tmp_path / "python"
    fake.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$RUNNER_TEMP/told"\necho 50 % >&2\nexit 3\n')
    fake.chmod(0o755)
    runner, done = act(
        tmp_path,
        project,
        suite="a suite.yaml",
        base="$(touch owned)",
        head="HEAD; touch owned",
        only="resnet*\n@batch_size=1\n",
        max_time="10m",
        strict="true",
        device="cuda:1",
        python=str(fake),
    )
    told = (runner.home / "told").read_text().splitlines()
    assert told[:4] == ["-m", "archbench", "gate", "a suite.yaml"]
    given = dict(zip(told[4::2], told[5::2], strict=False))
    assert given["--base"] == "$(touch owned)"
    assert given["--head"] == "HEAD; touch owned"
    assert given["--device"] == "cuda:1"
    assert given["--max-time"] == "10m"
    assert [told[n + 1] for n, word in enumerate(told) if word == "--only"] == ["resnet*", "@batch_size=1"]
    assert told[-2:] == ["--strict", "--allow-code"]
    assert not (project / "owned").exists()
    assert "::error title=archbench::50 %25" in done["Judge"].stdout
    assert done["Verdict"].returncode == 3


@pytest.mark.parametrize("same_checkout", [False, True])
def test_nights_are_added_to_a_branch_of_their_own(tmp_path, project, same_checkout):
    """The nightly template's steps, twice, against a bare remote; the measuring itself is a script here.

    A runner of one's own keeps its checkout from night to night, and actions/checkout cleans it.
    """
    remote = tmp_path / "remote.git"
    git(tmp_path, "clone", "-q", "--bare", str(project), str(remote))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "archbench").write_text(
        "#!/usr/bin/env bash\n"
        'if [[ $1 == run ]]; then out="${*: -1}"; mkdir -p "$out"; date +%N > "$out/results.parquet"; exit 1; fi\n'
        'echo "$(find "$2" -name results.parquet | wc -l) runs" > "$4"\n'
    )
    (tools / "archbench").chmod(0o755)
    job = read(ROOT / "docs" / "ci" / "nightly.yml")["jobs"]["baseline"]
    steps = [step for step in job["steps"] if "run" in step and step["name"] != "Install"]
    for night in (1, 2):
        checkout = tmp_path / ("checkout" if same_checkout else f"checkout{night}")
        if checkout.exists():
            git(checkout, "clean", "-q", "-ffdx")
        else:
            git(tmp_path, "clone", "-q", str(remote), str(checkout))
        env = {**job["env"], "PATH": f"{tools}:{os.environ['PATH']}"}
        runner = Runner(tmp_path / f"runner{night}", checkout, {}, env)
        for step in steps:
            done = runner.run({**step, "run": step["run"].replace("%H%M%SZ", f"%H%M%SZ-{night}")})
            assert done.returncode == 0, done.stderr
        assert runner.summary.read_text() == f"{night} runs\n"
    kept = git(remote, "ls-tree", "-r", "--name-only", "archbench-results").splitlines()
    assert len(kept) == 2
    assert all(re.fullmatch(r"runs/\S+/results.parquet", name) for name in kept)
