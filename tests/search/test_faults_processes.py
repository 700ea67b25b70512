"""Faults in real runs: processes killed and interrupted, disks that fill up, nodes that die."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import ENDLESS, SPACE, Run, let_run, records_in, running, status_of, wait_until

from dacnn_search.common.files import sweep
from dacnn_search.replay import replay
from dacnn_search.storage.front import front_of
from dacnn_search.storage.run_directory import RunDirectory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ORPHAN_SECONDS = 10.0
SLOW_TRIALS = SPACE.replace("epochs: 2", "epochs: 4000")  # longer than any test


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    (tmp_path / "slow.yaml").write_text(SLOW_TRIALS.replace("small", "slow"), encoding="utf-8")
    return tmp_path


def start(folder: Path, *more: object, space: str = "space.yaml") -> list[object]:
    return ["--space", folder / space, "--results", folder / "results", *more]


def finish(folder: Path, *more: object) -> tuple[int, str]:
    with running("--resume", folder, *more) as run:
        return run.end()


def no_orphans(run: Run) -> None:
    """Nothing that it started is there some seconds after it ended."""
    wait_until(lambda: not run.processes(), patience=ORPHAN_SECONDS)


def check_complete(folder: Path, trials: int, stopped: bool = False) -> None:
    """stopped: whether some may have been stopped early."""
    records = records_in(folder)
    assert len(records) == trials
    assert sorted(r["trial"] for r in records) == list(range(trials))
    assert len({r["fingerprint"] for r in records}) == trials
    assert {r["state"] for r in records} - ({"PRUNED"} if stopped else set()) == {"COMPLETE"}
    assert [r["trial"] for r in RunDirectory(folder).front] == [r["trial"] for r in front_of(records)]
    assert status_of(folder)["state"] == "finished"
    assert replay(RunDirectory(folder))[1:] == (0, None)


def test_kills_of_the_driver_at_random_moments_lose_and_repeat_nothing(folder):
    (folder / "space.yaml").write_text(ENDLESS, encoding="utf-8")
    generator = random.Random(0)
    run_folder = folder / "results" / "small"
    arguments = start(folder)
    known: list[dict] = []
    for _ in range(8):
        with running(*arguments) as run:
            let_run(run, run_folder, generator, longest=5.0)
            run.signal(signal.SIGKILL)
            run.process.wait()
            no_orphans(run)
        if run_folder.exists():
            arguments = ["--resume", run_folder]
        records = records_in(run_folder)
        assert records[: len(known)] == known
        known = records
    trials = len(known) + 4
    code, output = finish(run_folder, "--trials", trials)
    assert code == 0, output
    assert records_in(run_folder)[: len(known)] == known
    check_complete(run_folder, trials, stopped=True)


KILL = """
import os, signal
from dacnn_search.storage import ledger
write, opened, count = os.write, ledger.Ledger.__init__, 0
files = set()
def init(self, path, *rest):
    opened(self, path, *rest)
    if path.name == "{ledger}": files.add(self._descriptor)
def die(): os.kill(os.getpid(), signal.SIGKILL)
def write_or_die(descriptor, data):
    global count
    count += descriptor in files
    if descriptor in files and count == 3:
        if "{moment}" == "before": die()
        if "{moment}" == "half": write(descriptor, data[:40]); die()
        write(descriptor, data)
        die()
    return write(descriptor, data)
ledger.Ledger.__init__, os.write = init, write_or_die
"""


@pytest.mark.parametrize("ledger", ["trials.jsonl", "proposals.jsonl"])
def test_a_kill_at_each_write_point_of_a_ledger(folder, ledger):
    run_folder = folder / "results" / "small"
    arguments = start(folder, "--trials", 40)
    known: list[dict] = []
    for moment in ("before", "half", "after"):
        with running(*arguments, before=KILL.format(ledger=ledger, moment=moment)) as run:
            _, output = run.end()
            assert run.process.returncode == -signal.SIGKILL, output
        records = records_in(run_folder)
        assert records[: len(known)] == known
        known, arguments = records, ["--resume", run_folder, "--trials", 40]
    trials = len(known) + 4
    code, output = finish(run_folder, "--trials", trials)
    assert code == 0, output
    assert records_in(run_folder)[: len(known)] == known
    check_complete(run_folder, trials)


def test_a_killed_worker_costs_one_trial_its_time(folder):
    run_folder = folder / "results" / "small"
    with running(*start(folder, "--trials", 12)) as run:
        wait_until(lambda: len(records_in(run_folder)) >= 2, run)
        os.kill(run.training()[0], signal.SIGKILL)
        code, output = run.end()
    assert code == 0, output
    assert "it is trained again" in output
    check_complete(run_folder, 12)


def in_workers(folder: Path, code: str) -> str:
    """Code for the driver, after which its workers do `code` (indented by 8) as a trial begins."""
    patch = f"""
