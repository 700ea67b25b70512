"""Validate a search request. Imports neither torch nor Ray."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import InputError, RunDirectoryError
from dacnn_search.search.cluster.slots import Resources
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SearchSettings
from dacnn_search.space.validation import validate
from dacnn_search.storage.resume import check_space
from dacnn_search.storage.run_directory import RunDirectory, check_name


@dataclass(frozen=True)
class SearchRequest:
    """A search that is asked for."""

    space: SearchSpace
    settings: SearchSettings
    results: Path  # the folder of a new run directory
    name: str | None = None  # of a new run directory; by default the space's
    run: RunDirectory | None = None  # the one to go on with
    replaced: SearchSpace | None = None  # the space that `run` had, if `space` has other networks or constraints
    repair: bool = False  # leave out damaged lines of the ledger of `run`

    def resources(self, address: str | None, verbose: bool) -> Resources:
        return Resources(address, self.settings.concurrency, self.settings.gpus_per_trial, verbose)


def prepare(
    space: SearchSpace | Path | str | None = None,
    *,
    resume: Path | str | None = None,
    results: Path | str | None = None,
    name: str | None = None,
    extend: bool = False,
    repair: bool = False,
    settings: Mapping[str, Any],
) -> SearchRequest:
    """Check what is asked for; `run_search` describes the arguments. Raises InputError."""
    if space is None and resume is None:
        raise InputError("a search needs a space or a run directory to resume")
    if (extend or repair) and resume is None:
        raise InputError("only a run directory that is resumed (--resume FOLDER) can be extended or repaired")
    if extend and space is None:
        raise InputError("an extension needs the space that the run directory is to get (--space FILE)")
    for option, value in (("name", name), ("results", results)):
        if resume is not None and value is not None:
            raise InputError(f"a run that is resumed keeps its folder {resume}, but got --{option} {value}")
    given = space if space is None or isinstance(space, SearchSpace) else SearchSpace.from_yaml(space)
    results = Path(results or "results")
    asked = {name: value for name, value in settings.items() if value is not None}
    if resume is None:
        assert given is not None
        check_name(name)
        _check_writable(results)
        wanted = _checked({**given.settings.search.model_dump(mode="json"), **asked}, given)
        _check_objective(given, wanted)
        return SearchRequest(given, wanted, results, name)
    run = RunDirectory(resume)
    _check_writable(run.folder)
    own = run.space
    differs = check_space(run, own, given, extend)
    merged = _settings_of_resumed(run, own, given, asked)
    _check_objective(given or own, merged)
    return SearchRequest(given or own, merged, results, name, run, own if differs else None, repair)


def _settings_of_resumed(
    run: RunDirectory, own: SearchSpace, space: SearchSpace | None, asked: dict[str, Any]
) -> SearchSettings:
    """Return the settings of a resumed search, of the run's `own` space file or another one, `space`.

    The first of these that has a setting counts:

    1. the command line or the arguments of `run_search`
    2. the space file, where it was edited since the run was last started
    3. the last start of the run
    4. the space file, with its defaults

    Another file than the run's own counts as edited only in what it states, the run's own also where a line was
    deleted.
    Raises RunDirectoryError for another seed, objective or fidelity.
    """
    in_file = (space or own).settings.search.model_dump(mode="json")
    environment = run.environment
    # Runs of older versions trained in one cycle, and for parameters.
    last = {"objective": run.objective, "fidelity": "none"} | {
        name: environment[name] for name in in_file if name in environment
    }
    before = run.given_settings and run.given_settings.search
    edited = {name: value for name, value in in_file.items() if before and value != getattr(before, name)}
    if space is not None:
        edited = {name: value for name, value in edited.items() if name in space.settings.search.model_fields_set}
    merged = {**in_file, **last, **edited, **asked}
    for name in ("seed", "objective", "fidelity"):
        if name in last and merged[name] != last[name]:
            raise RunDirectoryError(
                f"{run.folder}: a resumed search keeps its {name} {last[name]}, but got {merged[name]}"
            )
    return _checked(merged, space or own)


def _checked(values: dict[str, Any], space: SearchSpace) -> SearchSettings:
    """Return settings of a search of that space. Raises InputError."""
    settings = validate(values, SearchSettings)
    try:
        settings.first_cycle(space.settings.recipe.epochs)
    except ValueError as error:
        raise InputError(f"fidelity {error}") from None
    return settings


def _check_objective(space: SearchSpace, settings: SearchSettings) -> None:
    """Raise SpaceError if a space can't be searched for an objective that is not the one in its file."""
    if settings.objective != space.settings.search.objective:
        SearchSpace(space.settings.model_copy(update={"search": settings}), space.summary, space.document)


def _check_writable(folder: Path) -> None:
    """Raise RunDirectoryError if nothing can be made in a folder, or in the nearest one above that exists."""
    existing = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RunDirectoryError(f"{folder}: results need a folder that can be written, but {existing} can't")
