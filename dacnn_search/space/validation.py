"""Mistakes in YAML files: all of a file at once, each with its line, its key, the rule and the value."""

import difflib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from dacnn_search.common.errors import SpaceError
from dacnn_search.common.yaml import Document, parse_yaml
from dacnn_search.data.dataset import DataConfig
from dacnn_search.space.settings import Bounds, Maximum, Settings

__all__ = ["check_data", "raise_problems", "read_settings", "validate"]


def read_settings(path: Path | str, model: type[Settings]) -> tuple[Any, Document]:
    """Read a YAML file as `model`, with the document for messages that need its lines.

    Raises YamlError if it can't be read, SpaceError with a line per mistake (`file:line: key: rule and value`).
    """
    document, problems = parse_yaml(Path(path))
    values, found = validate(document.data, model)
    problems += [(document.line(where), message) for where, message in found]
    raise_problems(document, problems)
    return model.model_construct(**values), document


def raise_problems(document: Document, problems: Sequence[tuple[int, str]]) -> None:
    """Raise SpaceError with one `file:line: message` per problem, in the order of lines, if there are any."""
    if problems:
        raise SpaceError("\n".join(f"{document.path}:{line}: {message}" for line, message in sorted(set(problems))))


def validate(data: Any, model: type[Settings]) -> tuple[dict[str, Any], list[tuple[tuple[str | int, ...], str]]]:
    """The parts of `data` that are valid, by key, and all mistakes as (path in the data, message).

    Each part is validated on its own, so that a mistake in one does not hide those in another.
    """
    if not isinstance(data, dict):
        return {}, [((), f"the file must be a mapping, but is {_short(data)}")]
    values: dict[str, Any] = {}
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for key in data.keys() - model.model_fields.keys():
        problems.append(((key,), _unknown(key, model.model_fields)))
    for key, field in model.model_fields.items():
        if key not in data:
            if field.is_required():
                problems.append(((), f"{key} is missing"))
            else:
                values[key] = field.get_default(call_default_factory=True)
            continue
        try:
            values[key] = _adapter(model, key).validate_json(json.dumps(data[key]))
        except ValidationError as error:
            problems += [_problem(data, model, key, e) for e in error.errors()]
        except Exception as error:  # from our own validators, such as ArchitectureError
            problems.append(((key,), f"{key}: {error}"))
    return values, problems


def _adapter(model: type[Settings], key: str) -> TypeAdapter[Any]:
    field = model.model_fields[key]
    kind: Any = field.annotation
    return TypeAdapter(Annotated[kind, *field.metadata] if field.metadata else kind)


def _problem(data: Any, model: type[Settings], key: str, error: Any) -> tuple[tuple[str | int, ...], str]:
    """One pydantic error as (path, message). Its `loc` also holds names of union members, which are no keys."""
    path: list[str | int] = [key]
    node = data[key]
    for item in error["loc"]:
        if (isinstance(node, dict) and item in node) or (
            isinstance(node, list) and isinstance(item, int) and item < len(node)
        ):
            node = node[item]
        elif error["type"] != "missing" or item != error["loc"][-1]:
            continue
        path.append(item)
    dotted = ".".join(str(item) for item in path)
    if error["type"] == "missing":
        return tuple(path[:-1]), f"{dotted} is missing"
    if error["type"] == "extra_forbidden":
        known = _known_keys(model).get(str(path[-2]), ())
        return tuple(path), f"{'.'.join(map(str, path[:-1]))}: {_unknown(str(path[-1]), known)}"
    if error.get("ctx", {}).get("class_name") == Maximum.__name__:
        return tuple(path), f"{dotted}: must be {{max: ...}}, such as {{max: 50k}}, but is {_short(error['input'])}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, but is {_short(error['input'])}"
    return tuple(path), f"{dotted}: {message.replace('input should be', 'must be')}"


def _known_keys(model: type[Settings]) -> dict[str, Iterable[str]]:
    """What may stand below each key."""
    parts = {key: field.annotation for key, field in model.model_fields.items()}
    known: dict[str, Iterable[str]] = {
        key: part.model_fields for key, part in parts.items() if isinstance(part, type) and issubclass(part, BaseModel)
    }
    return known | {
        "range": Bounds.model_fields,
        "parameters": Maximum.model_fields,
        "macs": Maximum.model_fields,
    }


def _unknown(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def check_data(values: dict[str, Any]) -> DataConfig:
    """The data that these values, given somewhere else than in a file, describe. Raises SpaceError."""
    valid, problems = validate({"data": values}, _DataSettings)
    if problems:
        raise SpaceError("\n".join(message for _, message in problems))
    config: DataConfig = valid["data"]
    return config


class _DataSettings(Settings):
    data: DataConfig
