"""What the figures leave out, where the accuracies come from, and how to get the figures again."""

from __future__ import annotations

import shlex

from archbench.model.cell import is_user_code
from archbench.rendering.content import Block, Bullets, Code, Fold, Paragraph, Section, Table
from archbench.rendering.run_data import RunData

_SHORT_LIST = 6
_SCOPE = [
    (
        "Not in any time: reading, decoding and augmenting images, and copies from host to device. Inputs are random "
        "numbers that lie on the device. The first call is kept apart (`first_call_s`)."
    ),
    "Weights are random: they change neither the work nor the memory, and outputs are never judged for accuracy.",
    "GMACs are multiply-accumulates of one forward pass of one image (FLOP = 2 x MAC).",
    "p95 is withheld where the samples are too few to support it.",
    "`-` is not measured or not known; it is never zero.",
]
_TRAINING = (
    "A training step is the forward pass, cross-entropy loss, the backward pass and a step of SGD with momentum, "
    "with gradients cleared; amp-fp16 adds loss scaling."
)


def scope(run: RunData) -> Section:
    """What is and what is not in the figures."""
    training = [_TRAINING] if any(one.phase == "training" for one in run.cells) else []
    return Section(title="What is not included", blocks=(Bullets((*training, *_SCOPE)),))


def accuracy(run: RunData) -> Section | None:
    """The origin of every published accuracy; `None` where no network has one."""
    by_source: dict[str, dict[str, None]] = {}
    for one in run.cells:
        if one.top1 is not None:
            by_source.setdefault(one.accuracy_source or "source not recorded", {})[one.network] = None
    if not by_source:
        return None
    rows = tuple((source, ", ".join(sorted(networks))) for source, networks in sorted(by_source.items()))
    table: Block = Table(headings=("Weights and protocol", "Networks"), rows=rows)
    if len(rows) > _SHORT_LIST:
        table = Fold(summary=f"{len(rows)} sources", blocks=(table,))
    note = Paragraph(
        "Top-1 is what was published for the weights named here, on ImageNet; it was not measured. "
        "Accuracies of different recipes or image sizes are not on one scale."
    )
    return Section(title="Where the accuracies come from", blocks=(note, table))


def reproduce(run: RunData) -> Section:
    """The one command, and what it leaves behind."""
    command = ["archbench", "run", "suite.yaml", "--device", run.environment.device]
    if any(is_user_code(network.name) for network in run.suite.architectures):
        command.append("--allow-code")
    note = Paragraph(
        f"This is run `{run.run_id}`. Its directory holds the suite as run, the machine's description and every row "
        "(`archbench.load` reads them). There:"
    )
    return Section(title="Measure it again", blocks=(note, Code(shlex.join(command))))
