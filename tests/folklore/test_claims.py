"""Claims are data: read with places for mistakes, judged by figures, and none of them has its verdict written."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import archbench
from archbench.catalog import counted_by_label
from archbench.cli import main
from archbench.folklore import asked, experiments, sources
from archbench.folklore.claims import OWN, judge, read_claims
from archbench.folklore.sources import Sources, _mean
from archbench.model.errors import FitnessWarning, UsageError
from archbench.suite import load_suite
from archbench.training.probe import About, Probe
from archbench.training.settings import Point, Settings, schedules

ROOT = Path(__file__).parents[2]
RUN = next((ROOT / "results" / "imagenet_backbones").iterdir())
BY_DEPTH_AND_MACS = """
      by depth: depth(resnet152) > depth(vgg16)
      by MACs: macs(resnet152) > macs(vgg16)"""
HEAD = """\
sources:
  "9": {title: a made-up text}
facts:
  moon: {value: 384400, source: an almanac}
claims:
"""


def claims_file(tmp_path, *entries):
    path = tmp_path / "own.yaml"
    path.write_text(HEAD + "".join(entries))
    return path


def entry(holds, *, id="9.1", kind="counted", more=""):
    return f'  - id: "{id}"\n    says: something\n    kind: {kind}\n    holds: {holds}\n{more}'


def judged(tmp_path, *entries, cells=None, probe=None):
    claims = read_claims(claims_file(tmp_path, *entries))
    return judge(claims, Sources(claims.facts, [] if cells is None else [cells], probe))


def test_every_statement_of_the_list_is_there_once():
    claims = read_claims().claims
    assert len(claims) == 124
    assert len({one.id for one in claims}) == 124
    assert not {"verdict", "confirmed", "refuted"} & {
        key for one in yaml.safe_load(OWN.read_text())["claims"] for key in one
    }


def test_adding_a_claim_is_adding_a_row(tmp_path):
    confirmed, refuted, other = judged(
        tmp_path,
        entry("params(lenet5) == 60000"),
        entry("depth(vgg16) > depth(vgg19)", id="9.2"),
        entry(BY_DEPTH_AND_MACS, id="9.3"),
    )
    assert (confirmed.verdict, refuted.verdict, other.verdict) == ("confirmed", "refuted", "depends")
    assert "by depth yes" in other.why
    assert "by MACs no" in other.why
    exact = counted_by_label()["lenet5"].counts.params
    assert confirmed.judgements[0].figures[0].value == exact == 60000


def test_the_same_row_is_judged_otherwise_where_the_figure_is_another(tmp_path):
    path = claims_file(tmp_path, entry("fact(moon) < 400000", kind="published"))
    near = read_claims(path)
    far = replace(near, facts={"moon": replace(near.facts["moon"], value=500000.0)})
    assert [judge(one, Sources(one.facts))[0].verdict for one in (near, far)] == ["confirmed", "refuted"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (entry("parms(vgg16) > 1"), 9, "unknown column 'parms'; did you mean params"),
        (entry("params(vgg61) > 1"), 9, "vgg16"),
        (entry("params() > 1"), 9, "names no network"),
        (entry("phase(vgg16) > 1"), 9, "holds no numbers"),
        (entry("fact(mon) > 1"), 9, "did you mean moon?"),
        (entry("train_loss(plain57) > 1"), 9, "did you mean plain56"),
        (entry("params(vgg16)"), 9, "is a number; compare it"),
        (entry("1 > 2", kind="rumour"), 8, "rumour"),
        (entry("1 > 2", id="8.1"), 6, "belongs to none of the sources"),
        (entry("1 > 2") + entry("1 > 2"), 10, "a second claim"),
        (entry("1 > 2", more="    tolerance: 0.1\n"), 6, "needs its reason"),
        (entry("1 > 2", more="    not_measurable: never\n"), 6, "give either"),
        (entry("1 > 2", more="    right: it is {parms(vgg16)}\n"), 10, "unknown column"),
        (entry("1 > 2", more="    where: [phse == inference]\n"), 10, "unknown column 'phse'"),
        (entry("1 > 2", more="    verdict: confirmed\n"), 6, "verdict"),
        ("  - id: 9.1\n", 6, "str"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, text, line, words):
    path = claims_file(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_claims(path)
    assert re.match(rf"{re.escape(str(path))}:{line}:\d+: ", str(caught.value)), caught.value
    assert words in str(caught.value)


def test_every_function_that_a_claim_may_call_exists():
    assert all(callable(getattr(experiments, name)) for name in (*sources.STRUCTURE, *sources.EXPERIMENTS))


def test_the_suite_has_what_the_claims_need():
    suite = {one.name for one in load_suite(ROOT / "suites" / "claims.yaml").architectures}
    needed = {
        str(term.about[0])
        for one in read_claims().claims
        for formula in one.aspects.values()
        for term in formula.terms
        if sources.is_measured(term)
    }
    assert suite == needed


# Stored runs


@pytest.fixture(scope="module")
def cells():
    from archbench.choose.candidates import read_candidates

    return read_candidates([RUN])


def test_stored_rows_judge_each_setting(tmp_path, cells):
    (one,) = judged(
        tmp_path, entry("latency_median(alexnet) / latency_median(vgg16) < 1", kind="measured"), cells=cells
    )
    assert one.verdict == "confirmed"
    summary = archbench.summary(RUN)
    for each in one.judgements:
        phase, batch, *_ = each.setting.split(", ")
        same = summary[(summary["phase"] == phase) & (summary["batch_size"] == int(batch.split()[1]))]
        times = [same[same["variant"] == name]["latency_s"].dropna().iloc[0] for name in ("alexnet", "vgg16")]
        assert each.compared[0].value == pytest.approx(times[0] / times[1], rel=0.5)
        assert each.compared[0].low < each.compared[0].value < each.compared[0].high


def test_a_setting_that_changes_the_answer_is_named(tmp_path, cells):
    frame = cells.frame.copy()
    frame = frame[frame["variant"].isin(["resnet18", "resnet50"]) & (frame["precision"] == "fp32")]
    slow = (frame["variant"] == "resnet18") & (frame["batch_size"] == 1)
    for column in ("rank_latency_s", "rank_latency_low_s", "rank_latency_high_s"):
        frame.loc[slow, column] *= 100
    told = replace(cells, frame=frame)
    (one,) = judged(tmp_path, entry("latency_median(resnet18) < latency_median(resnet50)", kind="measured"), cells=told)
    assert one.verdict == "depends"
    assert ", yes with batch 4 alone" in one.why


def test_a_run_without_the_phase_says_what_to_run(tmp_path, cells):
    text = entry(
        "latency_median(alexnet) < latency_median(vgg16)", kind="measured", more="    where: [phase == training]\n"
    )
    inference = replace(cells, frame=cells.frame[cells.frame["phase"] == "inference"])
    (one,) = judged(tmp_path, text, cells=inference)
    assert one.verdict == "not measurable"
    assert "where phase == training" in one.why
    assert one.commands == ["archbench run alexnet vgg16 --phase training"]


def test_one_missing_aspect_keeps_a_claim_from_being_settled(tmp_path):
    text = entry(BY_DEPTH_AND_MACS.replace("macs(", "latency_median("))
    (one,) = judged(tmp_path, text)
    assert one.verdict == "not measurable"
    assert "by depth yes" in one.why


def test_a_run_from_another_machine_is_told(monkeypatch):
    monkeypatch.setattr(asked, "describe", lambda device: type("Here", (), {"hardware_class": "another-machine"}))
    with pytest.warns(FitnessWarning, match="this machine is another-machine"):
        found = archbench.claims(RUN, only="003.26")
    assert found[0].verdict == "confirmed"
    assert all(one.hardware_class != "another-machine" for one in found[0].judgements)


# Training probes


def probe_of(losses):
    """A probe in which each network ended at these losses, a seed each."""
    points = [
        Point(
            network=name, seed=seed, step=360, train_loss=loss, train_accuracy=50.0, test_loss=loss,
            test_accuracy=50.0, gradient_norms=(1.0, 4.0),
        )
        for name, each in losses.items()
        for seed, loss in enumerate(each)
    ]  # fmt: skip
    settings = Settings(
        data="digits", image_size=8, seeds=(0, 1, 2), subjects=tuple(losses), schedules=schedules("digits", None),
        device="cpu",
    )  # fmt: skip
    about = About(settings=settings, hardware_class="here", torch_version="2")
    return Probe(path=Path("made-up"), about=about, points=tuple(points))


def test_trainings_are_judged_by_their_mean_over_seeds(tmp_path):
    text = entry("train_loss(plain56) > train_loss(resnet56)", kind="trained")
    apart, close = (
        judged(tmp_path, text, probe=probe_of({"plain56": losses, "resnet56": [0.1, 0.2, 0.3]}))[0]
        for losses in ([2.0, 2.1, 2.2], [0.2, 0.3, 0.1])
    )
    assert (apart.verdict, close.verdict) == ("confirmed", "not measurable")
    figure = apart.judgements[0].figures[0]
    assert figure.value == pytest.approx(2.1)
    assert math.log(figure.high / figure.value) == pytest.approx(4.30265 * 0.1 / math.sqrt(3) / 2.1, rel=1e-4)
    assert math.log(figure.value / figure.low) == pytest.approx(math.log(figure.high / figure.value))


@given(st.lists(st.floats(1e-9, 99.99), min_size=2, max_size=5))
def test_intervals_of_losses_and_accuracies_stay_where_these_can_be(values):
    for most in (math.inf, 100.0):
        figure = _mean(values, "here", most)
        assert 0 < figure.low <= figure.value * (1 + 1e-9)
        assert figure.value * (1 - 1e-9) <= figure.high <= most
    signed = _mean([-values[0], *values], "here")
    assert signed.high - signed.value == pytest.approx(signed.value - signed.low)


def test_a_loss_that_is_no_number_is_a_finding(tmp_path):
    text = entry("train_loss(plain56) > train_loss(resnet56)", kind="trained")
    (one,) = judged(tmp_path, text, probe=probe_of({"plain56": [math.nan, 2.0, 2.0], "resnet56": [0.1, 0.2, 0.3]}))
    assert one.verdict == "confirmed"
    assert "without bound" in one.why
    assert json.loads(archbench_json(one))["judgements"][0]["figures"][0]["value"] is None


def archbench_json(value):
    from archbench.model.units import indented_json

    return indented_json(value)


def test_an_untrained_network_says_what_trains_it(tmp_path):
    text = entry("train_loss(plain110) > 1", kind="trained")
    (one,) = judged(tmp_path, text, probe=probe_of({"plain56": [1.0]}))
    assert one.commands == ["archbench train-probe plain110"]


# The command


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["claims", *map(str, words)])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_the_command_prints_verdicts_and_json(capsys, tmp_path):
    code, out, _ = run(capsys, RUN, "--only", "000.14", "--only", "002.09")
    assert code == 0
    assert "refuted" in out
    assert "33.3" in out
    code, out, _ = run(capsys, RUN, "--only", "003.26", "--json")
    (one,) = json.loads(out)
    assert (one["id"], one["verdict"]) == ("003.26", "confirmed")
    assert one["judgements"][1]["figures"][0]["origin"].startswith("run ")
    code, out, _ = run(capsys, RUN, "--only", "00[1-2].*", "--out", tmp_path / "claims.html")
    assert code == 0
    assert "3.86 G MACs" in (tmp_path / "claims.html").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--only", "777.*"], "matches no claim"),
        (["no-such-run"], "no-such-run"),
        (["--measure", "soon"], "--measure 'soon': is no time"),
        (["--probe", "no-such-probe"], "holds no training probe"),
        (["--file", "no-such-file.yaml"], "no-such-file.yaml"),
        (["--out", "claims.doc"], "ends in .md or .html"),
    ],
)
def test_bad_words_are_one_line(capsys, words, expected):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert expected in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_measuring_runs_what_is_missing_and_judges_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHBENCH_FORCE", "1")
    path = claims_file(
        tmp_path,
        entry(
            "latency_median(mlp_probe) < latency_median(lenet5) * 1000",
            kind="measured",
            more="    where: [batch_size == 1]\n",
        ),
    )
    before = archbench.claims(file=path)[0]
    assert before.commands == ["archbench run mlp_probe lenet5 --batch-size 1"]
    after = archbench.claims(file=path, measure="60s")[0]
    assert after.verdict == "confirmed"
    assert "results/" not in before.why


def test_a_report_has_a_section_of_what_its_run_can_judge():
    text = archbench.report(RUN)
    section = text.partition("## Folklore")[2].partition("\n## ")[0]
    assert "003.26" in section
    assert "confirmed" in section
    assert "train_loss" not in section
