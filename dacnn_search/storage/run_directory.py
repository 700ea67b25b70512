"""`RunDirectory`: the folder in which one search keeps everything (see `results/README.md`)."""

import functools
import itertools
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from dacnn_search.common.errors import RunDirectoryError, SpaceError
from dacnn_search.common.files import new_folder, read_json, sha256_of, write_atomic
from dacnn_search.common.machine import git_commit, gpu_names, package_versions, processor_name
from dacnn_search.common.privacy import mask_command
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import estimate_cost
from dacnn_search.space.count import count_networks
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import Objective, SpaceSettings, plain_name
from dacnn_search.space.validation import validate
from dacnn_search.storage.front import Record, Scale, front_of
from dacnn_search.storage.ledger import now, read_ledger
from dacnn_search.storage.trained import TrainedNetwork, group_retrained

FORMAT = 1  # of the files in a run directory; a run of a later format is refused
# The keys that every line of the three ledgers has at least.
_NETWORK = frozenset({"trial", "fingerprint", "architecture", "parameters", "macs", "accuracy", "epochs"})
TRIAL = _NETWORK | {"state", "choices", "seconds"}
PROPOSAL = frozenset(
    {"trial", "fingerprint", "choices", "duplicates", "finished", "first_trial", "session", "sampler", "seed", "space"}
)
RETRAINED = _NETWORK | {"seed", "test_accuracy", "recipe"}
# What a page and a retraining take for granted in environment.json: whole numbers from 1 on, three of them or one.
NUMBERS = (("data", "input_shape", 3), ("data", "num_classes", 1), ("space", "least", 1), ("space", "most", 1))


def load_run(folder: Path | str) -> "RunDirectory":
    """Open the run directory of a search. Raises RunDirectoryError if the folder is none or of a later format."""
    return RunDirectory(folder)


