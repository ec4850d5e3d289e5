"""Which batch fits into a memory: by the model, by trying, and the model held against the tries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import archbench
from archbench.analyze.memory import predict_cell
from archbench.cli import main
from archbench.known import NARROW, found_edge
from archbench.model.cell import Cell, Network

MIB = 2**20


@given(predicted=st.integers(0, 5000), real=st.integers(0, 9000))
def test_the_edge_is_found_from_any_guess(predicted: int, real: int) -> None:
    tried = []

    def peak(batch: int) -> int | None:
        tried.append(batch)
        return batch * MIB if batch <= real else None

    edge = found_edge(predicted, peak)
    assert len(tried) == len(set(tried)) == edge.tries <= 24
    assert edge.ran <= real
    assert edge.failed is None or edge.failed > real
    if edge.failed is None:
        assert edge.ran >= min(real, 2 * predicted) / 2
    else:
        assert edge.failed - edge.ran <= max(1, round(predicted * NARROW))
    assert edge.peak_bytes == (edge.ran * MIB if edge.ran else None)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["inference", "training"])
def test_the_largest_batch_fits_and_one_more_does_not(phase: str) -> None:
    found = archbench.fits("resnet20_cifar", memory="64MiB", phase=phase)
    model = predict_cell(Cell(network=Network(name="resnet20_cifar"), batch_size=1, phase=phase))  # type: ignore[arg-type]
    assert found.peak_bytes == model.peak_bytes(found.largest_batch) <= 64 * MIB
    assert found.next_peak_bytes == model.peak_bytes(found.largest_batch + 1) > 64 * MIB
    assert archbench.fits("resnet20_cifar", memory=64 * MIB, phase=phase, device="cpu") == found


def test_nothing_fits_into_a_kilobyte(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fits", "lenet5", "--memory", "1KiB"])
    assert "predicted: not even one image; one more takes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lenet5", "--memory", "8"), "--memory 8: 8 of what? it is a size in bytes; write 8MiB or 8GiB"),
        (("lenet5", "--memory", "8G"), "write 8GiB or 8GB"),
        (("lenet5", "--memory", "0MiB"), "must be a size of memory"),
        (("lenet5", "--memory", "-1MiB"), "must be a size of memory"),
        (("lenet5", "--memory", "1MiB", "--precision", "fp32,bf16"), "these options name 2 cells; give one value each"),
        (("lenett", "--memory", "1MiB"), "did you mean lenet5"),
        (("lenet5", "--memory", "900TiB", "--verify"), "--verify takes the"),
    ],
)
def test_mistakes_are_one_line(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fits", *words])
    assert caught.value.code in (2, 3)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["inference", "training"])
def test_real_steps_agree_with_the_model(phase: str) -> None:
    found = archbench.fits("resnet18", memory="768MiB", phase=phase, verify=True)
    assert found.edge is not None
    assert found.edge.ran == pytest.approx(found.largest_batch, rel=0.1)
    assert found.edge.peak_bytes is not None
    model = predict_cell(Cell(network=Network(name="resnet18"), batch_size=1, phase=phase))  # type: ignore[arg-type]
    assert found.edge.peak_bytes == pytest.approx(model.peak_bytes(found.edge.ran), rel=0.02)


def test_what_a_network_takes_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    square, wide = (
        archbench.fits("resnet20_cifar", memory="64MiB", inputs=sides, device="cpu").largest_batch
        for sides in ("3x32x32", "3x32x64")
    )
    assert square == pytest.approx(2 * wide, rel=0.02)
    with pytest.raises(SystemExit):
        main(["fits", "resnet20_cifar", "--memory", "64MiB", "--inputs", "3x32x64", "--device", "cpu"])
    assert f"predicted: {wide:,} images" in capsys.readouterr().out
