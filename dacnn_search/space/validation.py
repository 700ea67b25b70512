"""Mistakes in YAML files: all of a file at once, each with its line, its key, the rule and the value."""

import difflib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dacnn_search.common.errors import SpaceError
from dacnn_search.common.yaml import Document, KeyPath, read_yaml
from dacnn_search.data.dataset import DataConfig
from dacnn_search.network.architecture import MOST_WIDTH, most_sections
from dacnn_search.network.cost import InputShape
from dacnn_search.space.choices import widths_of
from dacnn_search.space.settings import Bounds, Constraints, Maximum, MaximumBytes, Settings, SpaceSettings

Model = TypeVar("Model", bound=Settings)
EXAMPLES = {Maximum.__name__: "50k", MaximumBytes.__name__: "32kB"}


def read_settings(path: Path | str, model: type[Model]) -> Model:
    """Read a YAML file as `model`.

    Raises YamlError if it can't be read, SpaceError with a line per mistake (`file:line: key: rule and value`).
    """
    document = read_yaml(Path(path))
    return validate(document.data, model, document)


def validate(data: Any, model: type[Model], document: Document | None = None) -> Model:
    """Return `data`, which may be those of a document, as `model`. Raises SpaceError with a line per mistake."""
    if not isinstance(data, dict):
        raise space_error([((), f"the file must be a mapping, but is {_short(data)}")], document)
    try:
        settings = model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise space_error([_problem(data, model, e) for e in error.errors()], document) from None
    if document is not None and document.problems:
        raise space_error([], document)
    return settings


def space_error(problems: Sequence[tuple[KeyPath, str]], document: Document | None) -> SpaceError:
    """Return an error with a line per problem; of a document in the order of lines, with those of the YAML itself."""
    if document is None:
        return SpaceError("\n".join(message for _, message in problems))
    found = sorted({*document.problems, *((document.line(path), message) for path, message in problems)})
    return SpaceError("\n".join(f"{document.path}:{line}: {message}" for line, message in found))


class _DataSettings(Settings):
    data: DataConfig


def check_data(values: dict[str, Any]) -> DataConfig:
    """Return the data that values from somewhere else than a file describe. Raises SpaceError."""
    return validate({"data": values}, _DataSettings).data


def broken_rules(settings: SpaceSettings, input_shape: InputShape) -> Iterator[tuple[KeyPath, str]]:
    """Yield (path of the key, message) for each rule that the settings break only with images of this shape."""
    _, height, width = input_shape
    for path, recipe in ((("recipe",), settings.recipe), (("retrain", "recipe"), settings.retrain.recipe)):
        for name in ("crop", "cutout"):
            pixels, side = getattr(recipe, name, 0), min(height, width)
            if pixels >= side:
                yield (*path, name), f"must be less than the {side} pixels of an image's side, but is {pixels}"
    try:
        settings.search.first_cycle(settings.recipe.epochs)
    except ValueError as error:
        yield ("search", "fidelity"), str(error)
    parts, limits = settings.architecture, settings.constraints
    if False in parts.batch_norm.values and (limits.flash or limits.ram or settings.search.objective == "flash"):
        rule = "flash and RAM are those of C code, which needs batch norm"
        yield ("architecture", "batch_norm"), f"must be true, but is {parts.batch_norm.model_dump_json()}: {rule}"
    sections, most = max(parts.sections.values), most_sections(height, width)
    if sections > most:
        rule = f"{sections} sections need {sections - 1} poolings and {height}x{width} pixels allow {most - 1}"
        yield ("architecture", "sections"), f"sections - 1 <= halvings of the image must hold, but {rule}"
    for name in ("depth", "regulators"):
        part = getattr(parts, name)
        if isinstance(part, list) and len(part) < sections:
            yield ("architecture", name), f"a list needs an entry for each of {sections} sections, but has {len(part)}"
    for first, growth in itertools.product(parts.width.values, parts.growth.values):
        widths = widths_of(first, growth, min(sections, most))
        if not 1 <= min(widths) <= max(widths) <= MOST_WIDTH:
            rule = f"width {first} and growth {growth} give {widths}"
            yield ("architecture", "growth"), f"all widths must lie in [1, {MOST_WIDTH}], but {rule}"
            break


def _problem(data: Any, model: type[Settings], error: Any) -> tuple[KeyPath, str]:
    """Return (path, message) for one of pydantic's errors."""
    path = _path_in(data, error["loc"])
    kind, value = error["type"], error["input"]
    if kind == "missing":
        return path, f"{_dotted((*path, error['loc'][-1]))} is missing"
    if kind == "extra_forbidden":
        *parent, key = path
        if (*parent[-1:], key) == ("architecture", "residual"):
            return path, f"{_dotted(path)}: it is the old name of shortcuts, which is given too: keep only shortcuts"
        close = difflib.get_close_matches(str(key), _known_keys(model, parent), n=1)
        unknown = f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else "")
        return path, f"{_dotted(parent)}: {unknown}" if parent else unknown
    if example := EXAMPLES.get(error.get("ctx", {}).get("class_name")):
        message = f"must be {{max: ...}}, such as {{max: {example}}}, but is {_short(value)}"
    elif kind == "value_error":  # from our own validators, which name the value
        message = error["msg"].removeprefix("Value error, ")
    else:
        message = f"{error['msg'][0].lower()}{error['msg'][1:]}, but is {_short(value)}"
    in_our_words = message.replace("input should be", "must be").replace("valid array", "list")
    return path, f"{_dotted(path)}: {in_our_words}"


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
    parts |= {"range": Bounds} | dict.fromkeys(Constraints.model_fields, Maximum)
    part = parts.get(str(path[-1])) if path else model
    return list(part.model_fields) if isinstance(part, type) and issubclass(part, BaseModel) else []


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