class RunDirectory:
    """One run directory. Its properties read the files anew each time.

    A `snapshot`, for a page about the run, reads them now and not again, so that all parts of the page fit together
    while a search goes on. It needs only `trials.jsonl` and `environment.json`, of any format.

    Raises RunDirectoryError if the folder is not a run directory, is damaged or of a later format.
    """

    def __init__(self, folder: Path | str, *, snapshot: bool = False) -> None:
        self.folder = folder = Path(folder)
        self.space_file = folder / "space.yaml"
        self.environment_file = folder / "environment.json"
        self.trials_file = folder / "trials.jsonl"
        self.proposals_file = folder / "proposals.jsonl"  # on resuming, those that had not finished are trained again
        self.retrained_file = folder / "retrained.jsonl"
        self.status_file = folder / "status.json"
        self.checkpoints = folder / "checkpoints"  # the folder of the trainings that have not ended
        self._read_json = functools.cache(read_json) if snapshot else read_json
        self._read_ledger = functools.cache(read_ledger) if snapshot else read_ledger
        needed = (self.environment_file, self.trials_file) if snapshot else (self.space_file, self.environment_file)
        if missing := [file.name for file in needed if not file.is_file()]:
            lack = "one does not" if folder.is_dir() else "is none" if folder.exists() else "does not exist"
            raise RunDirectoryError(f"{folder}: a run directory must hold {' and '.join(missing)}, but this {lack}")
        if snapshot:
            self._check_environment(["data"] if self.retrained else [])
            _ = self.records, self.status  # read them
        else:
            self._check_format()
            self._check_environment(["data", "space"])

    @classmethod
    def create(
        cls, results: Path, name: str | None, space: SearchSpace, class_names: Sequence[str], settings: dict[str, Any]
    ) -> "RunDirectory":
        """Make a new run directory below `results`, with the settings of the search in `environment.json`.

        Its name is that of the space, numbered if it is taken, unless one is given. Raises RunDirectoryError if a
        `name` given is taken or the folder can't be made.
        """
        check_name(name)
        names = [name] if name else itertools.chain([space.name], (f"{space.name}-{n}" for n in itertools.count(2)))
        for folder in (results / each for each in names):
            try:
                if folder.exists():
                    continue
                environment = _run_facts(folder.name, space, class_names, settings)
                with new_folder(folder) as new:  # there as a whole or, after a crash, not at all
                    write_atomic(new / "space.yaml", space.text)
                    write_atomic(new / "environment.json", json.dumps(environment, indent=2) + "\n")
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
            self.set_environment(**_space_facts(space, self.objective))
            write_atomic(self.space_file, space.text)

    def set_environment(self, **values: Any) -> None:
        """Change values in `environment.json`; leave the file alone if it has them already."""
        before = self.environment
        if before | values != before:
            write_atomic(self.environment_file, json.dumps(before | values, indent=2) + "\n")

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
        return self._read_json(self.environment_file)

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
        with suppress(SpaceError):  # of a version with other settings
            return validate(given, SpaceSettings) if given else None
        return None

    @property
    def status(self) -> dict[str, Any]:
        """The contents of `status.json`; empty if it is not there."""
        return self._read_json(self.status_file) if self.status_file.exists() else {}

    @property
    def records(self) -> list[dict[str, Any]]:
        """The finished trials, in the order they finished, with all costs."""
        return self.with_costs(self._read_ledger(self.trials_file, TRIAL))

    @property
    def proposals(self) -> list[dict[str, Any]]:
        """The proposals in their order, each with the number of trials that had finished by then."""
        return self._read_ledger(self.proposals_file, PROPOSAL)

    @property
    def retrained(self) -> list[dict[str, Any]]:
        """The finished retrainings, one record per network and seed."""
        return self.with_costs(self._read_ledger(self.retrained_file, RETRAINED))

    @property
    def elapsed(self) -> float:
        """Seconds of search up to the last finished trial, over all its sessions, by the ledger."""
        return max((record["finished"] for record in self.records), default=0.0)

    @property
    def objective(self) -> str:
        """What the search keeps small, beside the error: `parameters` or `flash`, the keys of records."""
        return str(self.environment.get("objective", "parameters"))

    @property
    def front(self) -> list[Record]:
        """The Pareto front of the finished trials, from the smallest to the largest."""
        return front_of(self.records, self.objective)

    @property
    def scale(self) -> Scale:
        """The box of this run's hypervolume; the trials' own range if the run does not know the space's."""
        space, objective = self.environment.get("space") or {}, self.objective
        sizes = [space["least"], space["most"]] if space else [r[objective] for r in self.records] or [1]
        return Scale(min(sizes), max(sizes), 1 / self.data.get("num_classes", 10), objective)

    @property
    def networks(self) -> list[TrainedNetwork]:
        """The networks that were trained in full, from the smallest to the largest."""
        data, objective, networks = self.data, self.objective, []
        for rank, records in enumerate(group_retrained(self.retrained, objective), start=1):
            architecture = Architecture.from_dict(records[0]["architecture"])
            cost = estimate_cost(architecture, tuple(data["input_shape"]), data["num_classes"])
            size = {"parameters": f"{cost.parameters}", "flash": f"{cost.flash}B"}[objective]
            folder = self.folder / "best" / f"{rank:02d}-{size}"
            costs = (cost.parameters, cost.macs, cost.file_bytes, cost.flash, cost.ram)
            networks.append(TrainedNetwork(folder, records, architecture, records[0]["trial"], *costs, objective))
        return networks

    def best(
        self,
        *,
        max_parameters: int | None = None,
        max_macs: int | None = None,
        max_bytes: int | None = None,
        max_flash: int | None = None,
        max_ram: int | None = None,
        min_accuracy: float | None = None,
        trial: int | None = None,
        top: int | None = None,
    ) -> list[TrainedNetwork]:
        """Return the networks trained in full that keep all limits given, the most accurate first, of equals the
        smaller; at most `top` of them.

        Accuracy is that of the test images, in [0, 1]; bytes are those of the float32 weight file; flash and RAM are
        the bytes of the C code with 8-bit integers.
        """
        fitting = [
            network
            for network in self.networks
            if (max_parameters is None or network.parameters <= max_parameters)
            and (max_macs is None or network.macs <= max_macs)
            and (max_bytes is None or network.file_bytes <= max_bytes)
            and (max_flash is None or network.flash <= max_flash)
            and (max_ram is None or network.ram <= max_ram)
            and (min_accuracy is None or network.accuracy >= min_accuracy)
            and trial in (None, network.trial)
        ]
        return sorted(fitting, key=lambda network: (-network.accuracy, network.size))[:top]

    def with_costs(self, records: Iterable[Record]) -> list[dict[str, Any]]:
        """Return records with flash and RAM, which those of old versions lack, if the run knows its images."""
        data = self.data
        return [
            {**record, **_cost_of_inference(record, data)} if data and "flash" not in record else dict(record)
            for record in records
        ]

    def _check_format(self) -> None:
        version = self.environment.get("format")
        if not isinstance(version, int) or not 1 <= version <= FORMAT:
            versions = self.environment.get("versions")
            writer = versions.get("dacnn-search") if isinstance(versions, dict) else None
            raise RunDirectoryError(
                f"{self.folder}: the format must be 1 to {FORMAT}, but is {version!r}; "
                f"it was written by dacnn-search {writer}"
            )

    def _check_environment(self, needed: Sequence[str]) -> None:
        """Raise RunDirectoryError if the objective or one of the NUMBERS is impossible, or one of a part that is
        `needed` is missing."""
        environment = self.environment
        if self.objective not in get_args(Objective):
            rule = f"objective must be {' or '.join(get_args(Objective))}"
            raise RunDirectoryError(f"{self.environment_file}: {rule}, but is {self.objective!r}")
        for part, key, count in NUMBERS:
            facts = environment.get(part, {})
            found = facts.get(key) if isinstance(facts, dict) else None
            numbers = found if count > 1 and isinstance(found, list) else [found]
            whole = [type(number) for number in numbers] == [int] * count and min(numbers) >= 1
            if not whole and (part in needed or facts != {}):
                rule = "a whole number from 1 on" if count == 1 else "three whole numbers from 1 on"
                raise RunDirectoryError(f"{self.environment_file}: {part} must have {key}, {rule}, but has {found!r}")


