"""Which networks the installed torchvision and timm define, read from their source files.

Importing them would cost five seconds, and a list shipped with archbench would be wrong for every version but one.
Both libraries mark each network with a decorator on the line above its definition, which a search finds in 0.1 s.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

Library = Literal["torchvision", "timm"]
LIBRARIES: tuple[Library, ...] = get_args(Library)

_DEFINITION = re.compile(r"^@register_model(?:\(\))?\s*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)

# Files that are called otherwise than the family they hold.
_FAMILIES = {
    "vision_transformer": "vit",
    "swin_transformer": "swin",
    "swin_transformer_v2": "swin",
    "inception_v3": "inception",
    "inception_v4": "inception",
    "inception_resnet_v2": "inception",
    "googlenet": "inception",
    "mobilenetv2": "mobilenet",
    "mobilenetv3": "mobilenet",
}
# Families that share a file with the one they grew from.
_PREFIXES = {"resnext": "resnext", "wide_resnet": "wideresnet", "seresnet": "senet", "seresnext": "senet"}


@functools.cache
def families_by_name(library: Library) -> Mapping[str, str]:
    """Every classification network of the installed `library`, with its family: one lower-case word.

    Empty where the library is not installed, or is installed without its sources.
    """
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        return MappingProxyType({})
    found: dict[str, str] = {}
    for file in sorted((Path(spec.origin).parent / "models").glob("*.py")):
        family = _FAMILIES.get(file.stem, file.stem.replace("_", ""))
        for name in _DEFINITION.findall(file.read_text(encoding="utf-8")):
            found[name] = next((own for prefix, own in _PREFIXES.items() if name.startswith(prefix)), family)
    return MappingProxyType(found)
