"""Mistakes in YAML files: all of a file at once, each with its line, its key, the rule and the value."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dacnn_search.common.errors import SpaceError
from dacnn_search.common.yaml import Document, KeyPath, parse_yaml
from dacnn_search.data.dataset import DataConfig
from dacnn_search.space.settings import Bounds, Maximum, Settings

__all__ = ["check_data", "raise_problems", "read_settings", "validate"]

Model = TypeVar("Model", bound=Settings)


def read_settings(path: Path | str, model: type[Model]) -> tuple[Model, Document]:
    """Read a YAML file as `model`, with the document for messages that need its lines.

    Raises YamlError if it can't be read, SpaceError with a line per mistake (`file:line: key: rule and value`).
    """
    document, problems = parse_yaml(Path(path))
    settings, found = validate(document.data, model)
    raise_problems(document, problems + [(document.line(where), message) for where, message in found])
    assert settings is not None
    return settings, document


def raise_problems(document: Document, problems: Sequence[tuple[int, str]]) -> None:
    """Raise SpaceError with one `file:line: message` per problem, in the order of lines, if there are any."""
    if problems:
        raise SpaceError("\n".join(f"{document.path}:{line}: {message}" for line, message in sorted(set(problems))))


def validate(data: Any, model: type[Model]) -> tuple[Model | None, list[tuple[KeyPath, str]]]:
    """Return `data` as `model` and all mistakes as (path in the data, message); None if there are mistakes."""
    if not isinstance(data, dict):
        return None, [((), f"the file must be a mapping, but is {_short(data)}")]
    try:
        return model.model_validate_json(json.dumps(data)), []
    except ValidationError as error:
        return None, [_problem(data, model, e) for e in error.errors()]


def check_data(values: dict[str, Any]) -> DataConfig:
    """Return the data that values from somewhere else than a file describe. Raises SpaceError."""
    settings, problems = validate({"data": values}, _DataSettings)
    if settings is None:
        raise SpaceError("\n".join(message for _, message in problems))
    return settings.data


class _DataSettings(Settings):
    data: DataConfig


def _problem(data: Any, model: type[Settings], error: Any) -> tuple[KeyPath, str]:
    """Return (path, message) for one of pydantic's errors."""
    path = _path_in(data, error["loc"])
    kind, value = error["type"], error["input"]
    if kind == "missing":
        return path, f"{_dotted((*path, error['loc'][-1]))} is missing"
    if kind == "extra_forbidden":
        *parent, key = path
        close = difflib.get_close_matches(str(key), _known_keys(model, parent), n=1)
        unknown = f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else "")
        return path, f"{_dotted(parent)}: {unknown}" if parent else unknown
    if error.get("ctx", {}).get("class_name") == Maximum.__name__:
        message = f"must be {{max: ...}}, such as {{max: 50k}}, but is {_short(value)}"
    elif kind == "value_error":  # from our own validators, which name the value
        message = error["msg"].removeprefix("Value error, ")
    else:
        message = f"{error['msg'][0].lower()}{error['msg'][1:]}, but is {_short(value)}"
    return path, f"{_dotted(path)}: {message.replace('input should be', 'must be')}"


def _path_in(data: Any, location: Sequence[str | int]) -> KeyPath:
    """Return the keys and indices of a pydantic location, which also holds names of union members."""
    path: list[str | int] = []
    for item in location:
        is_key = isinstance(data, dict) and item in data
        if is_key or (isinstance(data, list) and isinstance(item, int) and item < len(data)):
            data = data[item]
            path.append(item)
    return tuple(path)


def _known_keys(model: type[Settings], path: Sequence[str | int]) -> list[str]:
    """Return the keys that may stand at a path: those of the part that its last key names."""
    parts = {key: field.annotation for key, field in model.model_fields.items()}
    parts |= {"range": Bounds, "parameters": Maximum, "macs": Maximum}
    part = parts.get(str(path[-1])) if path else model
    return list(part.model_fields) if isinstance(part, type) and issubclass(part, BaseModel) else []


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