import os
if "RAY_RAYLET_PID" in os.environ:
    import dacnn_search.search.tune as worker
    begin = worker.TrialWorker._start_training
    def changed(self):
{code}
        return begin(self)
    worker.TrialWorker._start_training = changed
"""
    (folder / "patched").mkdir()
    (folder / "patched" / "sitecustomize.py").write_text(patch, encoding="utf-8")
    paths = [str(folder / "patched"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return f"import os; os.environ['PYTHONPATH'] = {os.pathsep.join(paths)!r}"


def test_a_trial_that_always_kills_its_worker_fails_and_the_others_go_on(folder):
    text = SPACE.replace("{choice: [3, 4, 5, 6, 8]}", "{choice: [3, 7]}")
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    lethal = """
        if self._config["architecture"]["sections"][0]["width"] == 7:
            os._exit(1)
    """
    with running(*start(folder, "--trials", 4), before=in_workers(folder, lethal)) as run:
        code, output = run.end()
    records = records_in(folder / "results" / "small")
    failed = [r for r in records if r["choices"]["width"] == 7]
    assert failed, "no such network was proposed"
    assert {r["reason"] for r in failed} == {"its worker process died 3 times"}
    assert {r["state"] for r in records if r["choices"]["width"] == 3} <= {"COMPLETE"}
    assert code == 0, output
    assert "Traceback" not in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_search_in_order(folder, number, code):
    run_folder = folder / "results" / "small"
    with running(*start(folder, "--trials", 200)) as run:
        wait_until(lambda: len(records_in(run_folder)) >= 3, run)
        run.signal(number)
        ended, output = run.end()
        assert ended == code, output
        assert f"--resume {run_folder}" in output
        assert "Traceback" not in output
        no_orphans(run)
    status = status_of(run_folder)
    assert status["state"] == "interrupted"
    records = records_in(run_folder)
    assert status["finished"] == len(records)
    assert (run_folder / "dashboard.html").exists()
    assert "interrupted after" in (run_folder / "log.txt").read_text(encoding="utf-8")
    ended, output = finish(run_folder, "--trials", len(records) + 3)
    assert ended == 0, output
    check_complete(run_folder, len(records) + 3)


def test_the_second_signal_leaves_at_once(folder):
    run_folder = folder / "results" / "small"
    with running(*start(folder, "--trials", 200)) as run:
        wait_until(lambda: len(records_in(run_folder)) >= 3, run)
        run.processes()
        run.signal(signal.SIGINT)
        time.sleep(0.2)
        run.signal(signal.SIGINT)
        code, output = run.end()
        assert code == 130, output
        assert "a second time" in output
        no_orphans(run)
    records = records_in(run_folder)
    code, output = finish(run_folder, "--trials", len(records) + 2)
    assert code == 0, output
    check_complete(run_folder, len(records) + 2)


def test_a_retraining_survives_signals_and_kills(folder):
    """Three times it is ended while it trains; each time it goes on from its checkpoint."""
    before = (
        "import sys, dacnn_search.search.retrain; sys.modules['dacnn_search.search.retrain'].CHECKPOINT_SECONDS = 0.0"
    )
    text = SPACE.replace("top: 0", "top: 1, epochs: 400").replace("trials: 6", "trials: 2")
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    run_folder, alone = folder / "results" / "small", ("--concurrency", 1)

    def epoch() -> int:
        """How far it is."""
        status = status_of(run_folder)
        told = [training["epoch"] for training in status["running"]] if status["state"] == "retraining" else []
        return max(told, default=0)

    def go_on(run: Run) -> int:
        """Wait until it has gone on for 50 epochs; where it began to."""
        wait_until(epoch, run)
        first = epoch()
        wait_until(lambda: epoch() >= first + 50, run)
        return first

    with running(*start(folder, *alone), before=before) as run:
        go_on(run)
        run.signal(signal.SIGKILL)
        run.process.wait()
        no_orphans(run)
    (run_folder / "status.json").unlink()
    with running("--resume", run_folder, *alone, before=before) as run:
        assert go_on(run) > 45
        run.signal(signal.SIGINT)
        code, output = run.end()
        assert code == 130, output
        assert f"--resume {run_folder}" in output
        assert "Traceback" not in output
        no_orphans(run)
    assert status_of(run_folder)["state"] == "interrupted"
    with running("--resume", run_folder, *alone, before=before) as run:
        assert go_on(run) > 95
        for worker in (process for process, name in run.processes().items() if "train_fully" in name):
            os.kill(worker, signal.SIGKILL)
        code, output = run.end()
    assert code == 0, output
    assert "its worker process died" in output
    (record,) = RunDirectory(run_folder).retrained
    assert (record["epochs"], len(record["curve"]["train_loss"])) == (400, 400)
    assert len(records_in(run_folder)) == 2
    assert not (run_folder / "checkpoints").exists()


STARTING = [  # a function, seconds from its begin to the signal, whether there is a run directory by then, the signal
    ("dacnn_search.run.prepare", 0.0, False, signal.SIGINT),
    ("ray.init", 0.0, False, signal.SIGINT),
    ("ray.init", 0.5, False, signal.SIGINT),
    ("ray.init", 1.5, False, signal.SIGINT),
    ("dacnn_search.search.search.load", 0.0, False, signal.SIGINT),
    ("dacnn_search.search.search.demand_of_space", 0.0, False, signal.SIGINT),
    ("dacnn_search.search.search.sweep", 0.0, True, signal.SIGINT),
    ("dacnn_search.search.search.fix_run_precision", 0.0, True, signal.SIGINT),
    ("ray.init", 0.5, False, signal.SIGTERM),  # which Ray would handle
    ("dacnn_search.search.search.sweep", 0.0, True, signal.SIGTERM),
]


@pytest.mark.parametrize(("moment", "seconds", "begun", "number"), STARTING)
def test_a_signal_while_it_starts(folder, moment, seconds, begun, number):
    """It comes while the space is read, before Ray starts and while it does, before the run directory is there and
    after. The function is made to last ten seconds longer, so that the signal comes before it ends."""
    module, _, name = moment.rpartition(".")
    before = f"""
