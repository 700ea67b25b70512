"""`RunDirectory`: the folder in which one search keeps everything (see `results/README.md`)."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.common.files import new_folder, read_json, sha256_of, write_atomic
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings, plain_name
from dacnn_search.space.validation import validate
from dacnn_search.storage.environment import FORMAT, describe_run, describe_space, read_environment
from dacnn_search.storage.front import Record, Scale, front_of
from dacnn_search.storage.ledger import read_ledger
from dacnn_search.storage.trained import TrainedNetwork, trained_networks

__all__ = ["PROPOSAL", "RETRAINED", "TRIAL", "RunDirectory", "check_name", "load_run"]

T = TypeVar("T")
SPACE_FILE, ENVIRONMENT_FILE = "space.yaml", "environment.json"
# The keys that every line of the three ledgers has at least.
_NETWORK = frozenset({"trial", "fingerprint", "architecture", "parameters", "macs", "accuracy", "epochs"})
TRIAL = _NETWORK | {"state", "choices", "seconds"}
PROPOSAL = frozenset(
    {"trial", "fingerprint", "choices", "duplicates", "finished", "first_trial", "session", "sampler", "seed", "space"}
)
RETRAINED = _NETWORK | {"seed", "test_accuracy", "recipe"}


def load_run(folder: Path | str) -> "RunDirectory":
    """Open the run directory of a search. Raises RunDirectoryError if the folder is none or of a later format."""
    return RunDirectory(folder)


class RunDirectory:
    """One run directory. Its properties read the files anew each time.

    Raises RunDirectoryError if the folder is not a run directory, is damaged or of a later format.
    """

    def __init__(self, folder: Path | str) -> None:
        self._locate(Path(folder))
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

    def _locate(self, folder: Path) -> None:
        self.folder = folder
        self.space_file = folder / SPACE_FILE
        self.environment_file = folder / ENVIRONMENT_FILE
        self.trials_file = folder / "trials.jsonl"
        self.proposals_file = folder / "proposals.jsonl"  # on resuming, those that had not finished are trained again
        self.retrained_file = folder / "retrained.jsonl"
        self.status_file = folder / "status.json"
        self.checkpoints = folder / "checkpoints"  # the folder of the trainings that have not ended
        self._contents: dict[Path, Any] | None = None  # of the files read, in a snapshot

    @classmethod
    def snapshot(cls, folder: Path | str) -> "RunDirectory":
        """Open a run directory for a page about it.

        Its files are read now and not again, so that all parts of the page fit together while a search goes on. Only
        `trials.jsonl` and `environment.json` must be there, of any format. Raises RunDirectoryError if one of them is
        missing or a file is damaged.
        """
        run = cls.__new__(cls)
        run._locate(Path(folder))
        run._contents = {}
        for file in (run.environment_file, run.trials_file):
            if not file.is_file():
                raise RunDirectoryError(f"{folder}: a run directory must hold {file.name}, but this one does not")
        read_environment(run.environment_file, ("data",) if run.retrained else ())
        _ = run.environment, run.records, run.status  # read them
        return run

    @classmethod
    def create(
        cls, results: Path, name: str | None, space: SearchSpace, class_names: Sequence[str], settings: dict[str, Any]
    ) -> "RunDirectory":
        """Make a new run directory below `results`.

        Args:
            name: Name of the folder; by default that of the space, numbered if it is taken.
            space: Its `text` becomes `space.yaml`.
            class_names: Names of the data's classes.
            settings: The settings of the search, kept in `environment.json`.

        Raises RunDirectoryError if a `name` given is taken or the folder can't be made.
        """
        check_name(name)
        names = [name] if name else itertools.chain([space.name], (f"{space.name}-{n}" for n in itertools.count(2)))
        for folder in (results / each for each in names):
            try:
                if folder.exists():
                    continue
                results.mkdir(parents=True, exist_ok=True)
                environment = describe_run(folder.name, space, class_names, settings)
                with new_folder(folder) as new:  # there as a whole or, after a crash, not at all
                    write_atomic(new / SPACE_FILE, space.text)
                    write_atomic(new / ENVIRONMENT_FILE, json.dumps(environment, indent=2) + "\n")
                return cls(folder)
            except FileExistsError:
                continue
            except OSError as error:
                raise RunDirectoryError(f"{folder}: the run directory can't be made: {error.strerror}") from error
        raise RunDirectoryError(
            f"{folder}: a new run needs a name that is not taken; to go on with this one: --resume {folder}"
        )

    def set_space(self, space: SearchSpace) -> None:
        """Replace `space.yaml` by the text of `space`, and what `environment.json` says of it."""
        given = self.environment.get("space", {}).get("given")
        if space.values != given or space.text != self.space_file.read_text(encoding="utf-8"):
            self.set_environment(**describe_space(space))
            write_atomic(self.space_file, space.text)

    def set_environment(self, **values: Any) -> None:
        """Change values in `environment.json`; leave the file alone if it has them already."""
        before = self.environment
        if any(before.get(key) != value for key, value in values.items()):
            write_atomic(self.environment_file, json.dumps({**before, **values}, indent=2) + "\n")

    def weights_file(self, fingerprint: str, seed: int) -> Path:
        """Return where retraining keeps the weights of a network."""
        return self.folder / "retrained" / f"{fingerprint}-{seed}.safetensors"

    def has_weights(self, record: Record) -> bool:
        """Tell whether the weights of a record of `retrained` are there and as they were written."""
        path = self.weights_file(record["fingerprint"], record["seed"])
        return path.is_file() and record.get("weights_sha256") in (None, sha256_of(path))

    @property
    def space(self) -> SearchSpace:
        """The space in `space.yaml`, checked. Raises what `SearchSpace.from_yaml` raises."""
        return SearchSpace.from_yaml(self.space_file)

    @property
    def environment(self) -> dict[str, Any]:
        return self._read(self.environment_file, read_json)

    @property
    def name(self) -> str:
        return str(self.environment.get("name") or self.folder.resolve().name)

    @property
    def data(self) -> dict[str, Any]:
        """The facts about the images, such as `input_shape` and `num_classes`; empty if the run does not know them."""
        return self.environment.get("data") or {}

    @property
    def given_settings(self) -> SpaceSettings | None:
        """The contents of the space file when the run was last started; None for a run from before these were kept."""
        given = (self.environment.get("space") or {}).get("given")
        return validate(given, SpaceSettings)[0] if given else None

    @property
    def status(self) -> dict[str, Any]:
        """The contents of `status.json`; empty if it is not there."""
        return self._read(self.status_file, read_json) if self.status_file.exists() else {}

    @property
    def records(self) -> list[dict[str, Any]]:
        """The finished trials, in the order they finished."""
        return self._ledger(self.trials_file, TRIAL)

    @property
    def proposals(self) -> list[dict[str, Any]]:
        """The proposals in their order, each with the number of trials that had finished by then."""
        return self._ledger(self.proposals_file, PROPOSAL)

    @property
    def retrained(self) -> list[dict[str, Any]]:
        """The finished retrainings, one record per network and seed."""
        return self._ledger(self.retrained_file, RETRAINED)

    @property
    def elapsed(self) -> float:
        """Seconds of search up to the last finished trial, over all its sessions, by the ledger."""
        return max((record.get("finished") or 0.0 for record in self.records), default=0.0)

    @property
    def front(self) -> list[Record]:
        """The Pareto front of the finished trials, from few parameters to many."""
        return front_of(self.records)

    @property
    def scale(self) -> Scale:
        """The box of this run's hypervolume; the trials' own range if the run does not know the space's."""
        space = self.environment.get("space") or {}
        sizes = [record["parameters"] for record in self.records] if not space else []
        return Scale(
            space.get("least") or min(sizes, default=1),
            space.get("most") or max(sizes, default=1),
            1 / self.data.get("num_classes", 10),
        )

    @property
    def networks(self) -> list[TrainedNetwork]:
        """The networks that were trained in full, from few parameters to many."""
        return trained_networks(self.folder, self.data, self.retrained)

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
        """Return the networks trained in full that keep all limits given, the most accurate first, of equals the
        smaller; at most `top` of them.

        Accuracy is that of the test images, in [0, 1]; bytes are those of the float32 weight file.
        """
        fitting = [
            network
            for network in self.networks
            if (max_parameters is None or network.parameters <= max_parameters)
            and (max_macs is None or network.macs <= max_macs)
            and (max_bytes is None or network.file_bytes <= max_bytes)
            and (min_accuracy is None or network.accuracy >= min_accuracy)
            and trial in (None, network.trial)
        ]
        return sorted(fitting, key=lambda network: (-network.accuracy, network.parameters))[:top]

    def _ledger(self, path: Path, keys: frozenset[str]) -> list[dict[str, Any]]:
        return self._read(path, lambda path: read_ledger(path, keys) if path.exists() else [])

    def _read(self, path: Path, read: Callable[[Path], T]) -> T:
        """Read a file; in a snapshot only the first time."""
        contents = {} if self._contents is None else self._contents
        if path not in contents:
            contents[path] = read(path)
        return contents[path]


def check_name(name: str | None) -> None:
    """Raise RunDirectoryError for a name that is no plain folder name."""
    try:
        plain_name(name or "run")
    except ValueError as error:
        raise RunDirectoryError(str(error)) from None
