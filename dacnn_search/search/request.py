"""What a search is to do, read and checked before anything heavy is imported or anything is written."""

import dataclasses
import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import InputError, RunDirectoryError
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SearchSettings
from dacnn_search.space.validation import validate
from dacnn_search.storage.resume import Extension, check_extension, check_unchanged
from dacnn_search.storage.run_directory import RunDirectory, check_name

__all__ = ["Task", "prepare"]


@dataclasses.dataclass(frozen=True)
class Task:
    """A search: of `space` with `settings`, in a new run directory `results`/`name` or going on with `run`.

    extension: set if networks or constraints of `space` are others than `run` has had. repair: whether damaged lines
    of its ledger are left out.
    """

    space: SearchSpace
    settings: SearchSettings
    results: Path
    name: str | None = None
    run: RunDirectory | None = None
    extension: Extension | None = None
    repair: bool = False


def prepare(
    space: SearchSpace | Path | str | None = None,
    *,
    resume: Path | str | None = None,
    results: Path | str = "results",
    name: str | None = None,
    extend: bool = False,
    repair: bool = False,
    settings: Mapping[str, Any],
) -> Task:
    """Check what a search is asked for; `search` tells what the arguments are. Raises InputError."""
    if space is None and resume is None:
        raise InputError("a search needs a space or a run directory to resume")
    if (extend or repair) and resume is None:
        raise InputError("only a run directory that is resumed can be extended or repaired")
    if extend and space is None:
        raise InputError("an extension needs the space that the run directory is to get")
    given = space if space is None or isinstance(space, SearchSpace) else SearchSpace.from_yaml(space)
    if resume is None:
        assert given is not None
        check_name(name)
        _check_writable(Path(results))
        return Task(given, _merge(given.settings.search, None, settings), Path(results), name)
    run = RunDirectory(resume)
    _check_writable(run.folder)
    own = run.space
    if not extend:
        check_unchanged(run, own)
    extension = None if given is None else check_extension(run, own, given, extend)
    now = given or own
    said = None if given is None else given.settings.search.model_fields_set
    return Task(now, _merge(now.settings.search, run, settings, said), Path(results), name, run, extension, repair)


def _merge(
    settings: SearchSettings, run: RunDirectory | None, given: Mapping[str, Any], said: Set[str] | None = None
) -> SearchSettings:
    """The space's settings; of a resumed run those it was last started with, but for what the file says otherwise than
    before; and over all those given now.

    said: what another file than the run's own says; what it leaves out stays, while in the run's own it is lifted.
    """
    values = settings.model_dump(mode="json")
    kept = {key: run.environment[key] for key in values if key in run.environment} if run else {}
    before = run and run.given_settings and run.given_settings.search
    edited = {
        key: value
        for key, value in values.items()
        if before and value != getattr(before, key) and (said is None or key in said)
    }
    wanted = {key: value for key, value in given.items() if value is not None}
    merged = {**values, **kept, **edited, **wanted}
    if run and merged["seed"] != kept.get("seed", merged["seed"]):
        raise RunDirectoryError(
            f"{run.folder}: a resumed search keeps its seed {kept['seed']}, but got {merged['seed']}"
        )
    valid, problems = validate(merged, SearchSettings)
    if problems:
        raise InputError("\n".join(message for _, message in problems))
    return SearchSettings.model_construct(**valid)


def _check_writable(folder: Path) -> None:
    """Raise RunDirectoryError if nothing can be made in a folder, or in the nearest one above that exists."""
    existing = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RunDirectoryError(f"{folder}: results need a folder that can be written, but {existing} can't")