import {module}, os, sys, threading, time
module = sys.modules["{module}"]
begin = module.{name}
def signalled(*arguments, **more):
    threading.Timer({seconds}, os.kill, (os.getpid(), {int(number)})).start()
    if not {seconds}:
        time.sleep(10)
    result = begin(*arguments, **more)
    time.sleep(10)
    return result
module.{name} = signalled
"""
    run_folder = folder / "results" / "small"
    with running(*start(folder), before=before) as run:
        wait_until(lambda: (run.processes(), run.process.poll() is not None)[1])
        code, output = run.end()
        no_orphans(run)
    assert code == 128 + number, output
    if not begun:
        assert output == "interrupted before the search began\n"
        assert not (folder / "results").exists()
    else:
        assert f"--resume {run_folder}" in output
        assert "Traceback" not in output
        code, output = finish(run_folder, "--trials", 2)
        assert code == 0, output
        check_complete(run_folder, 2)


def test_a_second_process_is_refused_at_once(folder):
    run_folder = folder / "results" / "slow"
    with running(*start(folder, space="slow.yaml")) as first:
        wait_until(lambda: (run_folder / ".lock").exists() and status_of(run_folder)["state"], first)
        code, output = finish(run_folder)
        assert code == 2
        assert f"in use by process {first.process.pid}" in output
        first.signal(signal.SIGKILL)
        first.process.wait()
        with running("--resume", run_folder) as second:
            wait_until(lambda: str(second.process.pid) in (run_folder / ".lock").read_text(), second)


def first_epoch(run: Run, folder: Path) -> int:
    """Return the first epoch of a resumed trial that the status tells."""
    epochs: list[int] = []

    def is_told() -> bool:
        status = status_of(folder)
        fresh = status["state"] == "searching" and status["updated"] > before["updated"]
        epochs.extend(trial["epoch"] for trial in status["running"] if fresh and trial["epoch"])
        return bool(epochs)

    before = status_of(folder)
    wait_until(is_told, run)
    return epochs[0]


def test_a_long_trial_is_carried_on_from_its_checkpoint(folder):
    before = "import dacnn_search.search.tune as tuning; tuning.CHECKPOINT_SECONDS = 0.0"
    text = SPACE.replace("epochs: 2", "epochs: 400").replace("trials: 6", "trials: 1, concurrency: 1")
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    run_folder = folder / "results" / "small"
    with running(*start(folder), before=before) as run:
        wait_until(lambda: len(list((run_folder / "checkpoints").glob("*.checkpoint"))) == 2, run)
        os.kill(run.training()[0], signal.SIGKILL)
        run.processes()
        time.sleep(2.0)
        run.signal(signal.SIGKILL)
        run.process.wait()
    kept = sorted((run_folder / "checkpoints").glob("*.checkpoint"))
    assert len(kept) == 2
    kept[-1].write_bytes(kept[-1].read_bytes()[:-1])
    with running("--resume", run_folder, before=before) as run:
        told = first_epoch(run, run_folder)
        code, output = run.end()
    assert code == 0, output
    assert told > int(kept[0].name.split(".")[1])  # from the one before the damaged
    record = records_in(run_folder)[0]
    assert (record["state"], record["epochs"], len(record["curve"]["loss"])) == ("COMPLETE", 400, 400)
    assert not (run_folder / "checkpoints").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can't be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, room: int) -> None:
    """Leave that many KiB of a file system."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filling").write_bytes(b"x" * max(0, free - room * 1024))


