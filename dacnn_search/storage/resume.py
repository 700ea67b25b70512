"""Going on with a run in another space: what may change, and what becomes of the trials that are there."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dacnn_search.common.errors import RunDirectoryError, SpaceError
from dacnn_search.common.files import write_atomic
from dacnn_search.space.choices import Options
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SearchSettings, SpaceSettings, options_of
from dacnn_search.space.validation import validate
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.run_directory import RunDirectory

__all__ = [
    "Extension",
    "check_extension",
    "check_nothing_lost",
    "check_unchanged",
    "extend_run",
    "forget_lost",
    "settings_before",
    "space_id",
]

FREE = ("name", "description", "search", "retrain", "references")  # what trials do not depend on
EXTENSIBLE = ("architecture", "constraints")  # what --extend may change


@dataclass(frozen=True)
class Extension:
    """The space that a run had, and the one that it gets."""

    old: SearchSpace
    new: SearchSpace


def space_id(space: SearchSpace) -> str:
    """Tells spaces apart in which a search would propose differently."""
    parts = {key: value for key, value in _parts(space).items() if key not in FREE}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def check_extension(run: RunDirectory, space: SearchSpace, extend: bool) -> Extension | None:
    """Compare a space with that of a run: None if they are the same. Raises RunDirectoryError, with what differs, if
    they differ in more than an extension may change, or if none was asked for."""
    old = run.space
    changes = [change for change in _changes(_parts(old), _parts(space)) if change[0] not in FREE]
    if not changes:
        return None
    fixed = [text for part, text in changes if part not in EXTENSIBLE]
    if extend and not fixed:
        return Extension(old, space)
    differences = "\n".join(f"  {text}" for _, text in changes)
    rule = (
        "an extended run keeps its data and recipe, or its trials could not be compared; the difference is"
        if extend
        else "a resumed run keeps its space (to change what networks it has: --extend); the difference is"
    )
    raise RunDirectoryError(f"{run.folder}: {rule}\n{differences}")


def check_unchanged(run: RunDirectory) -> None:
    """Raise RunDirectoryError, with what differs, if the `space.yaml` of a run is no longer what the run was given."""
    before = _space_before(run)
    if before is None:
        return
    began = before.model_dump(mode="json", warnings=False)
    changes = [text for part, text in _changes(began, _parts(run.space)) if part not in FREE]
    if changes:
        raise RunDirectoryError(
            f"{run.space_file}: a run directory keeps the space that its trials are of (to give it another: --space "
            "FILE --extend); the difference is\n" + "\n".join(f"  {text}" for text in changes)
        )


def settings_before(run: RunDirectory) -> SearchSettings | None:
    """What the file said of the search when the run was last started; None if the run does not know."""
    before = _space_before(run)
    return None if before is None else before.search


def _space_before(run: RunDirectory) -> SpaceSettings | None:
    """The space that a run was last given; None for a run from before that was kept."""
    given = run.environment.get("space", {}).get("given")
    return None if given is None else validate(given, SpaceSettings)[0]


def check_nothing_lost(
    run: RunDirectory, records: Sequence[Mapping[str, Any]], proposals: Sequence[Mapping[str, Any]]
) -> None:
    """Raise RunDirectoryError if the ledger has fewer trials than had ended when the last network was proposed: it was
    emptied, cut at the end of a line or replaced."""
    least = max((line["finished"] for line in proposals), default=0)
    if len(records) < least:
        raise RunDirectoryError(
            f"{run.trials_file}: the ledger must have the {least} trials that proposals.jsonl knows to have ended, but "
            f"has {len(records)}; to train again what is missing: --resume {shlex.quote(str(run.folder))} --repair"
        )


def forget_lost(proposals: Ledger, finished: int) -> None:
    """Let the proposals know of no more trials that had ended than the ledger has, which is `finished`."""
    lines = _forgotten(proposals.records, finished)
    if lines != list(proposals.records):
        proposals.rewrite(lines)


def _forgotten(lines: Sequence[Mapping[str, Any]], finished: int) -> list[dict[str, Any]]:
    return [{**line, "finished": min(line["finished"], finished)} for line in lines]


def extend_run(run: RunDirectory, extension: Extension, ledger: Ledger, proposals: Ledger) -> tuple[int, int]:
    """Give a run another space; how many trials it keeps, and how many do not fit.

    Those that do not fit leave the ledger, which is kept as `trials.jsonl.before-<n>`. A crash between leaves a run of
    the old space with the trials that fit both; the extension can then be asked for again.
    """
    before = len(ledger.records)
    fitting = [
        [record for old in kept.records if (record := _translated(extension, old)) is not None]
        for kept in (ledger, proposals)
    ]
    lines = _forgotten(fitting[1], len(fitting[0]))
    for kept, records in ((proposals, lines), (ledger, fitting[0])):
        if records != list(kept.records):
            kept.rewrite(records)
    write_atomic(run.folder / f"space.yaml.before-{space_id(extension.old)}", run.space_file.read_bytes())
    run.set_space(extension.new)
    return len(ledger.records), before - len(ledger.records)


def _parts(space: SearchSpace) -> dict[str, Any]:
    values: dict[str, Any] = space.settings.model_dump(mode="json", warnings=False)  # of unions it is not sure
    return values


def _changes(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """What differs, as (part, "part.key: old -> new")."""
    if isinstance(old, dict) and isinstance(new, dict) and len(path) < 2:
        for key in sorted(old.keys() | new.keys()):
            yield from _changes(old.get(key), new.get(key), (*path, key))
    elif old != new:
        yield path[0], f"{'.'.join(path)}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _translated(extension: Extension, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """A record with the choices that lead to its network in the new space, which may ask what was fixed, or not ask
    what was free; None if the new space does not have the network."""
    choices: dict[str, Any] = {}

    def choose(name: str, options: Options) -> Any:
        value = record["choices"].get(name, _fixed_value(extension.old, name))
        if value not in options.values:
            raise SpaceError(f"{name} must be one of {list(options.values)}, but is {value!r}")
        choices[name] = value
        return value

    try:
        architecture = extension.new.tree.build(choose)
    except SpaceError:
        return None
    same = architecture.fingerprint == record["fingerprint"]
    return {**record, "choices": choices} if same and extension.new.meets_constraints(architecture) else None


def _fixed_value(space: SearchSpace, name: str) -> Any:
    """The value of what a space does not ask."""
    part, _, section = name.rpartition("_")
    if section.isdigit():
        return space.tree.least(int(section) - 1)[("depth", "regulators").index(part)]
    return options_of(getattr(space.settings.architecture, name))[0]
