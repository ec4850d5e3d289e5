"""All that is known of one network without timing it: from the catalogue's tables, or by counting it here and now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import msgspec
from msgspec.structs import asdict

from archbench.catalog import Counted, resolve
from archbench.catalog.card import Card, card, stored
from archbench.model.axes import PHASES, Head, Scalar
from archbench.model.cell import Cell, Network
from archbench.model.counts import SecondOpinion
from archbench.model.errors import UnfitError, UsageError
from archbench.options import ShowOptions, keywords, several
from archbench.suite import suite_from_names

_SECOND_COUNT_LIMIT_BYTES = 2**30
"""Heavier networks are not put into memory for a second count unless that is asked for."""


class Shown(Card, frozen=True, kw_only=True):
    """A network's card, and what is known only of a network that was built."""

    batch_size: int | None = None
    """For which memory is predicted."""
    predicted_inference_peak_bytes: int | None = None
    """Live tensor bytes of one fp32 step on the CPU, weights and input included."""
    predicted_training_peak_bytes: int | None = None
    unpredicted: str | None = None
    """Why a prediction is missing."""
    second_opinion: SecondOpinion | None = None
    no_second_opinion: str | None = None
    """Why there is none, where one was asked for."""


@keywords(ShowOptions)
def show(name: str, options: ShowOptions) -> Shown:
    """All that is known of one network without timing it, each figure with its source.

    - `name`: of the catalogue, `torchvision:NAME`, `timm:NAME` or `module:function`.
    - `input_size`: side of the image, pixels, or `"640x480"` (height first); `inputs`: what it takes, as in a suite or
      as `"3x224x160+ids=77/int64/0..30000"`; `in_channels`: its channels; `num_classes`; `head`: `classifier`,
      `none` for the last map, `features` for those that a detector reads; `deploy`: folded for inference; `option`:
      options of the network, `{"aux_logits": True}` or `"aux_logits=true"`.
    - `batch_size`: predict memory at this many images; `build`: build it, for a second counter's opinion.

    A network that no table knows, or whose memory is asked for, is built on tensors without data. Raises `UsageError`.
    """
    if options.head not in get_args(Head):
        raise UsageError(f"--head {options.head}: must be {' or '.join(get_args(Head))}")
    entry = resolve(name, allow_code=options.allow_code)
    option, size = options.option, options.input_size
    texts: list[str] = [] if isinstance(option, Mapping) else several(option)
    said = {
        "options": dict(option) if isinstance(option, Mapping) else dict(map(_option, texts)),
        "num_classes": options.num_classes,
        "in_channels": options.in_channels,
        "head": options.head,
        "deploy": options.deploy or None,
        "input_size": int(str(size)) if str(size).isdecimal() else size,
        "inputs": options.inputs,
    }
    common = {key: value for key, value in said.items() if value not in (None, {})}
    (network,) = suite_from_names([name], common=common, allow_code=options.allow_code).architectures
    if options.build or options.batch_size is not None or stored(network) is None:
        batch = options.batch_size or 1
        return _built(network, batch, even_if_heavy=options.build, allow_code=options.allow_code)
    return Shown(**asdict(card(entry, network, stored(network))))


def _built(network: Network, batch_size: int, *, even_if_heavy: bool, allow_code: bool) -> Shown:
    """Count the network here and now. The only place where the parent side imports torch: nothing is timed here."""
    from archbench.analyze.counts import count, second_opinion
    from archbench.analyze.fresh import COUNTING_S, PREDICTING_S, FreshProcessError, FreshProcesses, call_apart
    from archbench.analyze.memory import predict_cell
    from archbench.catalog.build import feature_width

    entry = resolve(network.name, allow_code=allow_code)
    aside = FreshProcesses() if entry.source == "user code" else None
    try:
        counts = call_apart(aside, COUNTING_S, count, network, allow_code=allow_code)
        width = call_apart(aside, COUNTING_S, feature_width, network, allow_code=allow_code)
    except FreshProcessError as error:
        raise UsageError(f"{network.label}: cannot be counted: {error}") from None
    second, no_second = None, None
    if even_if_heavy or counts.weight_bytes <= _SECOND_COUNT_LIMIT_BYTES:
        try:
            second = call_apart(aside, COUNTING_S, second_opinion, network, counts, allow_code=allow_code)
        except (UsageError, FreshProcessError) as error:  # no reason to show nothing; likewise below
            no_second = str(error)
    peaks: dict[str, int] = {}
    unpredicted = None
    for phase in PHASES:
        cell = Cell(network=network, batch_size=batch_size, phase=phase)
        try:
            model = call_apart(aside, PREDICTING_S, predict_cell, cell, allow_code=allow_code)
            peaks[phase] = model.peak_bytes(batch_size)
        except (UnfitError, FreshProcessError) as error:
            unpredicted = unpredicted or f"memory of {phase} is not predicted: {error}"
    return Shown(
        **asdict(card(entry, network, Counted(counts=counts, feature_width=width))),
        batch_size=batch_size,
        predicted_inference_peak_bytes=peaks.get("inference"),
        predicted_training_peak_bytes=peaks.get("training"),
        unpredicted=unpredicted,
        second_opinion=second,
        no_second_opinion=no_second,
    )


def _option(text: str) -> tuple[str, Scalar]:
    """`aux_logits=true` as ("aux_logits", True): numbers, true, false and null as in a suite, all else as text."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UsageError(f"--option {text}: must be KEY=VALUE, as in --option aux_logits=true")
    try:
        return key, msgspec.json.decode(value, type=Scalar)
    except (msgspec.DecodeError, RecursionError):
        return key, value