@pytest.mark.parametrize("room", [0, 30])
def test_a_full_disk(folder, small_disk, room):
    run_folder = small_disk / "small"
    with running("--space", folder / "space.yaml", "--results", small_disk, "--trials", 300) as run:
        wait_until(lambda: len(records_in(run_folder)) >= 2, run)
        fill(small_disk, room)
        code, output = run.end()
        assert code == 1, output
        assert "can't be written: No space left on device" in output
        assert "Traceback" not in output
        no_orphans(run)
    records = records_in(run_folder)
    assert len(records) >= 2
    json.loads((run_folder / "status.json").read_text())
    (small_disk / "filling").unlink()
    code, output = finish(run_folder, "--trials", len(records) + 2)
    assert code == 0 or "dashboard" in output, output
    assert len(records_in(run_folder)) == len(records) + 2


def test_workers_that_ray_kills_for_memory_are_out_of_memory(folder):
    environment = {"RAY_memory_usage_threshold": "0.02", "RAY_memory_monitor_refresh_ms": "100"}
    with running(*start(folder, space="slow.yaml"), **environment) as run:
        code, output = run.end()
    assert code == 1, output
    records = records_in(folder / "results" / "slow")
    assert "trials in a row failed for one reason: out of memory" in output
    assert {r["state"] for r in records} == {"FAIL"}
    assert {r["reason"] for r in records} == {"out of memory: Ray killed its worker"}


def memory(name: str) -> int:
    """A figure of the system's memory in bytes."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return 1024 * int(lines[name].removesuffix("kB"))


def test_a_worker_that_ray_kills_for_memory_costs_its_trial_alone(folder):
    """The networks of width 7 take memory without end; the monitor kills their workers, and the others are trained."""
    text = SPACE.replace("{choice: [3, 4, 5, 6, 8]}", "{choice: [3, 7]}").replace(
        "seed: 1", "seed: 1, sampler: tpe, concurrency: 1"
    )
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    greedy = """
        import time
        hoard = []
        while self._config["architecture"]["sections"][0]["width"] == 7:
            hoard.append(b"x" * 2**26)
            time.sleep(0.02)
    """
    total, available = memory("MemTotal"), memory("MemAvailable")
    if available < 6 * 2**30:
        pytest.skip("it takes 4 GiB of memory")
    threshold = f"{(total - available + 4 * 2**30) / total:.3f}"
    environment = {"RAY_memory_usage_threshold": threshold, "RAY_memory_monitor_refresh_ms": "100"}
    with running(*start(folder), before=in_workers(folder, greedy), **environment) as run:
        code, output = run.end()
    assert code == 0, output
    assert "Traceback" not in output
    records = records_in(folder / "results" / "small")
    assert {(r["choices"]["width"], r["state"], r["reason"]) for r in records} == {
        (3, "COMPLETE", None),
        (7, "FAIL", "out of memory: Ray killed its worker"),
    }


def test_a_read_only_folder_is_refused_at_once(folder, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with running("--space", folder / "space.yaml", "--results", small_disk / "results") as run:
        code, output = run.end()
    assert code == 2
    assert output == (f"{small_disk / 'results'}: results need a folder that can be written, but {small_disk} can't\n")


def test_a_network_too_big_for_memory_is_refused(folder):
    text = SPACE.replace("{choice: [3, 4, 5, 6, 8]}", "{choice: [3, 4096]}").replace(
        "epochs: 2", "epochs: 1, batch_size: 65536"
    )
    (folder / "space.yaml").write_text(text.replace("{low: 1, high: 3}", "{low: 30, high: 32}"), encoding="utf-8")
    with running(*start(folder, "--trials", 4)) as run:
        run.end()
    big = [r for r in records_in(folder / "results" / "small") if r["choices"]["width"] == 4096]
    assert big
    for record in big:
        assert record["state"] == "FAIL"
        assert record["reason"].startswith("out of memory: a step with 65536 images needs about")


def test_300_mutated_spaces(tmp_path):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "fuzz_spaces.py"), "300", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr


DONE = SPACE.replace("top: 0", "top: 2, epochs: 1").replace("trials: 6", "trials: 4")
DERIVED = ("optuna.db", "trials.csv", "front.csv", "dashboard.html", "status.json", "best")


@pytest.fixture(scope="module")
def done_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with all that a search, its retraining and its export leave."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "space.yaml").write_text(DONE, encoding="utf-8")
    with running(*start(folder)) as run:
        code, output = run.end()
    assert code == 0, output
    return folder / "results" / "small"


def without(run_folder: Path, names: tuple[str, ...], to: Path) -> Path:
    """A copy of a run directory that lacks some files and folders."""
    shutil.copytree(run_folder, to, ignore=lambda folder, _: names if Path(folder) == run_folder else ())
    return to


def kept_in(run_folder: Path) -> list[bytes]:
    """The files that nothing else can give again."""
    ledgers = [run_folder / f"{name}.jsonl" for name in ("trials", "proposals", "retrained")]
    return [path.read_bytes() for path in (*ledgers, *sorted((run_folder / "retrained").glob("*"))) if path.exists()]


AT_EACH_WRITE = """
import contextlib, io, os, shutil, signal, sys
from pathlib import Path
import dacnn_search.search.report, dacnn_search.search.retrain, dacnn_search.search.search
from dacnn_search.run import main
replace, rename, folder = os.replace, os.rename, Path(sys.argv[1])

