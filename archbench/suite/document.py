"""A suite file's text turned into plain values, with the line and column of each kept for error messages.

`yaml.load` is not used: it takes duplicate keys in silence, reads `off` as false, `010` as 8 and `1:30` as 90, and
forgets positions. PyYAML's composer gives a node tree; the meaning of its scalars (YAML 1.2 core schema, less what
two readers could understand differently) is decided here.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from archbench.model.errors import UsageError, did_you_mean

ValuePath = tuple[str | int, ...]
"""The way from the top of the document to a value: keys of mappings and indexes of lists."""

MAX_BYTES = 1 << 20
"""A suite is written by hand; a file above 1 MiB is something else, named by mistake."""
MAX_DEPTH = 20
"""The grammar needs seven levels; a limit keeps `[[[[...` from exhausting the stack."""
MAX_DIGITS = 18

_WORDS: dict[str, bool | None] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_REFUSED = {
    r"[-+]?0([0-9_]+|o[0-7_]+|x[0-9a-fA-F_]+|b[01_]+)": "reads as octal, hexadecimal or decimal; "
    "write it in decimal without leading zeros",
    r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?": "reads as base 60 or as text; write a plain number, or quote the text",
    r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)": "is not a finite number; write one, or leave the key out",
}
"""What two readers of YAML would take differently, or no measurement can be."""

_SYNTAX_REMEDIES = {
    "'\\t'": "indent with spaces, not tabs",
    "while scanning an alias": "quote a pattern that begins with *",
    "mapping values are not allowed": "check the indentation, and quote text that contains ': '",
    "cannot start any token": "quote the text",
    "block end": "check the indentation and the brackets",
    "',' or": "close the bracket, or put a comma between the items",
    "expected ':'": "write 'key: value'",
    "quoted scalar": "close the quotation mark",
}


class Document:
    """A parsed file: `value` holds plain dicts, lists and scalars; `error` makes the message for a place in `text`."""

    def __init__(self, file: str, text: str, root: yaml.Node) -> None:
        self.file = file
        self.text = text
        self._root = root
        self.value = self._plain(root)

    def error(self, path: ValuePath, what: str, *, at_key: bool = False, offset: int = 0) -> UsageError:
        """Return `file:line:column: what` for the value at `path`, or for its key with `at_key`.

        `offset` counts characters into the value's text; it is used where that stands in the file as it is.
        """
        node, mark = self._place(path, at_key)
        return _located(self.file, mark, what, _offset_in_file(node, offset) if offset else 0)

    def _place(self, path: ValuePath, at_key: bool) -> tuple[yaml.Node, yaml.Mark]:
        """Where `path` leads and begins. An index into what is no list stays put: a lone value is a list of one."""
        node, mark = self._root, self._root.start_mark
        for step in path:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == step), None)
                if pair is not None:
                    node = pair[1]
                    empty = isinstance(node, yaml.ScalarNode) and node.value == "" and node.style is None
                    mark = pair[0].start_mark if at_key or empty else node.start_mark
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
                mark = node.start_mark
        return node, mark

    def _plain(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item) for item in node.value]
        assert isinstance(node, yaml.ScalarNode)
        if node.style is not None:  # quoted or a block: always text
            if any("\ud800" <= char <= "\udfff" for char in node.value):
                raise _located(self.file, node.start_mark, "half a character (a surrogate) is escaped; write it whole")
            return node.value
        try:
            return _scalar(node.value)
        except ValueError as error:
            raise _located(self.file, node.start_mark, str(error)) from None

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        first_lines: dict[str, int] = {}
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._plain(key_node)
            if not isinstance(key, str):
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "of a mapping"
                raise _located(self.file, key_node.start_mark, f"the key {shown} is not text; quote it, or name a key")
            if key in values:
                what = f"the key {key!r} stands twice, first in line {first_lines[key]}; keep one of them"
                raise _located(self.file, key_node.start_mark, what)
            first_lines[key] = key_node.start_mark.line + 1
            values[key] = self._plain(value_node)
        return values


def read_document(path: str | Path) -> Document:
    """Read and parse one file. Raises `UsageError` for what is missing, no text, no YAML, empty, or no mapping."""
    return parse_document(read_text(path), str(path))


def parse_document(text: str, file: str) -> Document:
    """Parse the text of a file of this name; errors as of `read_document`."""
    try:
        root = _PlainComposer(text, file).get_single_node()
    except ReaderError as error:
        # PyYAML says which character it was by its number in the text only.
        line, column = text.count("\n", 0, error.position) + 1, error.position - text.rfind("\n", 0, error.position)
        raise UsageError(f"{file}:{line}:{column}: a control character; remove it") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(file, error) from None
    if root is None:
        raise UsageError(f"{file}:1:1: the file is empty; a suite needs at least 'suite: NAME' and 'architectures:'")
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single word or sentence"
        what = f"a suite is a mapping of keys to values, and this file holds {kind}; begin with 'suite: NAME'"
        raise _located(file, root.start_mark, what)
    return Document(file, text, root)


def read_text(path: str | Path) -> str:
    """A small file's text. Raises `UsageError` for what is missing, a directory, too large, or no UTF-8."""
    path, file = Path(path), str(path)
    try:
        if path.is_dir():
            example = next((str(p) for p in sorted(path.glob("*.yaml"))), None)
            remedy = f"name a file in it, such as {example}" if example else "name a suite file"
            raise UsageError(f"{file}: this is a directory; {remedy}")
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{file}: larger than 1 MiB, which no suite is; name a suite file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file{_near_files(path)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{file}: cannot be read ({reason}); check the path and its permissions") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        byte = data[error.start]
        raise UsageError(f"{file}:{line}:{column}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None


def _near_files(path: Path) -> str:
    folders = (path.parent, Path("suites"))
    known = {str(found) for folder in folders if folder.is_dir() for found in folder.glob("*.y*ml")}
    by_name = {Path(name).name: name for name in known} | {Path(name).stem: name for name in known}
    hint = did_you_mean(str(path), known, limit=1)
    if not hint and path.name in by_name:
        hint = f"; did you mean {by_name[path.name]}?"
    return hint or "; name a suite file, such as suites/smoke.yaml"


class _PlainComposer(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's composer with implicit types off, refusing anchors, aliases and tags."""

    def __init__(self, text: str, file: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._file = file
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            what = "anchors, aliases and merge keys (&, *, <<) are not part of a suite"
            remedy = "write the values out, and quote a pattern that begins with *"
            raise _located(self._file, event.start_mark, f"{what}; {remedy}")
        if event.tag is not None:
            what = f"tags ({event.tag}) are not part of a suite; remove it, and quote what is meant as text"
            raise _located(self._file, event.start_mark, what)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _located(self._file, event.start_mark, f"nested deeper than {MAX_DEPTH} levels; no suite needs that")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _scalar(text: str) -> bool | int | float | str | None:
    """What an unquoted word means. Raises `ValueError` for one that two readers of YAML would take differently."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"the number {text[:12]}... has {len(text)} digits; write one that means something")
        return int(text)
    for pattern, why in _REFUSED.items():
        if re.fullmatch(pattern, text):
            raise ValueError(f"{text} {why}")
    if _REAL.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(f"{text} is too large for a number; write a finite one")
        return number
    return text


def _syntax_error(file: str, error: yaml.MarkedYAMLError) -> UsageError:
    # What was never closed is found far below; the place to mend is where it opens.
    unclosed = "quoted scalar" in (error.context or "") or "parsing a flow" in (error.context or "")
    mark = error.context_mark if unclosed else error.problem_mark or error.context_mark
    words = " ".join(f"{error.context or ''} {error.problem or ''}".split())
    if "single document" in words:
        return _located(file, mark, "a second document begins here; a suite is one document, remove the '---'")
    remedy = next((r for sign, r in _SYNTAX_REMEDIES.items() if sign in words), "check indentation, brackets, quotes")
    return _located(file, mark, f"not YAML ({words}); {remedy}")


def _located(file: str, mark: yaml.Mark | None, what: str, offset: int = 0) -> UsageError:
    line, column = (mark.line + 1, mark.column + 1 + offset) if mark is not None else (1, 1)
    return UsageError(f"{file}:{line}:{column}: {what}")


def _offset_in_file(node: yaml.Node, offset: int) -> int:
    """`offset` into a scalar's text as columns from where the scalar begins; 0 where it is folded or has escapes."""
    start, end = node.start_mark, node.end_mark
    if not isinstance(node, yaml.ScalarNode) or start.buffer is None or start.line != end.line:
        return 0
    quote = 0 if node.style is None else 1
    source = start.buffer[start.pointer : end.pointer]
    return offset + quote if source[quote : len(source) - quote] == node.value else 0
