"""YAML 1.2 with line numbers, read safely and within bounds.

What a file may hold is what JSON may hold: mappings with string keys, lists, strings, whole numbers, finite
floats, booleans, null. Anchors, aliases, tags and duplicate keys are refused. Words without quotes get their
type from the core schema of YAML 1.2 (section 10.3.2): `no`, `12:30`, `1_000` and `2024-01-01` are strings,
`1e-3` is a float.

`ruamel.yaml` turns the text into a flat stream of events; the bounds are checked while the events arrive, so
neither the depth nor the size of a hostile file costs more than a moment.
"""

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import SafeRepresenter

from dacnn_search.common.errors import YamlError

__all__ = ["Document", "dump_yaml", "parse_yaml", "read_yaml"]

MAX_BYTES = 2**20
MAX_LINES = 50_000
MAX_NODES = 20_000  # mappings, lists and scalars, keys included
MAX_DEPTH = 32  # of mappings and lists in one another
MAX_DIGITS = 100  # of a whole number
MAX_PROBLEMS = 20  # reported at once

KeyPath = tuple[str | int, ...]

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """What a YAML file holds, and where each part of it stands."""

    path: Path
    data: Any  # dict, list, str, int, float, bool, None
    lines: Mapping[KeyPath, int]  # line from 1 of a mapping's key or of a list's item; () is the whole
    text: str  # as it was read

    def line(self, path: KeyPath) -> int:
        """The line, from 1, of the part at `path`, e.g. ("layers", 0), or of the nearest part around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def where(self, path: KeyPath) -> str:
        """`file:line` of the part at `path`."""
        return f"{self.path}:{self.line(path)}"


def read_yaml(path: Path) -> Document:
    """Read one YAML document.

    Raises YamlError, one line `file:line: rule and value` per problem, all of them at once as far as the syntax
    lets the reader go on.
    """
    document, problems = parse_yaml(path)
    if problems:
        raise YamlError("\n".join(f"{path}:{line}: {rule}" for line, rule in problems))
    return document


def parse_yaml(path: Path) -> tuple[Document, list[tuple[int, str]]]:
    """Read one YAML document together with the broken rules that did not stop the reader, as (line, rule).

    For a caller that goes on to check the data and tells all problems at once. Raises YamlError as `read_yaml` does
    where reading can't go on.
    """
    text = _read_text(path)
    builder = _Builder(path)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else builder.line
        builder.stop(line, f"not valid YAML: {_syntax_problem(error)}")
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        builder.stop(line, f"control characters must be escaped, but U+{ord(text[error.position]):04X} is not")
    except (YAMLError, ValueError, OverflowError, AssertionError) as error:  # for odd escapes and versions
        builder.stop(builder.line, f"not valid YAML: {error}")
    return Document(path, builder.root, builder.lines, text), builder.problems


def dump_yaml(data: Any) -> str:
    """`data` as YAML that `read_yaml` reads back as the same: block style, keys in their order.

    Raises ValueError for a float that is not finite and ruamel's RepresenterError for a type JSON lacks.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # keys in their order
    yaml.width = MAX_BYTES  # no folding of long strings
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise YamlError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise YamlError(f"{path}: can't be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise YamlError(f"{path}: a file may have at most {MAX_BYTES:,} bytes, but has {path.stat().st_size:,}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        value = content[error.start]
        raise YamlError(f"{path}:{line}: text must be UTF-8, but has the byte 0x{value:02x}") from error
    lines = text.count("\n") + 1
    if lines > MAX_LINES:
        raise YamlError(f"{path}: a file may have at most {MAX_LINES:,} lines, but has {lines:,}")
    return text


def _syntax_problem(error: MarkedYAMLError) -> str:
    parts = [error.context, error.problem]
    return ", ".join(" ".join(part.split()) for part in parts if part)


@dataclass
class _Open:
    """A mapping or list whose end has not come yet."""

    value: dict[str, Any] | list[Any]
    path: KeyPath
    key: str | None = None  # of a mapping: the key that waits for its value


class _Builder:
    """Builds the data from one event after the other, without recursion, and collects what breaks a rule."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.root: Any = None
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[tuple[int, str]] = []
        self.line = 1  # of the latest event
        self._open: list[_Open] = []
        self._nodes = 0
        self._documents = 0

    def take(self, event: Event) -> None:
        self.line = event.start_mark.line + 1
        if isinstance(event, NodeEvent):
            self._take_node(event)
        elif isinstance(event, CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self.stop(self.line, "a file must hold one document, but a second one begins here")

    def report(self, rule: str) -> None:
        """Note that the latest event breaks a rule, and go on unless there are many."""
        self.problems.append((self.line, rule))
        if len(self.problems) == MAX_PROBLEMS:
            self.stop(self.line, f"reading stopped here, after {MAX_PROBLEMS} problems")

    def stop(self, line: int, rule: str) -> NoReturn:
        raise YamlError("\n".join(f"{self.file}:{line}: {rule}" for line, rule in [*self.problems, (line, rule)]))

    def _take_node(self, event: NodeEvent) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self.stop(self.line, f"a file may have at most {MAX_NODES:,} values and keys, but this has more")
        self._refuse_extras(event)
        parent = self._open[-1] if self._open else None
        if parent and isinstance(parent.value, dict) and parent.key is None:
            parent.key = self._key(event, parent)
            return
        if isinstance(event, ScalarEvent):
            self._place(self._scalar(event), parent)
        elif isinstance(event, AliasEvent):
            self._place(None, parent)
        else:
            value: dict[str, Any] | list[Any] = {} if isinstance(event, MappingStartEvent) else []
            self._open.append(_Open(value, self._place(value, parent)))
            if len(self._open) > MAX_DEPTH:
                self.stop(self.line, f"mappings and lists may be nested {MAX_DEPTH} deep, but these are deeper")

    def _refuse_extras(self, event: NodeEvent) -> None:
        if isinstance(event, AliasEvent):
            self.report(f"aliases are not supported: write the value out instead of *{_short(event.anchor)}")
        elif event.anchor is not None:
            self.report(f"anchors are not supported: leave &{_short(event.anchor)} out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.report(f"tags are not supported, but this value has {_short(tag)}")

    def _key(self, event: NodeEvent, parent: _Open) -> str:
        if not isinstance(event, ScalarEvent | AliasEvent):
            self.stop(self.line, "keys must be strings, but this one is a mapping or a list")
        if isinstance(event, AliasEvent):
            key = f"*{event.anchor}"
        else:
            key = self._scalar(event)
            if not isinstance(key, str):
                self.report(f"keys must be strings, but this one is {_short(event.value) or 'empty'} without quotes")
                key = event.value
        path = (*parent.path, key)
        if key in parent.value:
            self.report(f"keys must differ, but {_short(key)} is already on line {self.lines[path]}")
        self.lines.setdefault(path, self.line)
        return key

    def _place(self, value: Any, parent: _Open | None) -> KeyPath:
        if parent is None:
            path: KeyPath = ()
            self.root = value
        elif isinstance(parent.value, list):
            path = (*parent.path, len(parent.value))
            parent.value.append(value)
        else:
            assert parent.key is not None
            path = (*parent.path, parent.key)
            parent.value[parent.key] = value
            parent.key = None
        self.lines.setdefault(path, self.line)
        return path

    def _scalar(self, event: ScalarEvent) -> Any:
        text = event.value
        try:
            text.encode()
            return _plain(text) if event.implicit[0] else text  # not implicit: quoted, or a block of text
        except UnicodeEncodeError:
            self.report("text must be Unicode, but this has half of a surrogate pair")
        except ValueError as error:
            self.report(str(error))
        return None


def _plain(text: str) -> Any:
    """The value of a word without quotes; raise ValueError for a number out of bounds."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    based = _BASED.fullmatch(text)
    if based or _INTEGER.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"whole numbers may have at most {MAX_DIGITS} digits, but this has {len(text):,}")
        return int(text, 0 if based else 10)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isfinite(value):
            return value
    elif not _NOT_FINITE.fullmatch(text):
        return text
    raise ValueError(f"numbers must be finite, but this one is {_short(text)}")


def _short(text: object) -> str:
    word = str(text)
    return word if len(word) <= 60 else f"{word[:57]}..."


class _Representer(SafeRepresenter):
    """Writes what `read_yaml` reads: no aliases, finite floats, quotes where plain text would change."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> ScalarNode:
        try:
            plain = data.isprintable() and isinstance(_plain(data), str)
        except ValueError:
            plain = False
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if plain else '"')

    def represent_float(self, data: float) -> ScalarNode:
        if not math.isfinite(data):
            raise ValueError(f"numbers must be finite, but this one is {data}")
        return self.represent_scalar("tag:yaml.org,2002:float", repr(data))


_Representer.add_representer(str, _Representer.represent_str)
_Representer.add_representer(float, _Representer.represent_float)