def _cost_of_inference(record: Record, data: dict[str, Any]) -> dict[str, int]:
    architecture = Architecture.from_dict(record["architecture"])
    cost = estimate_cost(architecture, tuple(data["input_shape"]), data["num_classes"])
    return {"flash": cost.flash, "ram": cost.ram}


def check_name(name: str | None) -> None:
    """Raise RunDirectoryError for a name that is no plain folder name."""
    try:
        plain_name(name or "run")
    except ValueError as error:
        raise RunDirectoryError(str(error)) from None


def _run_facts(name: str, space: SearchSpace, class_names: Sequence[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a new run's `environment.json` says of its space, settings and machine; secrets are masked."""
    data = space.settings.data
    return {
        "format": FORMAT,
        "name": name,
        "started": now(),
        **settings,
        "command": mask_command(sys.argv),
        "versions": {"python": platform.python_version(), **package_versions()},
        "machine": {
            "host": platform.node(),
            "platform": platform.platform(),
            "cpu": processor_name(),
            "cpus": os.cpu_count(),
            "gpus": gpu_names(),
        },
        "git_commit": git_commit(),
        "data": {
            "name": data.name if data.root is None else f"{data.name} {data.root}",
            "input_shape": space.input_shape,
            "num_classes": space.num_classes,
            "class_names": list(class_names),
            "train": space.summary.train_size,
            "validation": space.summary.validation_size,
            "test": space.summary.test_size,
        },
        "epochs": space.settings.recipe.epochs,
        "recipe": space.settings.recipe.model_dump(mode="json"),
        **_space_facts(space, settings.get("objective", "parameters")),
    }


def _space_facts(space: SearchSpace, objective: str) -> dict[str, Any]:
    """Return the parts of `environment.json` that follow from the space file, which may change on resuming."""
    least, most = space.extremes(objective)
    return {
        "description": space.settings.description,
        "references": [reference.model_dump(mode="json") for reference in space.settings.references],
        "space": {
            "networks": count_networks(space.tree),
            "least": least,
            "most": most,
            "given": space.values,
            "constraints": {name: limit and limit.max for name, limit in space.settings.constraints},
        },
    }
