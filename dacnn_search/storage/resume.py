"""Resuming a run: which edits of its space are allowed, and which of its trials an extended space keeps.

`dacnn_search.search.request` has the precedence of the settings of a resumed search.
"""

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
from dacnn_search.space.settings import SpaceSettings, options_of
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.run_directory import RunDirectory

__all__ = [
    "Extension",
    "check_extension",
    "check_nothing_lost",
    "check_unchanged",
    "extend_run",
    "forget_lost",
    "space_id",
]

FREE = ("name", "description", "search", "retrain", "references")  # parts of a space that its trials don't depend on
EXTENSIBLE = ("architecture", "constraints")  # parts that --extend may change


@dataclass(frozen=True)
class Extension:
    """The space of a run before it is extended, and after."""

    old: SearchSpace
    new: SearchSpace


def space_id(settings: SpaceSettings) -> str:
    """Return an identity of a space: equal if its trials are comparable and a search would propose the same."""
    parts = {key: value for key, value in _parts(settings).items() if key not in FREE}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def check_unchanged(run: RunDirectory, space: SearchSpace) -> None:
    """Compare the `space` in a run's `space.yaml` with what the run was last given.

    Raises RunDirectoryError, with the differences, if a part that trials depend on was edited.
    """
    before = run.given_settings
    changes = [] if before is None else _changes(before, space.settings)
    if changes:
        raise RunDirectoryError(
            f"{run.space_file}: a run directory keeps the space that its trials are of (to give it another: --space "
            f"FILE --extend); the difference is\n{_listed(changes)}"
        )


def check_extension(run: RunDirectory, old: SearchSpace, new: SearchSpace, extend: bool) -> Extension | None:
    """Compare the space of a run with another one it is to go on in; return None if they are the same.

    Raises RunDirectoryError, with the differences, if they differ in more than an extension may change, or if `extend`
    is false.
    """
    changes = _changes(old.settings, new.settings)
    if not changes:
        return None
    if extend and all(part in EXTENSIBLE for part, _ in changes):
        return Extension(old, new)
    rule = (
        "an extended run keeps its data and recipe, or its trials could not be compared; the difference is"
        if extend
        else "a resumed run keeps its space (to change what networks it has: --extend); the difference is"
    )
    raise RunDirectoryError(f"{run.folder}: {rule}\n{_listed(changes)}")


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
    """Correct the proposals after trials were lost: none counts more than the `finished` trials of the ledger."""
    _rewrite(proposals, [_counting_at_most(line, finished) for line in proposals.records])


def extend_run(run: RunDirectory, extension: Extension, ledger: Ledger, proposals: Ledger) -> tuple[int, int]:
    """Give a run another space; return how many trials fit it and how many do not.

    Those that do not fit leave the ledger, which is kept as `trials.jsonl.before-<n>`. A crash meanwhile leaves a run
    of the old space with the trials that fit both; the extension can then be asked for again.
    """
    before = len(ledger.records)
    trials = _translate_all(extension, ledger.records)
    proposed = [_counting_at_most(line, len(trials)) for line in _translate_all(extension, proposals.records)]
    _rewrite(proposals, proposed)
    _rewrite(ledger, trials)
    write_atomic(run.folder / f"space.yaml.before-{space_id(extension.old.settings)}", run.space_file.read_bytes())
    run.set_space(extension.new)
    return len(trials), before - len(trials)


def _parts(settings: SpaceSettings) -> dict[str, Any]:
    # pydantic warns of unions that it is not sure of.
    return settings.model_dump(mode="json", warnings=False)


def _changes(old: SpaceSettings, new: SpaceSettings) -> list[tuple[str, str]]:
    """Return the differences in parts that trials depend on, as (part, "part.key: old -> new")."""
    return [change for change in _differences(_parts(old), _parts(new)) if change[0] not in FREE]


def _differences(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    if isinstance(old, dict) and isinstance(new, dict) and len(path) < 2:
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), (*path, key))
    elif old != new:
        yield path[0], f"{'.'.join(path)}: {_or_nothing(old)} -> {_or_nothing(new)}"


def _or_nothing(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _listed(changes: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"  {text}" for _, text in changes)


def _counting_at_most(proposal: Mapping[str, Any], finished: int) -> dict[str, Any]:
    return {**proposal, "finished": min(proposal["finished"], finished)}


def _rewrite(ledger: Ledger, records: Sequence[dict[str, Any]]) -> None:
    if records != list(ledger.records):
        ledger.rewrite(records)


def _translate_all(extension: Extension, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    translated = (_translate(extension, record) for record in records)
    return [record for record in translated if record is not None]


def _translate(extension: Extension, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a record with the choices that lead to its network in the new space; None if that lacks the network.

    The new space may leave open what was fixed before, and the other way round.
    """
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
    """Return the value of a part of the architecture that a space does not leave open."""
    part, _, section = name.rpartition("_")
    if section.isdigit():
        return space.tree.least(int(section) - 1)[("depth", "regulators").index(part)]
    return options_of(getattr(space.settings.architecture, name))[0]
