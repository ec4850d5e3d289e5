"""One cell from the words that a command line names it by, written as its id is."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from archbench.model.axes import DeviceKind, Scalar
from archbench.model.cell import Cell
from archbench.model.errors import UsageError, did_you_mean
from archbench.model.suite import AXES
from archbench.suite import suite_from_entry
from archbench.suite.expand import expand
from archbench.suite.support import unsupported

_OWN = ("num_classes", "in_channels", "head", "input_size")
"""What a label's brackets may hold besides the network's own options."""
_LABEL = re.compile(r"(?P<name>[^\[\]]+)(\[(?P<inside>[^\[\]]*)\])?")


def parse_cell(text: str, device: DeviceKind, *, allow_code: bool = False) -> Cell:
    """The cell that `resnet50@batch_size=1,precision=amp-bf16` means on a device; what it leaves out has its default.

    The whole id of a stored cell is understood too, brackets included. Raises `UsageError`, quoting the text, for what
    names no cell or one of another device, and for one that cannot be what it says on this device.
    """
    label, _, rest = text.strip().rpartition("@") if "@" in text else (text.strip(), "", "")
    found = _LABEL.fullmatch(label)
    if found is None:
        raise UsageError(f"{text!r} is no cell; write for example resnet50@batch_size=1,precision=amp-bf16")
    values = _conditions(rest, text)
    wanted = values.pop("device", device)
    if wanted != device:
        raise UsageError(f"{text!r}: is a cell of {wanted}, and this duel is on {device}; see --device")
    for key in values:
        if key not in AXES:
            raise UsageError(
                f"{text!r}: unknown key {key!r}{did_you_mean(key, AXES) or '; the keys are ' + ', '.join(AXES)}"
            )
    entry: dict[str, Any] = {"name": found["name"]}
    for key, value in _conditions(found["inside"] or "", text).items():
        if key in _OWN:
            entry[key] = _scalar(value)
        else:
            entry.setdefault("options", {})[key] = _scalar(value)
    axes = {key: [_scalar(value)] for key, value in values.items()}
    try:
        (cell,) = expand(suite_from_entry(entry, axes, allow_code=allow_code), device)
    except UsageError as error:
        raise UsageError(f"{text!r}: {error}") from None
    reason = unsupported(cell)
    if reason is not None:
        raise UsageError(f"{text!r}: {reason}")
    return cell


def _conditions(text: str, whole: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in text.split(",") if text else ():
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not value:
            raise UsageError(f"{whole!r}: {word!r} is not KEY=VALUE; write for example resnet50@batch_size=1")
        if key in found:
            raise UsageError(f"{whole!r}: gives {key} twice")
        found[key] = value
    return found


def _scalar(text: str) -> Scalar:
    """A value as labels print it: JSON where it is a number, a flag or null, else the text itself."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value if isinstance(value, (bool, int, float)) or value is None else text
