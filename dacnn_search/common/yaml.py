"""YAML 1.2 with line numbers, read safely and within bounds.

A file may hold what JSON may hold: mappings with string keys, lists, strings, whole numbers, finite floats,
booleans, null. Anchors, aliases, tags and duplicate keys are refused. Words without quotes get their type from
the core schema of YAML 1.2 (section 10.3.2): `no`, `12:30`, `1_000` and `2024-01-01` are strings, `1e-3` is a
float.

The bounds are checked as the events of `ruamel.yaml`'s parser arrive, so a hostile file costs no more than a moment.
"""

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import SafeRepresenter

from dacnn_search.common.errors import YamlError

MAX_BYTES = 2**20
MAX_LINES = 50_000
MAX_NODES = 20_000  # mappings, lists and scalars, keys included
MAX_DEPTH = 32  # of mappings and lists in one another
MAX_DIGITS = 100  # of a whole number
MAX_PROBLEMS = 20  # reported at once

KeyPath = tuple[str | int, ...]

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """The data of a YAML file and the line of each part."""

    path: Path
    data: Any  # dict, list, str, int, float, bool, None
    lines: Mapping[KeyPath, int]  # line from 1 of a mapping's key or of a list's item; () is the whole
    text: str  # as it was read
    problems: Sequence[tuple[int, str]]  # (line, rule) of what breaks a rule without ending the reading

    def line(self, path: KeyPath) -> int:
        """Return the line, from 1, of the part at `path`, e.g. ("layers", 0), or of the nearest part around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(path: Path) -> Document:
    """Read one YAML document, whose `problems` the caller tells with those that it finds itself.

    Raises YamlError where reading can't go on: one line `file:line: rule and value` per problem, this one last.
    """
    text = _read_text(path)
    builder = _Builder(path, text)
    try:
        data = builder.document()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parts = [" ".join(part.split()) for part in (error.context, error.problem) if part]
        builder.stop(f"not valid YAML: {', '.join(parts)}", mark.line + 1 if mark else builder.line)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        builder.stop(f"control characters must be escaped, but U+{ord(text[error.position]):04X} is not", line)
    except (YAMLError, ValueError, OverflowError, AssertionError) as error:  # for odd escapes and versions
        builder.stop(f"not valid YAML: {error}")
    return Document(path, data, builder.lines, text, builder.problems)


def dump_yaml(data: Any) -> str:
    """Return `data`, whose keys are text, as YAML that `read_yaml` reads back: block style, keys in their order.

    Raises ValueError for a float that is not finite and TypeError for a type JSON lacks.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # keys in their order
    yaml.width = MAX_BYTES  # no folding of long strings
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    copy = json.loads(json.dumps(data, allow_nan=False))  # without shared parts, for which ruamel writes aliases
    yaml.dump(copy, stream)
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
        byte = f"0x{content[error.start]:02x}"
        raise YamlError(f"{path}:{line}: text must be UTF-8, but has the byte {byte}") from error
    lines = text.count("\n") + 1
    if lines > MAX_LINES:
        raise YamlError(f"{path}: a file may have at most {MAX_LINES:,} lines, but has {lines:,}")
    return text


class _Builder:
    """Builds the data from the parser's events, by recursion that MAX_DEPTH bounds, and collects the problems."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[tuple[int, str]] = []
        self.line = 1  # of the latest event
        self._events = self._count_lines(YAML(typ="safe", pure=True).parse(text))
        self._nodes = 0

    def document(self) -> Any:
        """Return the data of the only document in the text; null if there is none."""
        data, documents = None, 0
        for event in self._events:
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.stop("a file must hold one document, but a second one begins here")
            elif isinstance(event, events.NodeEvent):
                data = self._value(event, ())
        return data

    def stop(self, rule: str, line: int | None = None) -> NoReturn:
        """Raise YamlError with the problems so far and this one, by default of the latest event."""
        problems = [*self.problems, (line or self.line, rule)]
        raise YamlError("\n".join(f"{self.file}:{line}: {rule}" for line, rule in problems))

    def _count_lines(self, parsed: Iterator[events.Event]) -> Iterator[Any]:
        for event in parsed:
            self.line = event.start_mark.line + 1
            yield event

    def _report(self, rule: str) -> None:
        self.problems.append((self.line, rule))
        if len(self.problems) == MAX_PROBLEMS:
            self.stop(f"reading stopped here, after {MAX_PROBLEMS} problems")

    def _value(self, event: events.Event, path: KeyPath) -> Any:
        self.lines.setdefault(path, self.line)  # a value may begin below its key, whose line is set already
        if not isinstance(event, events.CollectionStartEvent):
            return self._scalar(event)
        self._check(event)
        if len(path) == MAX_DEPTH:
            self.stop(f"mappings and lists may be nested {MAX_DEPTH} deep, but these are deeper")
        if isinstance(event, events.MappingStartEvent):
            return self._mapping(path)
        items: list[Any] = []
        while not isinstance(event := next(self._events), events.CollectionEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), events.CollectionEndEvent):
            if isinstance(event, events.CollectionStartEvent):
                self.stop("keys must be strings, but this one is a mapping or a list")
            key = self._scalar(event)
            if not isinstance(key, str):
                self._report(f"keys must be strings, but this one is {_short(event.value) or 'empty'} without quotes")
                key = event.value
            if key in values:
                self._report(f"keys must differ, but {_short(key)} is already on line {self.lines[*path, key]}")
            self.lines.setdefault((*path, key), self.line)
            values[key] = self._value(next(self._events), (*path, key))
        return values

    def _scalar(self, event: Any) -> Any:
        self._check(event)
        if isinstance(event, events.AliasEvent):
            return f"*{event.anchor}"
        try:
            event.value.encode()
            return _plain(event.value) if event.implicit[0] else event.value  # not implicit: quoted, or a block
        except UnicodeEncodeError:
            self._report("text must be Unicode, but this has half of a surrogate pair")
        except ValueError as error:
            self._report(str(error))
        return None

    def _check(self, event: Any) -> None:
        """Count the node and report an alias, an anchor or a tag."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self.stop(f"a file may have at most {MAX_NODES:,} values and keys, but this has more")
        if isinstance(event, events.AliasEvent):
            self._report(f"aliases are not supported: write the value out instead of *{_short(event.anchor)}")
        elif event.anchor is not None:
            self._report(f"anchors are not supported: leave &{_short(event.anchor)} out")
        if getattr(event, "tag", None) is not None:
            self._report(f"tags are not supported, but this value has {_short(event.tag)}")


def _plain(text: str) -> Any:
    """Return the value of a word without quotes. Raises ValueError for a number out of bounds."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"whole numbers may have at most {MAX_DIGITS} digits, but this has {len(text):,}")
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if not _FLOAT.fullmatch(text):
        return text
    if text[-1].isalpha() or math.isinf(float(text)):  # .inf, .nan, 1e999
        raise ValueError(f"numbers must be finite, but this one is {_short(text)}")
    return float(text)


def _short(text: object) -> str:
    word = str(text)
    return word if len(word) <= 60 else f"{word[:57]}..."


class _Representer(SafeRepresenter):
    """Quotes text that `read_yaml` would read as another value."""

    def represent_str(self, data: str) -> ScalarNode:
        try:
            plain = data.isprintable() and isinstance(_plain(data), str)
        except ValueError:
            plain = False
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if plain else '"')


_Representer.add_representer(str, _Representer.represent_str)
