"""Resuming a run: which edits of its space are allowed, and which of its trials an extended space keeps."""

import hashlib
import json
import shlex
from collections.abc import Sequence
from typing import Any

from dacnn_search.common.errors import RunDirectoryError, SpaceError
from dacnn_search.common.files import write_atomic
from dacnn_search.network.architecture import SHORTCUTS_OF_RESIDUAL, Architecture
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings
from dacnn_search.storage.front import Record
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.run_directory import RETRAINED, RunDirectory

FREE = {"name", "description", "search", "retrain", "references"}  # parts of a space that its trials don't depend on
EXTENSIBLE = ("architecture", "constraints")  # parts that --extend may change


def space_id(settings: SpaceSettings) -> str:
    """Return an identity of a space: equal if its trials are comparable and a search would propose the same.

    A space that older versions could describe has the identity that they gave it, so that old runs keep theirs: what
    these did not know counts only where it is used, and shortcuts have their old name.
    """
    parts = _parts(settings)
    networks, limits = parts["architecture"], parts["constraints"]
    later = ("mixing", "history", "convolutions")
    unused = {name: getattr(Architecture, name) for name in later}
    parts["architecture"] = {name: part for name, part in networks.items() if part != unused.get(name)}
    residual = {shortcuts: old for old, shortcuts in SHORTCUTS_OF_RESIDUAL.items()}
    if residual.keys() >= set(settings.architecture.shortcuts.values):
        part = parts["architecture"].pop("shortcuts")
        named = {"choice": [residual[s] for s in part["choice"]]} if isinstance(part, dict) else residual[part]
        parts["architecture"]["residual"] = named
    parts["constraints"] = {n: limit for n, limit in limits.items() if limit or n in ("parameters", "macs")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def check_space(run: RunDirectory, own: SearchSpace, given: SearchSpace | None, extend: bool) -> bool:
    """Tell whether a run is to go on in another space, the one `given`, than its `own` of `space.yaml`.

    Raises RunDirectoryError, with the differences, if they differ without `extend` or in more than an extension may
    change, and unless the run is extended, if a part of `space.yaml` that trials depend on was edited.
    """
    before = None if extend else run.given_settings
    edits = _differences(_parts(before), _parts(own.settings)) if before else []
    changes = _differences(_parts(own.settings), _parts(given.settings)) if given else []
    if edits:
        rule = "a run directory keeps the space that its trials are of (to give it another: --space FILE --extend)"
    elif all(extend and change.startswith(EXTENSIBLE) for change in changes):
        return bool(changes)
    elif extend:
        rule = "an extended run keeps its data and recipe, or its trials could not be compared"
    else:
        rule = "a resumed run keeps its space (to change what networks it has: --extend)"
    where = run.space_file if edits else run.folder
    raise RunDirectoryError("\n  ".join([f"{where}: {rule}; the difference is", *(edits or changes)]))


def check_nothing_lost(run: RunDirectory, records: Sequence[Record], proposals: Sequence[Record]) -> None:
    """Raise RunDirectoryError if the ledger has fewer trials than had ended when the last network was proposed: it was
    emptied, cut at the end of a line or replaced."""
    least = max((line["finished"] for line in proposals), default=0)
    if len(records) < least:
        raise RunDirectoryError(
            f"{run.trials_file}: the ledger must have the {least} trials that proposals.jsonl knows to have ended, but "
            f"has {len(records)}; to train again what is missing: --resume {shlex.quote(str(run.folder))} --repair"
        )


def forget_lost(proposals: Ledger, lines: Sequence[Record], finished: int) -> None:
    """Keep these lines of the proposals, none of which may count more than the `finished` trials of the ledger."""
    proposals.rewrite([{**line, "finished": min(line["finished"], finished)} for line in lines])


def extend_run(
    run: RunDirectory, old: SearchSpace, new: SearchSpace, ledger: Ledger, proposals: Ledger, *, repair: bool = False
) -> tuple[int, int]:
    """Give a run of the space `old` another one, `new`; return how many trials fit it and how many do not.

    Those that do not fit leave the ledger, which is kept as `trials.jsonl.before-<n>`; so do their full trainings
    (`retrained.jsonl.before-<n>`). A crash meanwhile leaves a run of the old space with the trials that fit both; the
    extension can then be asked for again.
    """
    before = len(ledger.records)
    trials, proposed = (
        [fitting for record in records if (fitting := _translated(record, old, new)) is not None]
        for records in (ledger.records, proposals.records)
    )
    kept = {trial["fingerprint"] for trial in trials}
    with Ledger.open(run.retrained_file, RETRAINED, repair=repair) as retrained:  # refused before anything is changed
        forget_lost(proposals, proposed, len(trials))
        ledger.rewrite(trials)
        retrained.rewrite([record for record in retrained.records if record["fingerprint"] in kept])
    write_atomic(run.folder / f"space.yaml.before-{space_id(old.settings)}", run.space_file.read_bytes())
    run.set_space(new)
    return len(trials), before - len(trials)


def _parts(settings: SpaceSettings) -> dict[str, Any]:
    """Return the parts of a space that trials depend on."""
    # pydantic warns of unions that it is not sure of.
    return settings.model_dump(mode="json", exclude=FREE, warnings=False)


def _differences(old: Any, new: Any, path: tuple[str, ...] = ()) -> list[str]:
    """Return the differences of two spaces' parts, each as "part.key: old -> new"."""
    if isinstance(old, dict) and isinstance(new, dict) and len(path) < 2:
        keys = sorted(old.keys() | new.keys())
        return [text for key in keys for text in _differences(old.get(key), new.get(key), (*path, key))]
    words = ["nothing" if value is None else str(value) for value in (old, new)]
    return [f"{'.'.join(path)}: {' -> '.join(words)}"] if old != new else []


def _translated(record: Record, old: SearchSpace, new: SearchSpace) -> dict[str, Any] | None:
    """Return a record with the choices that lead to its network in the new space; None if that lacks the network.

    The new space may leave open what was fixed before, and the other way round.
    """
    choices = {name: options.values[0] for name, options in old.tree.options.items()} | record["choices"]
    try:
        architecture, asked = new.replay(choices)
    except SpaceError:
        return None
    fits = architecture.fingerprint == record["fingerprint"] and new.meets_constraints(architecture)
    return {**record, "choices": {name: choices[name] for name in asked}} if fits else None
