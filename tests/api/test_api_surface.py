"""What `import archbench` offers and costs, and that each function says what its command says."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest
import typer
from builders import make_record, make_run
from msgspec import json as mjson
from reference_runs import reference_runs
from typer.core import TyperGroup

import archbench
from archbench.cli import COMMANDS, app, main

RUN = reference_runs("imagenet_backbones")[-1]


def printed(capsys, *words):
    with pytest.raises(SystemExit) as exited:
        main([str(word) for word in words])
    return exited.value.code, capsys.readouterr().out


def test_importing_costs_nothing_and_shows_what_there_is():
    code = (
        "import sys, time; started = time.perf_counter(); import archbench; took = time.perf_counter() - started\n"
        "heavy = {'torch', 'pandas', 'numpy', 'pyarrow', 'msgspec', 'rich', 'typer'} & set(sys.modules)\n"
        "print(took < 0.3, heavy, dir(archbench) == sorted([*archbench.__all__, '__version__']))\n"
        "from archbench import *\n"
        "print(run.__module__, UsageError.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["True set() True", "archbench.api UsageError False"]
    with pytest.raises(AttributeError, match="module 'archbench' has no attribute 'runn'"):
        archbench.runn  # noqa: B018


def test_every_public_name_has_a_docstring_and_no_module_is_called_like_one():
    import pkgutil

    for name in archbench.__all__:
        assert getattr(archbench, name).__doc__, name
    modules = {module.name for module in pkgutil.iter_modules(archbench.__path__)}
    assert not modules & set(archbench.__all__)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) & set(archbench.__all__)))
def test_keywords_are_the_options_names(name):
    """Less those that are about printing: `--json`, `--format` where the function returns what is formatted, ..."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands[name]
    options = {option.name for option in command.params if option.param_type_name == "option"}
    of_command = {
        "compare": {"format", "out"},
        "gate": {"format"},
        "claims": {"out"},
        "plan": {"predict"},
        "show": {"bibtex"},
    }
    printing = {"as_json", "strict", "depth", "stage", "top", *of_command.get(name, ())}
    keywords = {
        one.name
        for one in inspect.signature(getattr(archbench, name)).parameters.values()
        if one.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    }
    assert options - printing <= keywords


def test_help_shows_every_keyword_and_others_are_refused_in_pythons_words():
    import pydoc

    told = pydoc.plain(pydoc.render_doc(archbench.run))
    assert "batch_size: 'OneOrMore[int] | str | None' = None" in told
    assert "retry_failed: 'bool' = False" in told
    assert "Measure a suite, or a few networks" in told
    with pytest.raises(TypeError, match="unexpected keyword argument 'batchsize'"):
        archbench.run("lenet5", batchsize=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing a required argument: 'base'"):
        archbench.gate("suite.yaml")  # type: ignore[call-arg]
    named = archbench.plan(what="lenet5", device="cpu")  # type: ignore[call-arg]  # its name is for whoever looks it up
    assert named == archbench.plan("lenet5", device="cpu")


def test_pick_is_what_the_command_prints(capsys):
    given = {"where": ["latency_median <= 100ms", "batch_size == 1"], "maximize": "top1", "across": ["precision"]}
    found = archbench.pick(RUN, **given)
    words = ("--where", given["where"][0], "--where", given["where"][1], "--maximize", "top1", "--across", "precision")
    assert mjson.decode(mjson.encode(found)) == json.loads(printed(capsys, "pick", RUN, *words, "--json")[1])
    assert archbench.Run(RUN).pick(**given) == found
    assert found.found
    with pytest.raises(archbench.UsageError) as raised:
        archbench.pick(RUN, minimize="latency_medain")
    with pytest.raises(SystemExit):
        main(["pick", str(RUN), "--minimize", "latency_medain"])
    assert capsys.readouterr().err == f"archbench: {raised.value}\n"


def test_report_is_what_the_command_prints(capsys, tmp_path):
    run = make_run(tmp_path)
    assert archbench.report(run, format="latex") == printed(capsys, "report", run, "--format", "latex", "--out", "-")[1]
    place = tmp_path / "mine.md"
    assert archbench.Run(run).report(out=place) == place
    there = tmp_path / "there.md"
    printed(capsys, "report", run, "--out", there)
    assert place.read_text().replace("mine_plots", "there_plots") == there.read_text()
    with pytest.raises(archbench.UsageError, match="--format pdf: no such format, known: md, html, latex"):
        archbench.report(run, format="pdf")


def test_compare_is_what_the_command_prints(capsys, tmp_path):
    rows = [make_record(), make_record(cell_id="vgg16@batch_size=1", variant="vgg16")]
    base, head = make_run(tmp_path / "base", rows), make_run(tmp_path / "head", rows)
    found = archbench.compare(base, head)
    code, out = printed(capsys, "compare", base, head, "--format", "json")
    assert (found.exit_code(), len(found.cells)) == (code or 0, len(json.loads(out)["cells"]))
    other = make_run(tmp_path / "other", [make_record(hardware_class="NVIDIA H200")])
    with pytest.raises(archbench.UnfitError) as raised:
        archbench.compare(base, other)
    with pytest.raises(SystemExit) as exited:
        main(["compare", str(base), str(other)])
    assert exited.value.code == 3
    assert capsys.readouterr().err == f"archbench: {raised.value}\n"


def test_show_is_what_the_command_prints(capsys):
    found = archbench.show("googlenet")
    assert mjson.decode(mjson.encode(found)) == json.loads(printed(capsys, "show", "googlenet", "--json")[1])
    assert archbench.show("googlenet", option={"aux_logits": True}).variant == "googlenet[aux_logits=true]"
    with pytest.raises(archbench.UsageError, match="--head none2: must be classifier or none"):
        archbench.show("googlenet", head="none2")


def test_a_run_says_where_there_is_none(tmp_path):
    with pytest.raises(archbench.UsageError, match="no such file or directory"):
        archbench.Run(tmp_path / "nowhere")
    empty = archbench.Run(make_run(tmp_path, [], merge=False))
    assert repr(empty).endswith("nothing finished yet")
    assert "nothing finished yet" in empty._repr_html_()


def test_a_runs_json_has_one_source(tmp_path, capsys):
    """Verdicts and rows of one document agree where only the whole run shows that a row was disturbed."""
    canaries = [0.001, 0.001, 0.001, 0.00115, 0.00201]
    run = archbench.Run(make_run(tmp_path, [make_record(round=n, canary_s=one) for n, one in enumerate(canaries)]))
    from archbench.cli.measuring import _tell

    _tell(run, True)
    document = json.loads(capsys.readouterr().out)
    assert document["verdicts"] == {"ok": 3, "suspect": 1, "invalid": 1}
    assert [row["verdict"] for row in document["rows"]] == ["ok", "ok", "ok", "suspect", "invalid"]
    assert [row["reasons"] for row in document["rows"]][3:] == [["drift"], ["disturbed"]]
