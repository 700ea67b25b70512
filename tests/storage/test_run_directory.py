"""A run directory as a search, a user and a page read it."""

import json
import sys
from pathlib import Path

import pytest
from synthetic_run import write_run

from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.front import Scale
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.run_directory import RunDirectory

SPACE = """\
name: tiny
data: {name: digits}
architecture: {sections: 1, depth: {range: {low: 1, high: 3}}, width: 4}
"""


def new_run(results: Path, text: str = SPACE, name: str | None = None) -> RunDirectory:
    (results / "space.yaml").write_text(text)
    space = SearchSpace.from_yaml(results / "space.yaml")
    return RunDirectory.create(results, name, space, ["0", "1"], {"seed": 0, "trials": 4})


def test_names_are_numbered_unless_given(tmp_path: Path) -> None:
    assert [new_run(tmp_path).folder.name for _ in range(3)] == ["tiny", "tiny-2", "tiny-3"]
    with pytest.raises(RunDirectoryError, match="needs a name that is not taken; to go on with this one: --resume"):
        new_run(tmp_path, name="tiny")
    with pytest.raises(RunDirectoryError, match="a name is one printable folder name"):
        new_run(tmp_path, name="../outside")


def test_the_text_that_was_checked_is_kept_and_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE)
    space = SearchSpace.from_yaml(file)
    file.write_text(SPACE.replace("width: 4", "width: 8"))
    run = RunDirectory.create(tmp_path, None, space, ["0", "1"], {"seed": 0})
    assert run.space_file.read_text() == SPACE
    assert run.space.values == space.values == run.environment["space"]["given"]
    file.unlink()
    run.set_space(space)
    assert run.space_file.read_text() == SPACE


def test_no_password_of_the_command_line_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--mlflow", "https://me:secret@host", "--token", "hidden"])
    text = new_run(tmp_path).environment_file.read_text()
    assert "secret" not in text
    assert "hidden" not in text
    assert json.loads(text)["command"] == ["run.py", "--mlflow", "https://***@host", "--token", "***"]


def test_a_snapshot_stays_as_it_is_while_the_search_goes_on(tmp_path: Path) -> None:
    records = write_run(tmp_path, trials=6)
    run, snapshot = RunDirectory(tmp_path), RunDirectory(tmp_path, snapshot=True)
    with Ledger.open(run.trials_file) as ledger:
        ledger.append({key: value for key, value in records[0].items() if key != "sequence"})
    run.set_environment(name="another", trials=9)
    assert (len(run.records), run.name) == (7, "another")
    assert (len(snapshot.records), snapshot.name) == (6, tmp_path.name)


def test_a_snapshot_needs_only_the_ledger_and_the_environment(tmp_path: Path) -> None:
    records = write_run(tmp_path, trials=5)
    for name in ("status.json", "retrained.jsonl", "space.yaml"):
        (tmp_path / name).unlink()
    (tmp_path / "environment.json").write_text('{"format": 9}')
    snapshot = RunDirectory(tmp_path, snapshot=True)
    sizes = [record["parameters"] for record in records]
    assert (snapshot.name, snapshot.status, snapshot.networks) == (tmp_path.name, {}, [])
    assert snapshot.scale == Scale(min(sizes), max(sizes), 0.1)
    with pytest.raises(RunDirectoryError, match=r"must hold space.yaml, but this one does not"):
        RunDirectory(tmp_path)
    (tmp_path / "trials.jsonl").unlink()
    with pytest.raises(RunDirectoryError, match=r"must hold trials\.jsonl"):
        RunDirectory(tmp_path, snapshot=True)


def test_elapsed_is_that_of_the_ledger_whatever_the_status_says(tmp_path: Path) -> None:
    records = write_run(tmp_path, trials=5)
    (tmp_path / "status.json").write_text('{"state": "finished", "elapsed": 0}')
    assert RunDirectory(tmp_path, snapshot=True).elapsed == max(record["finished"] for record in records) > 0
    write_run(tmp_path / "none", trials=0)
    assert RunDirectory(tmp_path / "none").elapsed == 0


def test_best_keeps_all_limits(tmp_path: Path) -> None:
    write_run(tmp_path, trials=60)
    run = RunDirectory(tmp_path)
    small, *_, large = run.networks
    assert run.best()[0].accuracy == max(network.accuracy for network in run.networks)
    assert run.best(max_parameters=small.parameters) == [small]
    assert run.best(max_macs=small.macs, top=1) == run.best(max_bytes=small.file_bytes) == [small]
    assert run.best(trial=large.trial) == [large]
    assert len(run.best(top=2)) == 2
    assert run.best(min_accuracy=1.1) == []
