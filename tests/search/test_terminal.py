import dataclasses
import io
from pathlib import Path

from rich.console import Console

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.search.listener import Snapshot
from dacnn_search.search.terminal import Terminal, front_table
from dacnn_search.storage.trained import TrainedNetwork


def record(trial, parameters, accuracy):
    return {
        "sequence": trial + 1,
        "trial": trial,
        "state": "COMPLETE",
        "reason": None,
        "fingerprint": f"{trial:016x}",
        "architecture": Architecture((Section(2, 8),)).to_dict(),
        "parameters": parameters,
        "macs": 10 * parameters,
        "flash": 3 * parameters,
        "ram": 512,
        "accuracy": accuracy,
        "epochs": 3,
        "seconds": 1.5,
    }


def running_trial(trial, parameters):
    values = {"trial": trial, "fingerprint": "f", "parameters": parameters, "flash": 3 * parameters}
    return {**values, "epoch": 2, "epochs": 12, "accuracy": 0.5}


FRONT = [record(3, 1_000, 0.9), record(1, 20_000, 0.975)]
SNAPSHOT = Snapshot("searching", None, 61.0, 90.0, 7, 50, [running_trial(8, 512)], FRONT, 0.8)


def test_without_a_terminal_there_are_plain_lines_and_the_same_in_the_log(tmp_path):
    stream = io.StringIO()
    with Terminal(stream) as terminal:
        terminal.began(tmp_path)
        terminal.update(SNAPSHOT)
        terminal.update(SNAPSHOT)  # at once again: not worth another line
        terminal.finished(FRONT[0])
    (line,) = stream.getvalue().splitlines()
    assert line == (
        "searching: 7/50 trials, 1 running, best 97.50% with 20.0 k parameters, front of 2, hypervolume 0.800, "
        "about 1 min 30 s left"
    )
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert log[0].endswith(line)
    assert "trial 3 COMPLETE: 1,000 parameters, validation accuracy 90.00%, 3 epochs in 1.5 s" in log[1]


def test_the_log_tells_what_the_search_keeps_small(tmp_path):
    with Terminal(io.StringIO()) as terminal:
        terminal.began(tmp_path)
        terminal.update(dataclasses.replace(SNAPSHOT, objective="flash"))
        terminal.finished(FRONT[0])
        terminal.retrained({**FRONT[0], "seed": 1, "test_accuracy": 0.91})
    log = (tmp_path / "log.txt").read_text()
    assert "trial 3 COMPLETE: 3,000 bytes of flash, validation accuracy 90.00%" in log
    assert "retrained trial 3 by seed 1 (3,000 bytes of flash), test accuracy 91.00%" in log


def test_a_retraining_counts_full_trainings(tmp_path):
    stream = io.StringIO()
    with Terminal(stream) as terminal:
        for state in ("retraining", "interrupted"):
            terminal.update(dataclasses.replace(SNAPSHOT, state=state, retraining={"finished": 1, "trainings": 4}))
    assert [line.partition(",")[0] for line in stream.getvalue().splitlines()] == [
        "retraining: 1/4 full trainings",
        "interrupted: 1/4 full trainings",
    ]


def test_a_change_of_state_is_told_at_once():
    stream = io.StringIO()
    with Terminal(stream) as terminal:
        terminal.update(SNAPSHOT)
        terminal.update(Snapshot("failed", "5 trials in a row failed: out of memory", 62, None, 8, 50))
    assert "failed: 8/50 trials, 5 trials in a row failed: out of memory" in stream.getvalue()


def shown(terminal, width=80):
    """The rows of the live display as they stand now."""
    stream = io.StringIO()
    Console(file=stream, width=width).print(terminal._display())
    return stream.getvalue().splitlines()


def test_a_terminal_shows_running_trials_and_the_front():
    terminal = Terminal(io.StringIO())
    terminal.update(SNAPSHOT)
    whole, running, best, *front = shown(terminal, 140)
    assert whole.startswith("searching ━━")
    assert "7/50 trials, about 1 min 30 s left (until " in whole
    assert best == "best 97.50% with 20.0 k parameters, front of 2, hypervolume 0.800"
    assert running.split() == ["trial", "8", "512", "parameters", "━━╸", "epoch", "2/12", "50.0%"]
    assert [row.split()[1:5] for row in front] == [
        ["1.00", "k", "parameters", "90.00%"],
        ["20.0", "k", "parameters", "97.50%"],
    ]


def test_rows_fit_the_terminal_and_none_is_wrapped():
    terminal = Terminal(io.StringIO())
    running = [running_trial(n, 512 * 10**n) for n in range(3)]
    terminal.update(dataclasses.replace(SNAPSHOT, running=running))
    rows = shown(terminal)
    assert len({row.index("epoch") for row in rows[1:4]}) == 1
    for width in (30, 80):
        assert len(shown(terminal, width)) == len(rows) == 7
        assert all(len(row) <= width for row in shown(terminal, width))


def test_what_looks_like_markup_is_shown_as_it_is():
    terminal = Terminal(io.StringIO())
    terminal.update(dataclasses.replace(SNAPSHOT, message="[Errno 28] no space [/tmp]"))
    assert "7/50 trials, [Errno 28] no space [/tmp]" in shown(terminal, 140)[0]


def test_while_nothing_runs_the_workers_start():
    terminal = Terminal(io.StringIO())
    terminal.update(Snapshot("searching", None, 3.0, None, 0, 50))
    assert "0/50 trials, starting the workers, 3.0 s" in shown(terminal)[0]


def test_how_it_ended_stays_on_a_terminal():
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal._console = Console(file=stream, force_terminal=True, width=140)
    with terminal:
        terminal.update(SNAPSHOT)
        terminal.update(dataclasses.replace(SNAPSHOT, state="interrupted"))
    assert "interrupted: 7/50 trials, best 97.50%" in stream.getvalue()
    assert "hypervolume 0.800\n" in stream.getvalue()  # and nothing about the time left


def test_where_flash_is_kept_small_it_is_what_is_shown():
    stream = io.StringIO()
    terminal = Terminal(stream)
    with terminal:
        terminal.update(dataclasses.replace(SNAPSHOT, objective="flash"))
    assert "best 97.50% with 60.0 kB of flash, front of 2" in stream.getvalue()
    assert "trial 8  1.54 kB of flash" in " ".join(shown(terminal))


def test_front_table_shows_mean_test_accuracy_and_no_markup():
    records = tuple({**FRONT[1], "test_accuracy": accuracy} for accuracy in (0.95, 0.97))
    sizes = (20_000, 200_000, 80_000, 24_000, 2_000)
    networks = [TrainedNetwork(Path("best/01"), records, Architecture((Section(2, 8),)), 1, *sizes)]
    stream = io.StringIO()
    Console(file=stream, width=140).print(front_table(FRONT, networks))
    small, large = stream.getvalue().splitlines()[-2:]
    assert small.split()[:2] == ["3", "1,000"]
    assert "96.00% ±1.41" in large
    assert "1 section, 8 wide, 2 deep" in large
    narrow = io.StringIO()
    Console(file=narrow, width=70).print(front_table(FRONT, networks))
    assert "20,000" in narrow.getvalue()
    assert all(len(line) <= 70 for line in narrow.getvalue().splitlines())
