"""The export of C code as a user calls it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from commands import exit_code

from dacnn_search import Architecture, build, export_network
from dacnn_search.common.errors import DataError, ExportError, InputError
from dacnn_search.dashboard.page import write_dashboard
from dacnn_search.data.dataset import DataConfig, load
from dacnn_search.export.__main__ import main
from dacnn_search.export.best import write_best
from dacnn_search.export.c import code
from dacnn_search.export.c.options import CodeOptions, describe_code
from dacnn_search.export.exporter import export_folder, export_run
from dacnn_search.export.folder import read_folder, read_metrics, write_folder
from dacnn_search.export.formats import Formats
from dacnn_search.network.architecture import Section

C = Formats(("c",))


def export(*arguments, expected=0):
    assert exit_code(main, *arguments) == expected


def test_code_is_written_measured_and_told(run_copy, capsys):
    export(run_copy.folder, "--c", "--c-name", "digits", "--top", "1")
    folder = run_copy.best()[0].folder
    files = {path.name for path in (folder / "c").iterdir()}
    assert files == {"digits.c", "digits.h", "weights.h", "main.c", "Makefile", "README.md"}
    assert not (folder / "model.onnx").exists()
    metrics = read_metrics(folder)
    measured, cost = metrics["c"], run_copy.space.cost(run_copy.best()[0].architecture)
    assert (measured["flash"], measured["ram"]) == (cost.flash, cost.ram)
    assert measured["images"] == 359
    assert measured["float_accuracy"] == pytest.approx(metrics["files"]["weights.safetensors"]["accuracy"])
    assert abs(measured["accuracy"] - measured["float_accuracy"]) < 0.02
    assert measured["compared"] == (359 if shutil.which("cc") and shutil.which("make") else 0)
    printed = capsys.readouterr().out
    assert f"{cost.flash:,} bytes of flash, {cost.ram:,} of RAM" in printed
    assert f"{measured['accuracy']:.2%} of 359 test images" in (folder / "README.md").read_text()
    assert f"#define DIGITS_ARENA {cost.ram} " in (folder / "c" / "digits.h").read_text()


def test_other_formats_and_code_together(run_copy):
    export(run_copy.folder, "--formats", "safetensors,c", "--float16", "--trial", "5")
    folder = run_copy.best(trial=5)[0].folder
    metrics = read_metrics(folder)
    assert "weights-float16.safetensors" in metrics["files"]
    assert (folder / "weights-float16.safetensors").exists()
    assert all((folder / "c" / name).exists() for name in metrics["c"]["files"])


def test_a_new_export_removes_old_code_and_leaves_files_of_a_user(run_copy):
    (network,) = run_copy.best(top=1)
    export_run(run_copy, None, C, top=1)
    (network.folder / "c" / "board.c").write_text("of a user")
    write_best(run_copy)
    assert (network.folder / "c" / "network.c").exists()
    export_run(run_copy, None, Formats(("safetensors",)), top=1)
    assert [path.name for path in (network.folder / "c").iterdir()] == ["board.c"]
    assert "c" not in read_metrics(network.folder)
    (network.folder / "c" / "board.c").unlink()
    export_run(run_copy, None, C, top=1)
    export_run(run_copy, None, Formats(("safetensors",)), top=1)
    assert not (network.folder / "c").exists()


@pytest.mark.parametrize("listed", ["../../notes.txt", "/etc/passwd", 3, None])
def test_a_damaged_list_of_code_removes_nothing_else(run_copy, listed):
    folder = write_best(run_copy)[0]
    (folder / "c").mkdir()
    outside, inside = folder.parent / "notes.txt", folder / "c" / "board.c"
    for path in (outside, inside):
        path.write_text("of a user")
    metrics = read_metrics(folder)
    (folder / "metrics.json").write_text(json.dumps({**metrics, "c": {"files": [listed]}}))
    export_folder(folder, None, Formats(("safetensors",)))
    assert outside.exists()
    assert inside.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arena", "1kB"], "C code of this network needs 1,644 bytes of RAM, but may have 1,000"),
        (["--target", "cortex-m99"], "one of cortex-m0plus, cortex-m4, cortex-m33, but is 'cortex-m99'"),
        (["--c-name", "my net"], "lower-case letters, digits and underscores"),
        *((["--c-name", name], f"is '{name}'") for name in ("weights", "run", "stdint", "string", "int", "uint8")),
        (["--target", "cortex-m4", "--formats", "safetensors"], "are for C code: add --c"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(run_copy, capsys, arguments, message):
    export(run_copy.folder, *([] if "--formats" in arguments else ["--c"]), *arguments, expected=2)
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (run_copy.folder / "best").exists()


def test_no_goal_of_the_makefile_is_a_name():
    makefile = (Path(code.__file__).parent / "Makefile.jinja").read_text()
    goals = makefile.rpartition(".PHONY: ")[2].split()
    assert "run" in goals
    for goal in goals:
        with pytest.raises(InputError, match="not be taken"):
            CodeOptions(name=goal)


def test_an_arena_that_is_just_large_enough(run_copy):
    (network,) = run_copy.best(top=1)
    ram = run_copy.space.cost(network.architecture).ram
    export(run_copy.folder, "--c", "--top", "1", "--arena", ram)
    assert read_metrics(network.folder)["c"]["ram"] == ram


def test_missing_tools_for_a_target_are_named(run_copy, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    export(run_copy.folder, "--c", "--target", "cortex-m4", expected=2)
    assert "must be installed (in Debian: apt install" in capsys.readouterr().err


def test_without_a_compiler_the_code_is_written_and_that_is_told(run_copy, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    export(run_copy.folder, "--c", "--top", "1")
    assert "no C compiler here" in capsys.readouterr().out
    assert read_metrics(run_copy.best()[0].folder)["c"]["compared"] == 0


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("make")), reason="needs make and a C compiler")
def test_code_that_computes_something_else_is_no_export(run_copy, monkeypatch):
    write = code.write_source

    def write_damaged(folder, *arguments):
        files = write(folder, *arguments)
        source = folder / "network.c"
        source.write_text(source.read_text().replace("a > b ? a : b", "a < b ? a : b"))  # pooling
        return files

    monkeypatch.setattr(code, "write_source", write_damaged)
    with pytest.raises(ExportError, match=r"must give the scores of its reference, but .* images get others"):
        export_run(run_copy, None, C, trial=3)
    assert not (run_copy.best(trial=3)[0].folder / "c").exists()


def test_a_network_without_batch_norm_is_refused(tmp_path):
    network = build(Architecture((Section(1, 4),), batch_norm=False), 10, 1)
    with pytest.raises(InputError, match="C code needs a network with batch norm, but this one is: 1 section"):
        export_network(network, tmp_path / "out", data=load(DataConfig(name="digits")), formats=["c"])
    assert not (tmp_path / "out").exists()


def test_networks_in_memory_need_images(tmp_path):
    network = build(Architecture((Section(1, 4),)), 10, 1)
    with torch.no_grad():
        folder = export_network(
            network, tmp_path / "out", data=load(DataConfig(name="digits")), formats=["c"], c_name="mine"
        )
    assert (folder / "c" / "mine.h").exists()
    with pytest.raises(InputError, match="at least 1 validation image"):
        export_network(network, tmp_path / "none", formats=["c"])


def test_a_folder_whose_data_are_gone_can_not_become_integers(run_copy, tmp_path):
    folder = write_best(run_copy)[0]
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("name: digits", f"name: npz\n  root: {tmp_path}/gone.npz"))
    with pytest.raises(DataError, match=r"gone\.npz"):
        export_folder(folder, tmp_path / "out", C)


def test_a_loss_of_more_than_a_point_is_told(run_copy):
    (folder,) = export_run(run_copy, None, C, top=1)
    config, weights, metrics = read_folder(folder)
    metrics["c"] |= {"accuracy": 0.5, "float_accuracy": 0.515}
    write_folder(folder, config, weights, metrics, folder.name)
    assert "8 bits cost 1.5 points of accuracy. What may help: " in (folder / "README.md").read_text()
    measured = {"name": "network", "flash": 3000, "ram": 500, "accuracy": 0.95, "float_accuracy": 0.965, "targets": {}}
    told = "\n".join(describe_code({**measured, "compared": 359}))
    assert "8 bits cost 1.5 points of accuracy" in told
    assert "What may help" in told
    assert "cost" not in "\n".join(describe_code({**measured, "float_accuracy": 0.955, "compared": 359}))


def test_the_dashboard_is_written_again(run_copy):
    page = write_dashboard(run_copy.folder)
    before = page.read_text()
    export_run(run_copy, None, C, top=1)
    assert page.read_text() != before


def test_options_are_checked_before_anything_is_written():
    with pytest.raises(InputError, match="a name in C"):
        CodeOptions(name="3d")