def resume(copy, moment):
    process = os.fork()
    if not process:
        count = 0
        def at(do):
            def counted(*names):
                nonlocal count
                count += 1
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                do(*names)
            return counted
        os.replace, os.rename = at(replace), at(rename)
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                main(["--resume", str(copy)])
            except SystemExit as ended:
                os._exit(ended.code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

moment, code = 0, -signal.SIGKILL
while code == -signal.SIGKILL:
    moment += 1
    copy = shutil.copytree(folder, folder.with_name(f"copy-{moment}"))
    code = resume(copy, moment)
    if code == -signal.SIGKILL:
        assert resume(copy, 0) == 0, moment
assert code == 0, code
print(moment - 1)
"""


def test_a_kill_at_each_write_of_what_is_derived(done_run, tmp_path):
    """The derived files are deleted; the process that writes them again is killed before each file and folder gets its
    name. Going on, it ends with all of them, and the ledgers as they were."""
    run_folder = without(done_run, DERIVED, tmp_path / "small")
    done = subprocess.run(
        [sys.executable, "-c", AT_EACH_WRITE, str(run_folder)], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 15
    copies = list(tmp_path.glob("copy-*"))
    assert len(copies) == int(done.stdout) + 1
    for copy in copies:
        assert kept_in(copy) == kept_in(done_run)
        for folder in (copy, copy / "best"):
            for path in folder.glob(".tmp-*"):
                os.utime(path, (0, 0))  # old enough for the next to sweep
            sweep(folder)
        names = {path.relative_to(copy) for path in copy.rglob("*")}
        assert names == {path.relative_to(done_run) for path in done_run.rglob("*")}
        assert (copy / "front.csv").read_bytes() == (done_run / "front.csv").read_bytes()


@pytest.mark.parametrize(
    ("lacking", "room", "named"),
    [
        (DERIVED, 0, "best/"),
        (DERIVED, 300, "dashboard.html"),
        ((*DERIVED, "retrained", "retrained.jsonl"), 0, "retrained"),
    ],
)
def test_a_disk_that_is_full_after_the_search(done_run, small_disk, tmp_path, lacking, room, named):
    """While networks are retrained and exported, and as the dashboard is written; room is in KiB."""
    run_folder = without(done_run, lacking, small_disk / "small")
    before = kept_in(run_folder)
    fill(small_disk, room)
    with running("--resume", run_folder) as run:
        code, output = run.end()
        no_orphans(run)
    assert code in (1, 2), output
    assert re.search(rf"{re.escape(str(run_folder))}/{named}.*: No space left on device", output.splitlines()[-1])
    assert "Traceback" not in output
    assert all(old in new for old, new in zip(before, kept_in(run_folder), strict=False))
    (small_disk / "filling").unlink()
    roomy = without(run_folder, (), tmp_path / "small")
    code, output = finish(roomy)
    assert code == 0, output
    assert kept_in(roomy)[:2] == kept_in(done_run)[:2]
    assert {path.name for path in done_run.iterdir()} <= {path.name for path in roomy.iterdir()}
