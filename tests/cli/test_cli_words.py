"""Mistyped words of a command: one clear line with what was meant, exit 2, in the style of every other error."""

from __future__ import annotations

import pytest

from archbench.cli import main


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "resnet50", "--amp"], "run: no option --amp; did you mean --precision amp-bf16?"),
        (["run", "resnet50", "--batchsize", "8"], "run: no option --batchsize; did you mean --batch-size?"),
        (["run", "resnet50", "--batch_size=8"], "run: no option --batch_size; did you mean --batch-size?"),
        (["run", "resnet50", "--bs", "8"], "run: no option --bs; did you mean --batch-size?"),
        (["run", "resnet50", "--nhwc"], "run: no option --nhwc; did you mean --memory-format channels_last?"),
        (["profile", "resnet50", "--backward"], "profile: no option --backward; did you mean --phase training?"),
        (["run", "resnet50", "--gpu"], "run: no option --gpu; did you mean --device cuda?"),
        (["pick", "x", "--minimise", "macs"], "pick: no option --minimise; did you mean --minimize?"),
        (["pick", "x", "--qqq"], "pick: no option --qqq; `archbench pick --help` lists them"),
        (["rnu", "resnet50"], "no command rnu; did you mean run?"),
        (["benchmark"], "no command benchmark; `archbench --help` lists them"),
        (["--verison"], "no option --verison; did you mean --version?"),
        (["run"], "run: missing argument 'SUITE_OR_NAMES...'; `archbench run --help` says more"),
        (["run", "resnet50", "--batch-size"], "run: option '--batch-size' requires an argument"),
        (["pick", "x", "--top", "0"], "pick: invalid value for '--top'"),
        (["show", "resnet50", "vgg16"], "show: got unexpected extra argument"),
    ],
)
def test_a_mistake_is_one_line_with_what_was_meant(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(words)
    said = capsys.readouterr()
    assert exited.value.code == 2
    assert said.out == ""
    assert said.err.startswith(f"archbench: {says}")
    assert said.err.count("\n") == 1


def test_without_a_word_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main([])
    said = capsys.readouterr()
    assert exited.value.code == 2
    assert "Commands:" in said.out + said.err
    with pytest.raises(SystemExit) as fine:
        main(["--help"])
    assert not fine.value.code
