"""Trackers beside the ledger: TensorBoard, MLflow, Weights & Biases; one that breaks costs the search nothing."""

import copy
import importlib.util
import pickle
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import optuna
import pytest
from ray.tune.callback import CallbackList
from ray.tune.logger import LoggerCallback
from synthetic_run import write_run

from dacnn_search.common.errors import InputError
from dacnn_search.dashboard.tensorboard import write_tensorboard
from dacnn_search.search.report import write_study
from dacnn_search.search.tracking import Tracker, Tracking
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.run_directory import RunDirectory

RESULT = {
    "epoch": 3,
    "parameters": 500,
    "flash": 2000,
    "accuracy": 0.9,
    "loss": None,
    "epochs": [{}],
    "checkpoint": None,
}
SPACE = """\
data: {name: digits, validation: 0.3, subset: 200}
architecture: {sections: 1, depth: {choice: [1, 2]}, width: 4}
recipe: {epochs: 2}
search: {trials: 2}
"""


class Trial:
    """What the callbacks use of a trial of Tune's."""

    config: ClassVar = {"trial": 7, "parameters": 500, "choices": {"width": 4}}

    def __str__(self) -> str:
        return "trial-7"

    def init_local_path(self) -> None:
        pass


class Logger(LoggerCallback):
    """A logger of Ray's: notes its events, and breaks at a result if told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.seen: list[Any] = []
        self.error = error

    def setup(self, **info: Any) -> None:
        self.seen.append("setup")

    def log_trial_start(self, trial: Any) -> None:
        self.seen.append(f"start {trial}")

    def log_trial_result(self, iteration: int, trial: Any, result: Any) -> None:
        if self.error:
            raise self.error
        self.seen.append(result)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self.seen.append(f"{'error' if failed else 'complete'} {trial}")

    def on_experiment_end(self, trials: Any, **info: Any) -> None:
        self.seen.append("end")


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value of the event file in a folder; its records are length, CRC, bytes, CRC."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.glob("events.*")
    data, found, at = file.read_bytes(), {}, 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
        at += 16 + length
    return found


def test_tensorboard_has_every_epoch_of_every_trial(tmp_path: Path) -> None:
    records = [{**r, "flash": 2_000 + r["trial"]} for r in write_run(tmp_path, trials=12, failing=0.3)]
    folder = write_tensorboard(tmp_path, records)
    assert folder == tmp_path / "tensorboard"
    for record in records:
        found = scalars(folder / f"trial-{record['trial']:04d}")
        curve = dict(enumerate(record["curve"]["accuracy"], 1))
        assert found.get("accuracy/validation", {}) == pytest.approx(curve)
        for cost in ("parameters", "flash"):
            assert found[f"trial/{cost}"] == {record["epochs"]: record[cost]}
        (file,) = (folder / f"trial-{record['trial']:04d}").iterdir()
        assert all(choice.encode() in file.read_bytes() for choice in record["choices"])  # as hyperparameters


def test_tensorboard_grows_with_the_ledger_or_is_written_anew(tmp_path: Path) -> None:
    records = write_run(tmp_path, trials=6)
    folder = write_tensorboard(tmp_path, records[:4])
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*/*")}
    write_tensorboard(tmp_path, records)
    assert len(list(folder.iterdir())) == 6
    assert before == {file: file.stat().st_mtime_ns for file in before}
    write_tensorboard(tmp_path, records[:2], anew=True)
    assert len(list(folder.iterdir())) == 2


def test_optuna_numbers_and_times_the_trials_as_the_ledger_does(tmp_path: Path, space_file: Any) -> None:
    space = SearchSpace.from_yaml(space_file(SPACE))
    figures = {"state": "COMPLETE", "fingerprint": "", "parameters": 500, "macs": 9, "accuracy": 0.9, "reason": None}
    figures |= {"epochs": 2, "seconds": 3.0, "time": "2026-03-14T10:00:00+00:00", "started": 2.5, "finished": 6.5}
    records = [{**figures, "trial": trial, "choices": {"depth_1": 2 - trial}} for trial in (1, 0)]
    write_study(tmp_path, space, records)
    study = optuna.load_study(study_name=tmp_path.name, storage=f"sqlite:///{tmp_path}/optuna.db")
    for trial in study.trials:
        assert trial.number == trial.user_attrs["trial"] == 2 - trial.params["depth_1"]
        assert trial.duration is not None
        assert trial.duration.total_seconds() == 4.0


def test_every_event_is_passed_on_and_of_results_the_scalars_by_epoch() -> None:
    """Called as Tune does, through its list of callbacks, which names the arguments."""
    logger, trial = Logger(), Trial()
    tune = CallbackList([Tracker(logger, pytest.fail)])
    tune.setup()
    tune.on_trial_start(iteration=1, trials=[trial], trial=trial)
    tune.on_trial_result(iteration=2, trials=[trial], trial=trial, result=RESULT)
    tune.on_trial_complete(iteration=3, trials=[trial], trial=trial)
    tune.on_trial_error(iteration=3, trials=[trial], trial=trial)
    tune.on_experiment_end(trials=[trial])
    result = {"epoch": 3, "parameters": 500, "flash": 2000, "accuracy": 0.9, "training_iteration": 3}
    assert logger.seen == ["setup", "start trial-7", result, "complete trial-7", "error trial-7", "end"]


def test_a_broken_tracker_is_told_once_and_left_out() -> None:
    said: list[str] = []
    logger, trial = Logger(ConnectionError("https://me:secret@host is gone")), Trial()
    tracker = Tracker(logger, said.append)
    for iteration in range(3):
        tracker.on_trial_result(iteration, [trial], trial, RESULT)
    tracker.on_trial_start(3, [trial], trial)
    assert said == ["Logger broke and is left out from here on: https://***@host is gone"]
    assert logger.seen == []


def test_tune_may_copy_and_pickle_it() -> None:
    tracker = Tracker(Logger(), print)
    assert copy.deepcopy(tracker) is tracker
    pickle.dumps(tracker)


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"not installed: pip install {package}$"):
        Tracking(**{package: "x"})


def test_tracking_of_nothing_is_nothing(small_run: RunDirectory) -> None:
    assert Tracking().begin(small_run, pytest.fail) == []
    assert not (small_run.folder / "tensorboard").exists()


@pytest.mark.filterwarnings("ignore")
def test_mlflow_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(InputError, match="--mlflow needs a server or database that answers, but is bogus://x"):
        Tracking(mlflow="bogus://x")


def test_a_password_in_the_uri_of_mlflow_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "https://me:secret@host"

    def refuse(tracking_uri: str) -> None:
        raise ConnectionError(f"{tracking_uri} is not there")

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=refuse))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(InputError, match="answers, but is https://\\*\\*\\*@host") as caught:
        Tracking(mlflow=uri)
    assert "secret" not in str(caught.value)


def search_with(tracking: Tracking, space: Path, results: Path) -> RunDirectory:
    from dacnn_search.search.cluster.ray_cluster import RaySession
    from dacnn_search.search.listener import Listener
    from dacnn_search.search.request import prepare
    from dacnn_search.search.search import search_in_session

    with RaySession() as session:
        request = prepare(space, results=results, settings={})
        return search_in_session(request, session, listener=Listener(), tracking=tracking)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_search_writes_tensorboard_files_of_its_trials(tmp_path: Path, space_file: Any) -> None:
    run = search_with(Tracking(tensorboard=True), space_file(SPACE), tmp_path / "results")
    for record in run.records:
        found = scalars(run.folder / "tensorboard" / f"trial-{record['trial']:04d}")
        assert found["accuracy/validation"][record["epochs"]] == pytest.approx(record["accuracy"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_search_reports_to_mlflow_and_wandb(tmp_path: Path, space_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run = search_with(Tracking(wandb="tests", mlflow=uri), space_file(SPACE), tmp_path / "results")
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(run.folder.name)
    found = {entry.info.run_name: entry.data for entry in client.search_runs([experiment.experiment_id])}
    for record in run.records:
        data = found[f"trial-{record['trial']}"]
        assert data.metrics["accuracy"] == pytest.approx(record["accuracy"])
        assert data.metrics["parameters"] == record["parameters"]
        assert data.metrics["flash"] == record["flash"]
        assert data.params["choices/depth_1"] == str(record["choices"]["depth_1"])
    assert len(list((run.folder / "wandb").glob("offline-run-*/*.wandb"))) == len(run.records)
