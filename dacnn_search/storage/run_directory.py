"""`RunDirectory`: the folder in which one search keeps everything (see `results/README.md`)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.common.files import new_folder, read_json, sha256_of, write_atomic
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import plain_name
from dacnn_search.storage.environment import FORMAT, describe_run, given_facts, read_environment
from dacnn_search.storage.front import Record, Scale, front_of
from dacnn_search.storage.ledger import read_ledger
from dacnn_search.storage.trained import TrainedNetwork, best_networks, trained_networks

__all__ = [
    "PROPOSAL",
    "RETRAINED",
    "TRIAL",
    "RunDirectory",
    "check_name",
    "load_run",
]

SPACE_FILE, ENVIRONMENT_FILE = "space.yaml", "environment.json"
# What the lines of the three ledgers have at least.
_NETWORK = frozenset({"trial", "fingerprint", "architecture", "parameters", "macs", "accuracy", "epochs"})
TRIAL = _NETWORK | {"state", "choices", "seconds"}
PROPOSAL = frozenset(
    {"trial", "fingerprint", "choices", "duplicates", "finished", "first_trial", "session", "sampler", "seed", "space"}
)
RETRAINED = _NETWORK | {"seed", "test_accuracy", "recipe"}


class RunDirectory:
    """One run directory; the properties read its files anew each time.

    Raises RunDirectoryError if the folder is not a run directory or of a later format.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not self.space_file.is_file() or not self.environment_file.is_file():
            lack = "one does not" if self.folder.is_dir() else "is none" if self.folder.exists() else "does not exist"
            raise RunDirectoryError(
                f"{self.folder}: a run directory must hold space.yaml and environment.json, but this {lack}"
            )
        version = self.environment.get("format")
        if not isinstance(version, int) or not 1 <= version <= FORMAT:
            versions = self.environment.get("versions")
            writer = versions.get("dacnn-search") if isinstance(versions, dict) else None
            raise RunDirectoryError(
                f"{self.folder}: the format must be 1 to {FORMAT}, but is {version!r}; "
                f"it was written by dacnn-search {writer}"
            )
        read_environment(self.environment_file, ("data", "space"))

    @classmethod
    def create(
        cls, results: Path, name: str | None, space: SearchSpace, class_names: Sequence[str], settings: dict[str, Any]
    ) -> "RunDirectory":
        """A fresh run directory for a space read from a file.

        With no `name` it gets that of the space, numbered if it is taken. settings: the search's, kept in
        `environment.json`. Raises RunDirectoryError if a `name` given is taken or the folder can't be made.
        """
        check_name(name)
        wanted, number = name or space.name, 1
        folder = results / wanted
        while True:
            try:
                _write_folder(folder, space, class_names, settings)
                return cls(folder)
            except FileExistsError:
                if name is not None:
                    raise RunDirectoryError(
                        f"{folder}: a new run needs a name that is not taken; to go on with this one: --resume {folder}"
                    ) from None
                number += 1
                folder = results / f"{wanted}-{number}"
            except OSError as error:
                raise RunDirectoryError(f"{folder}: the run directory can't be made: {error.strerror}") from error

    def set_space(self, space: SearchSpace) -> None:
        """Go on in a space, or with a file that says other things of the same space."""
        given = self.environment.get("space", {}).get("given")
        if space.values != given or space.text != self.space_file.read_text(encoding="utf-8"):
            self.set_environment(**given_facts(space))
            write_atomic(self.space_file, space.text)

    def set_environment(self, **values: Any) -> None:
        """Change values in `environment.json`, if they are others than before."""
        before = self.environment
        if any(before.get(key) != value for key, value in values.items()):
            write_atomic(self.environment_file, json.dumps({**before, **values}, indent=2) + "\n")

    @property
    def space_file(self) -> Path:
        return self.folder / SPACE_FILE

    @property
    def environment_file(self) -> Path:
        return self.folder / ENVIRONMENT_FILE

    @property
    def trials_file(self) -> Path:
        return self.folder / "trials.jsonl"

    @property
    def proposals_file(self) -> Path:
        """What was proposed and when, in the ledger's format: who resumes trains what was not finished."""
        return self.folder / "proposals.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the trainings that have not ended."""
        return self.folder / "checkpoints"

    @property
    def retrained_file(self) -> Path:
        return self.folder / "retrained.jsonl"

    def weights_file(self, fingerprint: str, seed: int) -> Path:
        """Where retraining keeps the weights of a network."""
        return self.folder / "retrained" / f"{fingerprint}-{seed}.safetensors"

    def has_weights(self, record: Record) -> bool:
        """Whether the weights that a record of a retraining speaks of are there and as they were written."""
        path = self.weights_file(record["fingerprint"], record["seed"])
        return path.is_file() and record.get("weights_sha256") in (None, sha256_of(path))

    @property
    def space(self) -> SearchSpace:
        return SearchSpace.from_yaml(self.space_file)

    @property
    def environment(self) -> dict[str, Any]:
        return read_json(self.environment_file)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The finished trials, in the order they finished."""
        return read_ledger(self.trials_file, TRIAL) if self.trials_file.exists() else []

    @property
    def proposals(self) -> list[dict[str, Any]]:
        """What was proposed, in that order; each with how many trials had finished by then."""
        return read_ledger(self.proposals_file, PROPOSAL) if self.proposals_file.exists() else []

    @property
    def retrained(self) -> list[dict[str, Any]]:
        """The finished retrainings, one record per network and seed."""
        return read_ledger(self.retrained_file, RETRAINED) if self.retrained_file.exists() else []

    @property
    def front(self) -> list[Record]:
        """The Pareto front of the finished trials, from few parameters to many."""
        return front_of(self.records)

    @property
    def networks(self) -> list[TrainedNetwork]:
        """The networks that were trained in full, from few parameters to many."""
        return trained_networks(self.folder, self.environment["data"], self.retrained)

    def best(
        self,
        *,
        max_parameters: int | None = None,
        max_macs: int | None = None,
        max_bytes: int | None = None,
        min_accuracy: float | None = None,
        trial: int | None = None,
        top: int | None = None,
    ) -> list[TrainedNetwork]:
        """The networks trained in full that keep all the limits given, the most accurate first; at most `top` of them.

        Accuracy is that of the test images, in [0, 1]; bytes are those of the float32 weight file.
        """
        return best_networks(
            self.networks,
            max_parameters=max_parameters,
            max_macs=max_macs,
            max_bytes=max_bytes,
            min_accuracy=min_accuracy,
            trial=trial,
            top=top,
        )

    @property
    def scale(self) -> Scale:
        """What this run's hypervolume is measured in."""
        values = self.environment
        return Scale(values["space"]["least"], values["space"]["most"], 1 / values["data"]["num_classes"])


def load_run(folder: Path | str) -> RunDirectory:
    """The run directory of a search. Raises RunDirectoryError if the folder is none or of a later format."""
    return RunDirectory(folder)


def check_name(name: str | None) -> None:
    """Raise RunDirectoryError for a name that is no plain folder name."""
    try:
        plain_name(name or "run")
    except ValueError as error:
        raise RunDirectoryError(str(error)) from None


def _write_folder(folder: Path, space: SearchSpace, class_names: Sequence[str], settings: dict[str, Any]) -> None:
    """Make a run directory that is there as a whole or, after a crash, not at all."""
    if folder.exists():
        raise FileExistsError
    folder.parent.mkdir(parents=True, exist_ok=True)
    environment = describe_run(folder.name, space, class_names, settings)
    with new_folder(folder) as new:
        write_atomic(new / SPACE_FILE, space.text)
        write_atomic(new / ENVIRONMENT_FILE, json.dumps(environment, indent=2) + "\n")
